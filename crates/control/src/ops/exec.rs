//! The exec manager: which dynos can be entered over SSH, and passes to them; and connections to their ports without it.

use data_encoding::BASE64;
use dozen_api::engine::Connection;
use dozen_domain::dyno::State;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::{Error, Result};
use crate::{
    Context, origin,
    sessions::{self, About, inside, pass, ssh},
    store::{accounts::Account, apps::App},
};

/// Longest key that is read; RSA of 16,384 bits fits.
const KEY: usize = 4096;

/// A client's request to be let in.
#[derive(Debug, Default, Deserialize)]
pub struct New {
    /// Its public key, as in `authorized_keys`.
    pub client_key: String,
}

/// Where and how a client gets in.
#[derive(Debug)]
pub struct Entrance {
    /// Host of the SSH server.
    pub host: String,
    /// Its port; the official client takes 80 whatever this says.
    pub port: u16,
    /// User name.
    pub user: String,
    /// The server's key, as in `known_hosts`.
    pub host_key: String,
    /// An address of the dyno.
    pub dyno_ip: String,
}

/// Names of the dynos that can be entered.
pub fn list(context: &Context, app: &App) -> Vec<String> {
    let up = context.engine.dynos(app.id).into_iter().filter(|dyno| matches!(dyno.state, State::Up { .. }));
    up.map(|dyno| dyno.name.to_string()).collect()
}

/// Gives out a pass to a dyno.
///
/// # Errors
/// When there is no such dyno, the key is none, or there is no SSH server.
pub fn enter(context: &Context, app: &App, account: &Account, dyno: &str, new: &New) -> Result<Entrance> {
    let address = context.settings.ssh.ok_or_else(|| {
        Error::Unavailable(
            "This platform has no SSH server: its operator sets DOZEN_SSH_LISTEN to an address that it can listen on, \
             such as 127.0.0.2:80."
                .to_owned(),
        )
    })?;
    let dynos = context.engine.dynos(app.id);
    let found = dynos.iter().rfind(|one| one.name.to_string() == dyno && one.state.is_live());
    let found = found.ok_or(Error::NotFound("dyno"))?;
    let words: Vec<&str> = new.client_key.split_whitespace().collect();
    let key = words.get(1).filter(|key| key.len() <= KEY).and_then(|key| BASE64.decode(key.as_bytes()).ok());
    let key =
        key.ok_or_else(|| Error::invalid("client_key must be a public key as in authorized_keys: ssh-rsa AAAA…"))?;
    let host_key = ssh::host_key(&context.settings.data_dir)
        .map_err(|error| Error::platform("read keys/ssh_host.key in the data directory".to_owned(), error))?;
    let host_key = host_key.public_key().to_openssh();
    let host_key = host_key.map_err(|error| Error::platform("write the host's key".to_owned(), error))?;
    let host = match address.ip() {
        ip if ip.is_unspecified() => {
            let tls = origin::tls(&context.settings);
            tls.rsplit_once(':').map_or(tls.as_str(), |(host, _)| host).trim_matches(['[', ']']).to_owned()
        }
        ip => ip.to_string(),
    };
    let dyno_ip = match &found.state {
        State::Up { addresses, .. } => addresses.first().map(|address| address.ip().to_string()),
        _ => None,
    };
    Ok(Entrance {
        host,
        port: address.port(),
        user: pass::issue(context, app, dyno, account, &key),
        host_key,
        dyno_ip: dyno_ip.unwrap_or_else(|| "127.0.0.1".to_owned()),
    })
}

/// A connection to a port of a dyno.
pub struct Forward {
    inside: Box<dyn Connection>,
    account: sessions::Account,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

/// Connects to a port of a dyno, on its loopback too.
///
/// # Errors
/// When there is no such dyno, or nothing listens there.
pub async fn forward(context: &Context, app: &App, account: &Account, dyno: &str, port: u16) -> Result<Forward> {
    let found = inside::find(context, app.id, dyno).ok_or(Error::NotFound("dyno"))?;
    let inside = inside::dial(context, &found, inside::ITSELF, port).await;
    let inside = inside.ok_or_else(|| Error::invalid(format!("Nothing listens on port {port} in {dyno}.")))?;
    let about = About { app: app.id, dyno: dyno.to_owned(), email: account.email.clone(), what: "forward" };
    Ok(Forward { inside, account: sessions::Account::open(context, about) })
}

impl Forward {
    /// Carries bytes both ways until both sides have ended.
    pub async fn carry(mut self, upgrade: OnUpgrade) {
        match upgrade.await {
            Ok(outside) => {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(outside), &mut self.inside).await;
            }
            Err(error) => tracing::debug!(%error, "a forward's client has gone before it began"),
        }
        drop(self.account);
    }
}
