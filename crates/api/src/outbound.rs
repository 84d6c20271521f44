//! Connections that the platform makes on somebody's behalf: to the address that a drain or a source names.
//!
//! A name is resolved, every address it leads to is judged by [`Reach`], and the very address that was judged is
//! connected to, so that a name cannot lead elsewhere between the two. TLS trusts what the system trusts. What is said
//! over the connection is the caller's matter.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dozen_domain::reach::{Kind, Reach};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};

/// Where systems keep the certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name leads nowhere.
    #[error("{0} cannot be resolved")]
    Unresolved(String, #[source] io::Error),
    /// The name leads where the platform does not go.
    #[error("{}", out_of_reach(host, *address, *kind))]
    OutOfReach {
        /// As it was given.
        host: String,
        /// What it leads to.
        address: IpAddr,
        /// What that is.
        kind: Kind,
    },
    /// Nobody answers there.
    #[error("{0} does not take a connection")]
    Refused(String, #[source] io::Error),
    /// Nobody answers there in time.
    #[error("{0} does not answer within {1:?}")]
    Late(String, Duration),
}

/// A name leads somewhere; an address is what it is.
fn out_of_reach(host: &str, address: IpAddr, kind: Kind) -> String {
    if host.parse() == Ok(address) { format!("{host} is {kind}") } else { format!("{host} leads to {address}, {kind}") }
}

/// A host and a port, as in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name or an address; an IPv6 address without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// The addresses that a host leads to and that are in reach.
///
/// # Errors
/// When there is none, or one of them is out of reach: a name that also leads to a private address is refused as a whole.
pub async fn resolve(host: &Host, reach: &Reach) -> Result<Vec<SocketAddr>, Error> {
    let found = tokio::net::lookup_host((host.name.as_str(), host.port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| Error::Unresolved(host.name.clone(), error))?.collect();
    for address in &found {
        let out = |kind| Error::OutOfReach { host: host.name.clone(), address: address.ip(), kind };
        reach.check(*address).map_err(out)?;
    }
    if found.is_empty() {
        return Err(Error::Unresolved(host.name.clone(), io::ErrorKind::NotFound.into()));
    }
    Ok(found)
}

/// Connects to a host within `limit`, its name's resolution included.
///
/// # Errors
/// When it is out of reach or does not answer.
pub async fn connect(host: &Host, reach: &Reach, limit: Duration) -> Result<TcpStream, Error> {
    let connected = async {
        let mut last = io::ErrorKind::NotFound.into();
        for address in resolve(host, reach).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(Error::Refused(host.to_string(), last))
    };
    timeout(limit, connected).await.map_err(|_| Error::Late(host.to_string(), limit))?
}

/// The certificates in `own` if it is given, else those that the system trusts.
pub fn roots(own: Option<&Path>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let bundles = own.map_or_else(|| BUNDLES.map(PathBuf::from).to_vec(), |own| vec![own.to_owned()]);
    for bundle in bundles {
        let Ok(certificates) = CertificateDer::pem_file_iter(&bundle) else { continue };
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        if !roots.is_empty() {
            break;
        }
    }
    roots
}

/// TLS of a client that trusts the certificates in `own` if it is given, else those that the system trusts.
///
/// # Errors
/// When the provider of TLS has no usable version, which it does not lack.
pub fn tls(own: Option<&Path>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots(own)).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_to_the_machine_itself_is_refused_unless_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let long = Duration::from_secs(60);
        for name in ["localhost", "127.0.0.1", "127.1", "2130706433"] {
            let host = Host { name: name.to_owned(), port };
            let refused = connect(&host, &Reach::default(), long).await.expect_err(name);
            assert!(matches!(refused, Error::OutOfReach { kind: Kind::Loopback, .. }), "{name}: {refused}");
            let leads = if name == "127.0.0.1" { "is" } else { "leads to 127.0.0.1," };
            let expected = format!("{name} {leads} an address of this machine itself");
            // The name may lead to the IPv6 address first.
            assert!(name == "localhost" || refused.to_string() == expected, "{refused}");
        }
        let host = Host { name: "127.0.0.1".to_owned(), port };
        connect(&host, &Reach::everything(), long).await.expect("a connection");
        let own = Reach { listeners: vec![listener.local_addr().expect("an address")], ..Reach::everything() };
        let refused = connect(&host, &own, long).await.expect_err("the platform's own");
        assert!(matches!(refused, Error::OutOfReach { kind: Kind::Platform, .. }), "{refused}");
    }
}
