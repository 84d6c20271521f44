//! The platform's listening sockets: bound once by the parent, before anything else starts, and inherited by roles.
//!
//! The parent keeps them open, so connections wait in the kernel's queue while a role is away; none is refused.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use dozen_domain::network::ssh_addresses;

use crate::config::{Config, Listen};

/// A socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: cannot listen on {address}{hint}")]
pub(crate) struct Error {
    variable: &'static str,
    address: SocketAddr,
    hint: &'static str,
    #[source]
    source: io::Error,
}

/// All sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// `DOZEN_API_LISTEN`
    pub(crate) api: TcpListener,
    /// `DOZEN_TLS_LISTEN`
    pub(crate) tls: TcpListener,
    /// `DOZEN_ROUTER_LISTEN`
    pub(crate) router: TcpListener,
    /// `DOZEN_ROUTER_TLS_LISTEN`
    pub(crate) router_tls: TcpListener,
    /// `DOZEN_SSH_LISTEN`
    pub(crate) ssh: Option<TcpListener>,
    /// `DOZEN_ROUTER_METRICS_LISTEN`
    pub(crate) router_metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds them all; `ssh_given`: that for SSH was asked for and is not just the default.
    ///
    /// # Errors
    /// For the first that cannot be bound, with the variable that moves it elsewhere.
    pub(crate) fn bind(listen: &Listen, ssh_given: bool) -> Result<Self, Error> {
        let elsewhere = |error: Error| {
            // Another platform or a forwarder of this machine has the usual address: any of the others does as well.
            let mut others = ssh_addresses().map(|address| SocketAddr::from((address, error.address.port())));
            others.find_map(|address| bind("DOZEN_SSH_LISTEN", address).ok()).ok_or(error)
        };
        let bound = |address| match bind("DOZEN_SSH_LISTEN", address) {
            Err(error) if !ssh_given => elsewhere(error),
            bound => bound,
        };
        let ssh = match listen.ssh.map(bound).transpose() {
            Err(error) if !ssh_given => {
                tracing::warn!(reason = %error.source, "no SSH for ps:exec and its family: {error}");
                None
            }
            ssh => ssh?,
        };
        Ok(Self {
            api: bind("DOZEN_API_LISTEN", listen.api)?,
            tls: bind("DOZEN_TLS_LISTEN", listen.tls)?,
            router: bind("DOZEN_ROUTER_LISTEN", listen.router)?,
            router_tls: bind("DOZEN_ROUTER_TLS_LISTEN", listen.router_tls)?,
            ssh,
            router_metrics: match listen.router_metrics {
                Some(address) => Some(bind("DOZEN_ROUTER_METRICS_LISTEN", address)?),
                None => None,
            },
        })
    }

    /// Where they really are: with the ports that the kernel chose where 0 was asked for.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn addresses(&self) -> io::Result<Listen> {
        Ok(Listen {
            api: self.api.local_addr()?,
            tls: self.tls.local_addr()?,
            router: self.router.local_addr()?,
            router_tls: self.router_tls.local_addr()?,
            ssh: self.ssh.as_ref().map(TcpListener::local_addr).transpose()?,
            router_metrics: self.router_metrics.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }
}

fn bind(variable: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => ": another process listens there; give another port",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need root or CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
            _ => "",
        };
        Error { variable, address, hint, source }
    })
}

const FILE: &str = "run/listen.json";

/// Leaves the addresses where `dozen env` finds them.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn record(data_dir: &Path, listen: &Listen) -> io::Result<()> {
    let (path, fresh) = (data_dir.join(FILE), data_dir.join("run/listen.json.new"));
    fs::write(&fresh, serde_json::to_vec(listen)?)?;
    fs::rename(fresh, path)
}

/// The addresses of the platform that runs, or ran last, on the configured data directory; else the configured ones.
pub(crate) fn recorded(config: &Config) -> Listen {
    let recorded = fs::read(config.data_dir.join(FILE)).ok();
    recorded.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or(config.listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_the_variable_and_the_port() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let free: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let listen =
            Listen { api: free, tls: address, router: free, router_tls: free, ssh: None, router_metrics: None };
        let error = Listeners::bind(&listen, false).expect_err("taken").to_string();
        assert!(error.contains("DOZEN_TLS_LISTEN") && error.contains(&address.port().to_string()), "{error}");
        // Who did not ask for an address of SSH gets another one, and can do without.
        let listen = Listen { tls: free, ssh: Some(address), ..listen };
        let error = Listeners::bind(&listen, true).expect_err("taken").to_string();
        assert!(error.contains("DOZEN_SSH_LISTEN"), "{error}");
        let other = Listeners::bind(&listen, false).expect("bound").ssh.expect("another address");
        let other = other.local_addr().expect("an address");
        assert!(other.port() == address.port() && other.ip().is_loopback() && other != address, "{other}");
        let others = ssh_addresses().map(|one| SocketAddr::from((one, address.port())));
        let _all: Vec<TcpListener> = others.filter_map(|one| TcpListener::bind(one).ok()).collect();
        assert!(Listeners::bind(&listen, false).expect("bound").ssh.is_none());
    }
}
