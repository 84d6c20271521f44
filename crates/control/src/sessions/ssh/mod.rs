//! The SSH server of the exec family (CLIENT-CONTRACT 8): who may in, and which channels there are.
//!
//! Only public keys are taken, and only with the user name that goes with the key ([`super::pass`]). A connection is to
//! one dyno: sessions run in it ([`session`]), `direct-tcpip` connects from inside it. Nothing else is granted: no
//! agent, no X11, no remote forwarding.

mod session;

use std::{fs, io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use dozen_domain::limits::seconds;
use russh::{
    Channel, ChannelOpenFailure, MethodKind, MethodSet, SshId,
    keys::{
        PrivateKey, PublicKey,
        ssh_key::{private::Ed25519Keypair, public::KeyData},
    },
    server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{About, Account, inside, pass, pass::Pass, tunnel};
use crate::{Context, auth::keys};

/// A client that does not answer keep-alives for this long is gone; three are sent in it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes of the seed of the host's key (Ed25519).
const SEED: usize = 32;
/// How the official client's own SSH introduces itself; the one that `--ssh` starts is another.
const OFFICIAL: &[u8] = b"SSH-2.0-ssh2js";
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

/// Serves any number of connections, whether they come to a port of their own or through TLS.
#[derive(Clone)]
pub struct Server {
    context: Context,
    config: Arc<Config>,
    places: Arc<Semaphore>,
}

impl Server {
    /// A server with the host's key.
    ///
    /// # Errors
    /// As [`host_key`].
    pub fn new(context: Context) -> io::Result<Self> {
        let config = Config {
            server_id: SshId::Standard("SSH-2.0-Dozen".into()),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: Duration::from_millis(200),
            auth_rejection_time_initial: Some(Duration::ZERO),
            max_auth_attempts: 6,
            keys: vec![host_key(&context.settings.data_dir)?],
            keepalive_interval: Some(KEEP_ALIVE),
            keepalive_max: 3,
            inactivity_timeout: None,
            nodelay: true,
            ..Config::default()
        };
        let most = usize::try_from(context.limits().ssh_connections).unwrap_or(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Ok(Self { context, config: Arc::new(config), places })
    }

    /// Accepts connections until told to stop.
    pub async fn accept(self, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let (server, stop) = (self.clone(), stop.clone());
                    connections.spawn(async move {
                        tokio::select! {
                            () = server.serve(stream) => {}
                            () = stop.cancelled() => {}
                        }
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

    /// Serves one connection to its end.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        // One too many is closed: the client says so and may try again.
        let Ok(_place) = self.places.clone().try_acquire_owned() else { return };
        let (entered, mut known) = watch::channel(false);
        let gone = CancellationToken::new();
        let visitor = Visitor {
            context: self.context.clone(),
            pass: None,
            entered,
            gone: gone.clone(),
            _present: gone.drop_guard(),
        };
        let served = async {
            match russh::server::run_stream(self.config.clone(), stream, visitor).await {
                Ok(session) => session.await,
                Err(error) => Err(error),
            }
        };
        tokio::pin!(served);
        let patience = seconds(self.context.limits().ssh_login_seconds);
        let proven = async {
            let _ = tokio::time::timeout(patience, known.wait_for(|known| *known)).await;
        };
        tokio::select! {
            ended = &mut served => return tell(ended),
            () = proven => {}
        }
        if *known.borrow() {
            tell(served.await);
        }
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
    /// Whatever goes on for it ends with the connection, even what cannot notice that by itself.
    gone: CancellationToken,
    _present: DropGuard,
}

/// Does something for a visitor, in a task of its own, until that is done or the visitor has gone.
fn attend(gone: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let gone = gone.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            () = gone.cancelled() => {}
        }
    });
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
        let breaks = session.remote_sshid().starts_with(OFFICIAL);
        let client = session::Client { handle: session.handle(), breaks };
        attend(&self.gone, session::serve(self.context.clone(), pass, channel, client));
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
        attend(&self.gone, async move {
            let inside = match inside::find(&context, pass.app, &pass.dyno) {
                Some(dyno) => inside::dial(&context, &dyno, &host, port).await,
                None => None,
            };
            match inside {
                Some(inside) => {
                    reply.accept().await;
                    let about =
                        About { app: pass.app, dyno: pass.dyno, email: pass.email, what: purpose(&host).to_owned() };
                    let _account = Account::open(&context, about);
                    let patience = seconds(context.limits().attach_idle_seconds);
                    tunnel::carry(channel.into_stream(), inside, patience).await;
                }
                None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }
}

/// What a connection is for. `heroku ps:forward` always says `0.0.0.0`; what its proxy is asked for is a name or an
/// address that means something inside.
fn purpose(host: &str) -> &'static str {
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => "ps:forward",
        _ => "ps:socks",
    }
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
    fn a_forward_is_told_from_a_proxys_connection() {
        assert_eq!(
            ["0.0.0.0", "localhost", "127.0.0.1", "db.example.com"].map(purpose),
            ["ps:forward", "ps:socks", "ps:socks", "ps:socks"]
        );
    }
}
