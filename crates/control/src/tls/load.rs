//! Certificates as a TLS listener holds them: loaded, checked against their key, replaceable while it runs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::Error;

/// One certificate with its key, answered to whatever name a client asks for.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    loaded: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Loads a PEM chain and its PEM key.
    ///
    /// # Errors
    /// When either cannot be read or they do not belong together.
    pub fn load(chain: &Path, key: &Path) -> Result<Arc<Self>, Error> {
        let loaded = RwLock::new(Arc::new(read(chain, key)?));
        Ok(Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), loaded }))
    }

    /// Reads the files again; new connections get what is there now.
    ///
    /// # Errors
    /// As [`Certificate::load`]; the former certificate then stays in use.
    pub fn reload(&self) -> Result<(), Error> {
        let fresh = Arc::new(read(&self.chain, &self.key)?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The configuration of a listener that serves HTTP/1.1 under this certificate.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults.
    pub fn server(self: &Arc<Self>) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Unusable { path: self.chain.clone(), source })?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Reads a chain and its key and checks that they belong together.
pub(super) fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let unusable = |source| Error::Unusable { path: certificate.to_owned(), source };
    let chain = chain(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(key, error))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(unusable)?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(unusable)?;
    Ok(pair)
}

/// Reads all certificates of a PEM file.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| pem_error(path, error))?;
    certificates.collect::<Result<_, _>>().map_err(|error| pem_error(path, error))
}

/// The certificates of a PEM file as what a client trusts.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn client_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|source| Error::Unusable { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

fn pem_error(path: &Path, error: pem::Error) -> Error {
    let source = match error {
        pem::Error::Io(source) => source,
        other => std::io::Error::new(std::io::ErrorKind::InvalidData, other.to_string()),
    };
    super::file("read", path, source)
}
