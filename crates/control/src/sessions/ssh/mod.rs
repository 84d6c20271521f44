//! The SSH server of the exec family (CLIENT-CONTRACT 8): who may in, and which channels there are.
//!
//! Only public keys are taken, and only with the user name that goes with the key ([`super::pass`]). A connection is to
//! one dyno: sessions run in it ([`session`]), `direct-tcpip` connects from inside it. Nothing else is granted: no
//! agent, no X11, no remote forwarding.

mod session;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use dozen_api::engine::{Connection, Dyno};
use dozen_domain::dyno::State;
use russh::{
    Channel, ChannelOpenFailure, MethodKind, MethodSet, SshId,
    keys::{
        PrivateKey, PublicKey,
        ssh_key::{private::Ed25519Keypair, public::KeyData},
    },
    server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{About, Account, pass, pass::Pass};
use crate::{Context, auth::keys, reconcile::driver::chain};

/// Time for a client to prove itself.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// A client that does not answer keep-alives for this long is gone; three are sent in it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes of the seed of the host's key (Ed25519).
const SEED: usize = 32;
/// Pause after a failed accept, so that it is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reads the host's key, making it at the first start.
///
/// # Errors
/// When the file cannot be used or is damaged.
pub fn host_key(data_dir: &Path) -> io::Result<PrivateKey> {
    let path = data_dir.join("keys/ssh_host.key");
    let seed: [u8; SEED] = match fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            let text = format!("{} is not a key of {SEED} bytes; remove it and a new one is made", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = keys::random();
            keys::write_private(&path, &seed)?;
            seed
        }
        Err(error) => return Err(error),
    };
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// Serves SSH until told to stop.
pub async fn serve(context: Context, listener: TcpListener, stop: CancellationToken) {
    let key = match host_key(&context.settings.data_dir) {
        Ok(key) => key,
        Err(error) => return tracing::error!(%error, "no SSH: ps:exec and its family do not work"),
    };
    let config = Arc::new(Config {
        server_id: SshId::Standard("SSH-2.0-Dozen".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(200),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        keys: vec![key],
        keepalive_interval: Some(KEEP_ALIVE),
        keepalive_max: 3,
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    });
    let most = usize::try_from(context.limits().ssh_connections).unwrap_or(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // One too many is closed: the client says so and may try again.
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let (context, config, stop) = (context.clone(), config.clone(), stop.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = connection(context, config, stream) => {}
                        () = stop.cancelled() => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept an SSH connection; trying on");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(context: Context, config: Arc<Config>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (entered, mut known) = watch::channel(false);
    let visitor = Visitor { context, pass: None, entered };
    let served = async {
        match russh::server::run_stream(config, stream, visitor).await {
            Ok(session) => session.await,
            Err(error) => Err(error),
        }
    };
    tokio::pin!(served);
    let proven = async {
        let _ = tokio::time::timeout(HANDSHAKE, known.wait_for(|known| *known)).await;
    };
    tokio::select! {
        ended = &mut served => return tell(ended),
        () = proven => {}
    }
    if *known.borrow() {
        tell(served.await);
    }
}

fn tell(ended: Result<(), Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an SSH connection ended");
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] russh::Error);

/// One connection.
struct Visitor {
    context: Context,
    pass: Option<Pass>,
    entered: watch::Sender<bool>,
}

impl Visitor {
    async fn admit(&mut self, user: &str, key: &PublicKey) -> Auth {
        let bytes = key.to_bytes().unwrap_or_default();
        // Others than the client makes are refused whatever their pass: there is no need for them.
        let usual = matches!(key.key_data(), KeyData::Rsa(_) | KeyData::Ed25519(_) | KeyData::Ecdsa(_));
        match pass::redeem(&self.context, user, &bytes).await.filter(|_| usual) {
            Some(pass) => {
                self.pass = Some(pass);
                Auth::Accept
            }
            None => Auth::reject(),
        }
    }
}

/// The live dyno of this name.
pub(super) fn find(context: &Context, pass: &Pass) -> Option<Dyno> {
    let mut dynos = context.engine.dynos(pass.app).into_iter();
    dynos.rfind(|dyno| {
        dyno.name.to_string() == pass.dyno && matches!(dyno.state, State::Up { .. } | State::Starting { .. })
    })
}

impl Handler for Visitor {
    type Error = Error;

    async fn auth_publickey_offered(&mut self, user: &str, key: &PublicKey) -> Result<Auth, Error> {
        Ok(self.admit(user, key).await)
    }

    async fn auth_publickey(&mut self, user: &str, key: &PublicKey) -> Result<Auth, Error> {
        let answer = self.admit(user, key).await;
        if matches!(answer, Auth::Accept) {
            self.entered.send_replace(true);
        }
        Ok(answer)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some(pass) = self.pass.clone() else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        reply.accept().await;
        tokio::spawn(session::serve(self.context.clone(), pass, channel, session.handle()));
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let (Some(pass), Ok(port)) = (self.pass.clone(), u16::try_from(port_to_connect)) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        // Connecting may take long, and other channels of this connection must not wait for it.
        let (context, host) = (self.context.clone(), host_to_connect.to_owned());
        tokio::spawn(async move {
            match dial(&context, &pass, &host, port).await {
                Some(mut inside) => {
                    reply.accept().await;
                    let what = if is_dyno_itself(&host) { "ps:forward" } else { "ps:socks" };
                    let about = About { app: pass.app, dyno: pass.dyno, email: pass.email, what };
                    let _account = Account::open(&context, about);
                    let mut outside = channel.into_stream();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                }
                None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }
}

/// Names by which a client means the dyno that it is connected to.
fn is_dyno_itself(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// Connects from inside the dyno. For the dyno itself wherever it listens: its loopback, then its own addresses.
async fn dial(context: &Context, pass: &Pass, host: &str, port: u16) -> Option<Box<dyn Connection>> {
    let dyno = find(context, pass)?;
    let candidates: Vec<SocketAddr> = if is_dyno_itself(host) {
        let own = match &dyno.state {
            State::Up { addresses, .. } => addresses.iter().map(SocketAddr::ip).collect(),
            _ => Vec::new(),
        };
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        loopback.into_iter().chain(own).map(|ip| SocketAddr::new(ip, port)).collect()
    } else {
        tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await.ok()?.take(4).collect()
    };
    for to in candidates {
        match context.engine.dial(dyno.id, to).await {
            Ok(connection) => return Some(connection),
            Err(error) => tracing::debug!(dyno = %dyno.name, error = %chain(&error), "not connected from a dyno"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_key_is_made_once_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("keys")).expect("a directory");
        let key = host_key(directory.path()).expect("a key");
        assert_eq!(host_key(directory.path()).expect("a key").public_key(), key.public_key());
        assert!(key.public_key().to_openssh().expect("text").starts_with("ssh-ed25519 AAAA"));
        fs::write(directory.path().join("keys/ssh_host.key"), b"short").expect("written");
        assert!(host_key(directory.path()).is_err());
    }

    #[test]
    fn the_dyno_itself_has_several_names() {
        for name in ["0.0.0.0", "localhost", "127.0.0.1", "::1", "[::]", "LOCALHOST"] {
            assert!(is_dyno_itself(name), "{name}");
        }
        for name in ["10.0.0.1", "example.com", "localhost.example.com"] {
            assert!(!is_dyno_itself(name), "{name}");
        }
    }
}
