//! The private authority and the leaves that it signs.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SerialNumber, date_time_ymd,
};
use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier as _};
use rustls_pki_types::{ServerName, UnixTime};

use super::{AUTHORITY_DAYS, DAY, Error, LEAF_DAYS, RENEW_DAYS, file, host_of, is_hopeless, load};

/// The authority, ready to sign.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
    pem: String,
}

impl Authority {
    /// Reads the authority of a directory, or makes it when there is none.
    pub(super) fn ensure(directory: &Path, now: u64) -> Result<Self, Error> {
        let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        let made = |source| Error::Make { path: certificate.clone(), source };
        let damaged = || Error::Authority { path: certificate.clone() };
        let (pem, pair) = match (read(&certificate)?, read(&key)?) {
            (Some(pem), Some(key)) => (pem, KeyPair::from_pem(&key).map_err(|_| damaged())?),
            // The key is written first: a certificate without it was lost by somebody else.
            (Some(_), None) => return Err(damaged()),
            (None, _) => {
                let pair = KeyPair::generate().map_err(made)?;
                let pem = parameters(now).self_signed(&pair).map_err(made)?.pem();
                write(&key, &pair.serialize_pem(), 0o600)?;
                write(&certificate, &pem, 0o644)?;
                (pem, pair)
            }
        };
        let public = pair.subject_public_key_info();
        let issuer = Issuer::from_ca_cert_pem(&pem, pair).map_err(|_| damaged())?;
        let der = load::chain(&certificate).map_err(|_| damaged())?;
        // A subject's public key stands as it is inside its certificate.
        if !der.first().is_some_and(|der| der.windows(public.len()).any(|window| window == public)) {
            return Err(damaged());
        }
        Ok(Self { issuer, certificate, pem })
    }

    /// Makes a leaf for `names` unless the one that is there serves all of them for some time to come.
    pub(super) fn ensure_leaf(&self, certificate: &Path, key: &Path, names: &[String], now: u64) -> Result<(), Error> {
        if self.serves(certificate, key, names, now) {
            return Ok(());
        }
        let made = |source| Error::Make { path: certificate.to_owned(), source };
        let mut leaf = CertificateParams::new(names.to_vec()).map_err(made)?;
        let name = names.first().map_or("dozen", String::as_str);
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_sub(DAY));
        leaf.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now + LEAF_DAYS * DAY);
        leaf.serial_number = Some(serial());
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let pair = KeyPair::generate().map_err(made)?;
        let signed = leaf.signed_by(&pair, &self.issuer).map_err(made)?;
        write(key, &pair.serialize_pem(), 0o600)?;
        write(certificate, &format!("{}{}", signed.pem(), self.pem), 0o644)
    }

    /// Asks what a client would ask, for each name, at the time when renewal is due.
    fn serves(&self, certificate: &Path, key: &Path, names: &[String], now: u64) -> bool {
        let (Ok(_), Ok(chain), Ok(roots)) =
            (load::read(certificate, key), load::chain(certificate), load::client_roots(&self.certificate))
        else {
            return false;
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
            return false;
        };
        let Some((leaf, rest)) = chain.split_first() else { return false };
        let due = UnixTime::since_unix_epoch(Duration::from_secs(now + RENEW_DAYS * DAY));
        names.iter().filter(|name| !is_hopeless(name)).all(|name| {
            ServerName::try_from(host_of(name))
                .is_ok_and(|name| verifier.verify_server_cert(leaf, rest, &name, &[], due).is_ok())
        })
    }
}

fn parameters(now: u64) -> CertificateParams {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Dozen private authority");
    authority.distinguished_name.push(DnType::OrganizationName, "Dozen");
    authority.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_sub(DAY));
    authority.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now + AUTHORITY_DAYS * DAY);
    authority.serial_number = Some(serial());
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
}

/// A serial number of 16 random bytes, the first bit clear so that it is positive.
fn serial() -> SerialNumber {
    let mut bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes[0] = bytes[0] & 0x7f | 0x01;
    SerialNumber::from_slice(&bytes)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path, error)),
    }
}

/// Puts a whole file in place, or leaves what was there.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let mut scratch = path.as_os_str().to_owned();
    scratch.push(".new");
    let scratch = PathBuf::from(scratch);
    let done = || -> io::Result<()> {
        match fs::remove_file(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&scratch)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&scratch, path)
    };
    done().map_err(|source| file("write", path, source))
}
