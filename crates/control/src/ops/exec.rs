//! The exec manager: which dynos can be entered over SSH, and passes to them; and connections to their ports without it.

use std::{net::SocketAddr, time::Duration};

use data_encoding::BASE64;
use dozen_api::engine::Connection;
use dozen_domain::dyno::State;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::{Error, Result};
use crate::{
    Context, origin,
    sessions::{self, About, inside, pass, ssh, tunnel},
    store::{accounts::Account, apps::App},
};

/// Longest key that is read; RSA of 16,384 bits fits.
const KEY: usize = 4096;

/// The port that the official client takes whatever it is told.
const PORT: u16 = 80;
/// What to do without an SSH server.
const NO_SSH: &str = "This platform has no SSH server, so ps:exec, ps:copy, ps:forward and ps:socks do not work: use \
                          heroku run:inside, dozen exec or dozen forward. Its operator sets DOZEN_SSH_LISTEN to an address \
                          that it can listen on, such as 127.0.0.2:80; ports below 1024 need root or CAP_NET_BIND_SERVICE.";

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

/// What a client is to be told that is about to enter a dyno over SSH.
pub fn warning(context: &Context) -> Option<&'static str> {
    let served = context.settings.ssh.is_some() || origin::ssh(&context.settings).is_some();
    (!served).then_some(NO_SSH)
}

/// Gives out a pass to a dyno.
///
/// # Errors
/// When there is no such dyno, the key is none, or there is no SSH server.
pub fn enter(context: &Context, app: &App, account: &Account, dyno: &str, new: &New) -> Result<Entrance> {
    let forwarded = origin::ssh(&context.settings).map(|address| SocketAddr::from((address, PORT)));
    let address = forwarded.or(context.settings.ssh).ok_or_else(|| Error::invalid(NO_SSH))?;
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
    let about = About { app: app.id, dyno: dyno.to_owned(), email: account.email.clone(), what: "forward".to_owned() };
    Ok(Forward { inside, account: sessions::Account::open(context, about) })
}

impl Forward {
    /// Carries bytes both ways until both sides have ended, or one has and the other says nothing for `patience`.
    pub async fn carry(self, patience: Duration, upgrade: OnUpgrade) {
        match upgrade.await {
            Ok(outside) => tunnel::carry(TokioIo::new(outside), self.inside, patience).await,
            Err(error) => tracing::debug!(%error, "a forward's client has gone before it began"),
        }
        drop(self.account);
    }
}
