//! The platform's certificates: a private authority, a certificate for the API's names, one for the apps' names.
//!
//! [`ensure`] makes what is missing, renews what nears its end or lacks a name, and leaves everything else alone, so it
//! runs at every start and once a day. It blocks for a few milliseconds. [`Certificate`] is the loaded form that a TLS
//! listener uses and that can be reloaded under it. Certificates of custom domains are not made here.

mod authority;
pub mod inspect;
mod load;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use dozen_api::clock::Micros;
use dozen_domain::network::ssh_addresses;

pub use self::load::{Certificate, client_roots};

/// Which names the certificates are for.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Host names and addresses of the API beyond `localhost`, the loopback addresses and the machine's own name
    /// (`DOZEN_API_NAMES`).
    pub api: Vec<String>,
    /// Domain below which apps answer; its certificate covers it and everything one label below.
    pub apps_domain: String,
    /// A certificate of the operator's own for the API: chain and key, PEM. Then none is made.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Certificate of the private authority: what clients have to trust.
    pub ca: PathBuf,
    /// Chain of the API.
    pub api_certificate: PathBuf,
    /// Key of the API, mode 0600.
    pub api_key: PathBuf,
    /// Chain of the apps' domain.
    pub apps_certificate: PathBuf,
    /// Key of the apps' domain, mode 0600.
    pub apps_key: PathBuf,
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{operation} {}", path.display())]
    File {
        /// `read`, `write`.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Making a certificate failed.
    #[error("make the certificate {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate and its key cannot be used together.
    #[error("{} and its key cannot be used: give a PEM chain and the PEM key that belongs to it", path.display())]
    Unusable {
        /// The chain.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authority's files are damaged or do not belong together.
    #[error(
        "{} and ca.key beside it are damaged or do not belong together: put both back from a backup, or remove both to \
         start with a new authority (then run eval \"$(dozen env)\" again where clients trust the old one)",
        path.display()
    )]
    Authority {
        /// The authority's certificate.
        path: PathBuf,
    },
}

const DAY: u64 = 86_400; // seconds

/// Life of the authority: longer than the machine's.
const AUTHORITY_DAYS: u64 = 20 * 365;
/// Life of a leaf: the longest that today's clients accept without question (CA/Browser Forum baseline, 398 days).
const LEAF_DAYS: u64 = 397;
/// A leaf with less than this left is renewed.
const RENEW_DAYS: u64 = 60;

/// Makes or renews the certificates of a data directory as needed.
///
/// # Errors
/// When a file cannot be read or written, or an existing authority or an operator's certificate is unusable.
pub fn ensure(data_dir: &Path, names: &Names) -> Result<Paths, Error> {
    ensure_at(data_dir, names, dozen_api::clock::now())
}

/// As [`ensure`], at a given time.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_at(data_dir: &Path, names: &Names, now: Micros) -> Result<Paths, Error> {
    let directory = data_dir.join("tls");
    fs::create_dir_all(&directory).map_err(|source| file("create", &directory, source))?;
    let now = u64::try_from(now / 1_000_000).unwrap_or_default();
    let authority = authority::Authority::ensure(&directory, now)?;

    let apps_certificate = directory.join("apps.pem");
    let apps_key = directory.join("apps.key");
    let apps = vec![names.apps_domain.clone(), format!("*.{}", names.apps_domain)];
    authority.ensure_leaf(&apps_certificate, &apps_key, &apps, now)?;

    let (api_certificate, api_key) = match &names.own {
        Some((certificate, key)) => {
            load::read(certificate, key)?;
            (certificate.clone(), key.clone())
        }
        None => {
            let (certificate, key) = (directory.join("api.pem"), directory.join("api.key"));
            authority.ensure_leaf(&certificate, &key, &api_names(names), now)?;
            (certificate, key)
        }
    };
    Ok(Paths { ca: directory.join("ca.pem"), api_certificate, api_key, apps_certificate, apps_key })
}

fn api_names(names: &Names) -> Vec<String> {
    let mut all = vec!["localhost".to_owned()];
    all.push(Ipv4Addr::LOCALHOST.to_string());
    all.push(Ipv6Addr::LOCALHOST.to_string());
    // The exec manager is asked at the address at which a forwarder lets SSH in.
    all.extend(ssh_addresses().map(|address| address.to_string()));
    let machine = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    all.push(machine);
    all.extend(names.api.iter().map(|name| name.to_ascii_lowercase()));
    all.retain(|name| is_name(name));
    let mut seen = std::collections::HashSet::new();
    all.retain(|name| seen.insert(name.clone()));
    all
}

/// Says whether a certificate can carry this: an address, a host name, or a wildcard one.
fn is_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || rustls_pki_types::DnsName::try_from(host_of(name)).is_ok()
}

