//! TLS towards clients: the certificate of the name that they ask for, the default one for all others.
//!
//! An app's certificates come with the route table ([`crate::edge::certificates`]); the default one is a file that
//! somebody else renews and that is read again when it has changed. This module makes the server's configuration of
//! them; it issues and renews nothing, and decides nothing about requests.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::ring,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use crate::{edge::certificates::Challenges as _, table::Table};

/// The protocol of a certificate authority that looks whether a name leads here (RFC 8737).
pub(crate) const ACME: &[u8] = b"acme-tls/1";

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
fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(failed(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|source| Error::Use {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// What tells one version of a file from the next.
type Stamp = io::Result<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let data = fs::metadata(path)?;
    Ok((data.modified()?, data.len()))
}

/// The certificate for names that have none of their own, from two files.
#[derive(Debug)]
pub(crate) struct Fallback {
    certificate: PathBuf,
    key: PathBuf,
    loaded: ArcSwap<CertifiedKey>,
    seen: Mutex<[Option<(SystemTime, u64)>; 2]>,
}

impl Fallback {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let seen = Mutex::new([stamp(certificate).ok(), stamp(key).ok()]);
        let loaded = ArcSwap::from_pointee(load(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), loaded, seen })
    }

    /// Reads the files again if they have changed. Handshakes from now on get what is there; two files of which one is
    /// not in place yet are tried again at the next look.
    pub(crate) fn refresh(&self) {
        let now = [stamp(&self.certificate).ok(), stamp(&self.key).ok()];
        if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == now {
            return;
        }
        match load(&self.certificate, &self.key) {
            Ok(fresh) => {
                self.loaded.store(Arc::new(fresh));
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
                tracing::info!(certificate = %self.certificate.display(), "the default certificate was renewed");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "going on with the former default certificate");
            }
        }
    }
}

/// Finds the certificate for a handshake.
#[derive(Debug)]
pub(crate) struct Resolver {
    table: Arc<Table>,
    fallback: Fallback,
}

impl Resolver {
    pub(crate) fn new(table: Arc<Table>, fallback: Fallback) -> Arc<Self> {
        Arc::new(Self { table, fallback })
    }

    /// Looks whether the default certificate has changed.
    pub(crate) fn refresh(&self) {
        self.fallback.refresh();
    }

    /// The certificate that clients who ask for this name are shown, in lower case.
    fn certificate(&self, name: &str) -> Arc<CertifiedKey> {
        let own = self.table.find(name).and_then(|app| app.view().certificates.find(name));
        own.unwrap_or_else(|| self.fallback.loaded.load_full())
    }

    /// Says whether the certificate that is shown for `name` is one for `host` too.
    pub(crate) fn covers(&self, name: &str, host: &str) -> bool {
        let certificate = self.certificate(name);
        let parsed = certificate.end_entity_cert().and_then(ParsedCertificate::try_from);
        let host = ServerName::try_from(host);
        parsed.is_ok_and(|parsed| host.is_ok_and(|host| verify_server_name(&parsed, &host).is_ok()))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let mut protocols = hello.alpn().into_iter().flatten();
        if protocols.next() == Some(ACME) && protocols.next().is_none() {
            // Nothing but the answer to the challenge is shown to one who asks for it.
            let name = name?;
            return self.table.find(&name)?.view().app.edge.challenge(&name);
        }
        Some(match name {
            Some(name) => self.certificate(&name),
            None => self.fallback.loaded.load_full(),
        })
    }
}

/// Makes the server's configuration: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, resumption by tickets.
pub(crate) fn configuration(resolver: Arc<Resolver>) -> Result<Arc<ServerConfig>, Error> {
    let mut configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    configuration.alpn_protocols = [&b"h2"[..], b"http/1.1", ACME].map(<[u8]>::to_vec).to_vec();
    // A ticket holds the session sealed with a key of this process, so that nothing is kept for a client that is away.
    configuration.ticketer = ring::Ticketer::new().map_err(Error::Setup)?;
    Ok(Arc::new(configuration))
}
