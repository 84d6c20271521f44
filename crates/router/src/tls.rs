//! TLS towards clients: a certificate by the name they ask for, a default one for all others.
//!
//! Certificates come from whoever holds them, as an `Arc`'d rustls resolver ([`Certificates`] is one that can be
//! changed while it serves). This module makes the server's configuration of them; it issues and renews nothing.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A PEM file cannot be read or holds nothing fitting.
    #[error("reading the certificate's file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Key and certificate do not belong together, or are of a kind that is not known.
    #[error("using the certificate {certificate} with the key {key}")]
    Use {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// No version of TLS fits the provider of cryptography.
    #[error("setting up TLS")]
    Setup(#[source] rustls::Error),
}

/// Reads a certificate chain and its key from PEM files.
///
/// # Errors
/// When a file cannot be read, or the two do not belong together.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(failed(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map(Arc::new).map_err(|source| Error::Use {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// Certificates by host name (`*.example.com` for a wildcard), which may change while they are in use.
#[derive(Debug, Default)]
pub struct Certificates {
    by_name: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

impl Certificates {
    /// Puts `certificates`, by host name in lower case, in place of those known.
    pub fn replace(&self, certificates: HashMap<String, Arc<CertifiedKey>>) {
        self.by_name.store(Arc::new(certificates));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let known = self.by_name.load();
        let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
        known.get(&name).or_else(|| known.get(&wildcard()?)).cloned()
    }
}

/// The given resolver's certificate, or the default one where it has none.
#[derive(Debug)]
struct OrDefault {
    resolver: Option<Arc<dyn ResolvesServerCert>>,
    default: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OrDefault {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.resolver.as_ref().and_then(|resolver| resolver.resolve(hello));
        Some(found.unwrap_or_else(|| self.default.clone()))
    }
}

/// Makes the server's configuration: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
pub(crate) fn configuration(
    resolver: Option<Arc<dyn ResolvesServerCert>>,
    default: Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OrDefault { resolver, default }));
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(configuration))
}