/// Says whether clients refuse this name whatever certificate it comes in: a wildcard right below a top-level domain.
fn is_hopeless(name: &str) -> bool {
    name.strip_prefix("*.").is_some_and(|rest| !rest.contains('.'))
}

/// A host name that a wildcard matches; any other name is itself.
fn host_of(name: &str) -> String {
    name.strip_prefix('*').map_or_else(|| name.to_owned(), |rest| format!("any{rest}"))
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Micros = 1_700_000_000_000_000;
    const MICROS_A_DAY: Micros = 86_400_000_000;

    fn names() -> Names {
        Names { apps_domain: "localhost".to_owned(), ..Names::default() }
    }

    fn contents(paths: &Paths) -> Vec<Vec<u8>> {
        [&paths.ca, &paths.api_certificate, &paths.api_key, &paths.apps_certificate, &paths.apps_key]
            .map(|path| fs::read(path).expect("a file"))
            .to_vec()
    }

    #[test]
    fn a_second_start_changes_nothing_and_keys_are_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = ensure_at(directory.path(), &names(), NOW).expect("certificates");
        let before = contents(&first);
        let second = ensure_at(directory.path(), &names(), NOW + MICROS_A_DAY).expect("certificates");
        assert_eq!(first, second);
        assert_eq!(before, contents(&second));
        for key in [directory.path().join("tls/ca.key"), first.api_key, first.apps_key] {
            let mode = fs::metadata(&key).expect("a key").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", key.display());
        }
    }

    #[test]
    fn a_damaged_authority_is_told_with_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        ensure_at(directory.path(), &names(), NOW).expect("certificates");
        for name in ["tls/ca.pem", "tls/ca.key"] {
            let path = directory.path().join(name);
            let whole = fs::read_to_string(&path).expect("a file");
            for damaged in ["", "nonsense", &whole[..whole.len() / 2]] {
                fs::write(&path, damaged).expect("a file");
                let error = ensure_at(directory.path(), &names(), NOW).expect_err("damaged").to_string();
                assert!(error.contains("ca.pem and ca.key") && error.contains("remove both"), "{name}: {error}");
            }
            fs::write(&path, whole).expect("a file");
        }
        ensure_at(directory.path(), &names(), NOW).expect("the copies are good");
    }

    #[test]
    fn a_leaf_is_renewed_before_its_end_and_the_authority_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ensure_at(directory.path(), &names(), NOW).expect("certificates");
        let before = contents(&paths);
        let later = NOW + 350 * MICROS_A_DAY;
        ensure_at(directory.path(), &names(), later).expect("certificates");
        let after = contents(&paths);
        assert_eq!(before[0], after[0]);
        assert!((1..5).all(|n| before[n] != after[n]));
    }

    #[test]
    fn a_new_name_makes_a_new_certificate() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ensure_at(directory.path(), &names(), NOW).expect("certificates");
        let before = contents(&paths);
        let more = Names { api: vec!["paas.example.com".to_owned(), "192.0.2.7".to_owned()], ..names() };
        ensure_at(directory.path(), &more, NOW).expect("certificates");
        let after = contents(&paths);
        assert_ne!(before[1], after[1]);
        assert_eq!(before[3], after[3]);
    }

    #[test]
    fn a_certificate_without_its_key_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ensure_at(directory.path(), &names(), NOW).expect("certificates");
        fs::copy(&paths.apps_key, &paths.api_key).expect("a copy");
        ensure_at(directory.path(), &names(), NOW).expect("certificates");
        load::read(&paths.api_certificate, &paths.api_key).expect("a pair");
    }

    #[test]
    fn an_authority_with_a_foreign_key_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ensure_at(directory.path(), &names(), NOW).expect("certificates");
        fs::copy(&paths.apps_key, directory.path().join("tls/ca.key")).expect("a copy");
        let error = ensure_at(directory.path(), &names(), NOW).expect_err("a mismatch");
        assert!(matches!(error, Error::Authority { .. }), "{error}");
    }

    #[test]
    fn an_operators_own_certificate_is_checked_and_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ensure_at(directory.path(), &names(), NOW).expect("certificates");
        let own = Some((paths.apps_certificate.clone(), paths.apps_key.clone()));
        let used = ensure_at(directory.path(), &Names { own, ..names() }, NOW).expect("certificates");
        assert_eq!(used.api_certificate, paths.apps_certificate);
        let own = Some((paths.apps_certificate.clone(), paths.api_key));
        let error = ensure_at(directory.path(), &Names { own, ..names() }, NOW).expect_err("a mismatch");
        assert!(matches!(error, Error::Unusable { .. }), "{error}");
    }
}
