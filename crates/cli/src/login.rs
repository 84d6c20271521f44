//! A platform elsewhere that this person has logged in to: its address, the certificate of its authority, a token.
//!
//! Kept in `$XDG_CONFIG_HOME/dozen` (`~/.config/dozen`), readable by nobody else: `login.json`, and `ca.pem`, which is
//! pinned: whoever shows another authority later is not spoken to. There is one login at a time.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, HEXUPPER};
use dozen_domain::config::Secret;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::Error;

const FILE: &str = "login.json";

/// Digits of a SHA-256.
const DIGITS: usize = 64;

/// Port of a platform's TLS listener unless an address says otherwise.
const PORT: u16 = 5443;

/// A login.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    /// `https://host:port`
    pub url: String,
    /// Whose.
    pub email: String,
    /// What proves it.
    pub token: Secret,
    /// The authorization that was made for it, to be revoked at its end.
    pub authorization: Option<String>,
    /// Where it is kept.
    #[serde(skip)]
    pub directory: PathBuf,
}

impl Login {
    /// The one that is kept in a directory, if any.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { operation: format!("read {}", path.display()), source }),
        };
        let login: Self =
            serde_json::from_slice(&text).map_err(|_| Error::Login { path: path.display().to_string() })?;
        Ok(Some(Self { directory: directory.to_owned(), ..login }))
    }

    /// Keeps it, with the certificate of the platform's authority.
    ///
    /// # Errors
    /// When its directory cannot be written.
    pub fn store(&self, ca_pem: &str) -> Result<(), Error> {
        let failed =
            |source| Error::Io { operation: format!("keep the login in {}", self.directory.display()), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(failed)?;
        // A struct of texts can always be written.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write(&self.directory.join("ca.pem"), ca_pem.as_bytes()).map_err(failed)?;
        write(&self.directory.join(FILE), &text).map_err(failed)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn forget(&self) -> Result<(), Error> {
        for name in [FILE, "ca.pem", "node-bundle.pem", "git-bundle.pem"] {
            let path = self.directory.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io { operation: format!("remove {}", path.display()), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `host:port`
    pub fn host(&self) -> &str {
        self.url.trim_start_matches("https://")
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// The address of a platform as people write it: with or without scheme and port.
///
/// # Errors
/// When it is none, or plain HTTP.
pub fn address(text: &str) -> Result<String, Error> {
    let wrong =
        || Error::Usage(format!("{text} is no address of a platform: it must be like https://paas.example.com:{PORT}"));
    let rest = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let authority: http::uri::Authority = rest.parse().map_err(|_| wrong())?;
    if text.starts_with("http://") || authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(wrong());
    }
    Ok(format!("https://{}:{}", authority.host(), authority.port_u16().unwrap_or(PORT)))
}

/// SHA-256 of a certificate as `openssl x509 -fingerprint -sha256` shows it.
pub fn fingerprint(der: &[u8]) -> String {
    let hex = HEXUPPER.encode(digest(&SHA256, der).as_ref());
    let pairs: Vec<&str> = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]).collect();
    pairs.join(":")
}

/// Whether two fingerprints are the same, however they are written.
pub fn is_same(one: &str, other: &str) -> bool {
    let digits = |text: &str| -> String {
        let text = text.rsplit('=').next().unwrap_or_default();
        let digits = text.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_uppercase()).collect::<String>();
        digits[digits.len().saturating_sub(DIGITS)..].to_owned() // `SHA256:` may stand before it
    };
    digits(one).len() == DIGITS && digits(one) == digits(other)
}

/// A certificate as PEM.
pub fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// The first certificate of a PEM text as DER.
pub fn der(pem: &str) -> Option<Vec<u8>> {
    let body = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    let text: String = body.split_whitespace().collect();
    BASE64.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (text, expected) in [
            ("paas.example.com", "https://paas.example.com:5443"),
            ("https://paas.example.com/", "https://paas.example.com:5443"),
            ("https://paas.example.com:443", "https://paas.example.com:443"),
            ("10.0.0.7:6443", "https://10.0.0.7:6443"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:5443"),
        ] {
            assert_eq!(address(text).expect("an address"), expected, "{text}");
        }
        for bad in ["", "http://paas.example.com", "https://me@paas.example.com", "a b", "https://"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_login_is_kept_where_nobody_else_reads_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let directory = scratch.path().join("config/dozen");
        assert!(Login::load(&directory).expect("none is no error").is_none());
        let login = Login {
            url: "https://paas.example.com:5443".to_owned(),
            email: "ann@example.com".to_owned(),
            token: Secret::new("sesame"),
            authorization: None,
            directory: directory.clone(),
        };
        login.store("certificate").expect("kept");
        let mode = |name: &str| fs::metadata(directory.join(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(FILE), mode("")), (0o600, 0o700));
        let loaded = Login::load(&directory).expect("read").expect("there");
        assert_eq!((loaded.host(), loaded.token.expose()), ("paas.example.com:5443", "sesame"));
        loaded.forget().expect("removed");
        assert!(Login::load(&directory).expect("none").is_none());
        fs::write(directory.join(FILE), "{").expect("written");
        assert!(Login::load(&directory).expect_err("damaged").to_string().contains("dozen login"));
    }

    #[test]
    fn fingerprints_are_compared_and_certificates_come_back() {
        let shown = fingerprint(b"certificate");
        assert_eq!(shown.len(), 32 * 3 - 1);
        let plain = shown.replace(':', "").to_lowercase();
        assert!(is_same(&shown, &plain) && is_same(&format!("sha256 Fingerprint={shown}"), &plain));
        assert!(!is_same(&shown, &fingerprint(b"another")) && !is_same("", &shown));
        let any: Vec<u8> = (0..200).collect();
        assert_eq!(der(&pem(&any)), Some(any));
    }
}
