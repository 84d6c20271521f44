//! What the official CLI and git must find in their environment to speak to this platform.
//!
//! `HEROKU_HOST` may be plain HTTP on this machine; git, rendezvous and the exec family insist on TLS, so both need the
//! platform's CA. `NODE_EXTRA_CA_CERTS` and `GIT_SSL_CAINFO` hold one file each and may be set already (an inspecting
//! proxy's CA), so the platform's CA is joined to what is there, in files beside it.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use dozen_domain::config::Secret;
use serde::Deserialize;

use crate::{
    Error,
    connect::{self, Way},
    login::{self, Login},
};

/// Certificate bundles of the usual systems, for git, which replaces its own by the one it is given.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where a platform is and how to get in.
#[derive(Debug, Clone)]
pub struct Place {
    /// On this machine, or elsewhere.
    pub site: Site,
    /// A token other than the site's own.
    pub api_key: Option<Secret>,
    /// The user's own `NODE_EXTRA_CA_CERTS`.
    pub node_extra_ca_certs: Option<PathBuf>,
    /// The user's own `GIT_SSL_CAINFO`.
    pub git_ssl_cainfo: Option<PathBuf>,
    /// The platform's own executable, for git to call back.
    pub executable: PathBuf,
}

/// Which platform.
#[derive(Debug, Clone)]
pub enum Site {
    /// That of a data directory of this machine.
    Here {
        /// `$DOZEN_DATA_DIR`.
        data_dir: PathBuf,
        /// Plain HTTP.
        api: SocketAddr,
        /// TLS: API and git.
        tls: SocketAddr,
    },
    /// The one that was logged in to.
    Elsewhere(Login),
}

/// The first account, as the platform leaves it in `admin.json`.
#[derive(Debug, Deserialize)]
struct Admin {
    api_key: Secret,
}

/// The name by which a client reaches a listening address: the CLI sends its token to `localhost` and `127.0.0.1` only.
pub fn host(address: IpAddr) -> String {
    match address {
        _ if address == IpAddr::from([127, 0, 0, 1])
            || address == std::net::Ipv6Addr::LOCALHOST
            || address.is_unspecified() =>
        {
            "localhost".to_owned()
        }
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Where to connect to reach a listening address: a wildcard is reached on the loopback.
pub fn connectable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) if address.ip().is_unspecified() => ([127, 0, 0, 1], address.port()).into(),
        SocketAddr::V6(_) if address.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

impl Place {
    /// Where our own commands find the API.
    pub fn api_url(&self) -> String {
        match &self.site {
            Site::Here { api, .. } => format!("http://{}:{}", host(api.ip()), api.port()),
            Site::Elsewhere(login) => login.url.clone(),
        }
    }

    /// `localhost:5443`
    pub fn git_host(&self) -> String {
        match &self.site {
            Site::Here { tls, .. } => format!("{}:{}", host(tls.ip()), tls.port()),
            Site::Elsewhere(login) => login.host().to_owned(),
        }
    }

    /// The certificate of the platform's authority.
    pub fn ca(&self) -> PathBuf {
        self.certificates().join("ca.pem")
    }

    /// Where it is, and bundles with it may be.
    fn certificates(&self) -> PathBuf {
        match &self.site {
            Site::Here { data_dir, .. } => data_dir.join("tls"),
            Site::Elsewhere(login) => login.directory.clone(),
        }
    }

    /// Fingerprint of that certificate.
    ///
    /// # Errors
    /// When the platform has never been started.
    pub fn fingerprint(&self) -> Result<String, Error> {
        let path = self.ca();
        let der = fs::read_to_string(&path).ok().and_then(|pem| login::der(&pem));
        Ok(login::fingerprint(&der.ok_or_else(|| Error::NotStarted { path: path.display().to_string() })?))
    }

    /// `NAME=value` that has a later command of this executable find the same platform; the variable and its value.
    pub fn reference(&self) -> (&'static str, String) {
        let value = match &self.site {
            Site::Here { data_dir, .. } => data_dir.display().to_string(),
            Site::Elsewhere(_) => String::new(),
        };
        ("DOZEN_DATA_DIR", value)
    }

    /// Whether git, in this environment, can trust the platform: a bundle in `GIT_SSL_CAINFO` wins over the repository's.
    pub fn git_trusts(&self) -> bool {
        let Some(bundle) = &self.git_ssl_cainfo else { return true };
        let own = fs::read(self.ca()).unwrap_or_default();
        fs::read(bundle).is_ok_and(|bundle| contains(&bundle, own.trim_ascii()))
    }

    /// The token to use.
    ///
    /// # Errors
    /// When the platform has never been started on the data directory.
    pub fn token(&self) -> Result<Secret, Error> {
        match (&self.api_key, &self.site) {
            (Some(key), _) => Ok(key.clone()),
            (None, Site::Elsewhere(login)) => Ok(login.token.clone()),
            (None, Site::Here { data_dir, .. }) => {
                let path = data_dir.join("admin.json");
                let not_started = || Error::NotStarted { path: path.display().to_string() };
                let text = fs::read(&path).map_err(|_| not_started())?;
                let admin: Admin = serde_json::from_slice(&text).map_err(|_| not_started())?;
                Ok(admin.api_key)
            }
        }
    }

    /// The variables, in the order in which they are printed. Writes the joined certificate bundles; for a platform
    /// elsewhere, starts the forwarder ([`connect`]) unless it runs.
    ///
    /// # Errors
    /// When the platform has never been started, the bundles cannot be written, or there can be no forwarder.
    pub fn variables(&self) -> Result<Vec<(&'static str, String)>, Error> {
        let token = self.token()?;
        let git = self.git_host();
        let (api, exec, api_host) = match &self.site {
            Site::Here { api, .. } => (self.api_url(), format!("https://{git}"), host(api.ip())),
            Site::Elsewhere(login) => {
                // The official CLI gives its token to nobody but this machine.
                let Way { port, ssh } = connect::ensure(login, &self.executable)?;
                // The exec manager sends SSH to where it was asked.
                let exec = ssh.map_or_else(|| "localhost".to_owned(), |address| address.to_string());
                (format!("http://localhost:{port}"), format!("https://{exec}:{port}"), "localhost".to_owned())
            }
        };
        let node = self.bundle("node-bundle.pem", self.node_extra_ca_certs.as_deref())?;
        let system = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
        let trusted = self.bundle("git-bundle.pem", self.git_ssl_cainfo.as_deref().or(system))?;
        Ok(vec![
            ("HEROKU_HOST", api.clone()),
            ("HEROKU_API_KEY", token.expose().to_owned()),
            ("HEROKU_GIT_HOST", git),
            ("HEROKU_PARTICLEBOARD_URL", api.clone()),
            ("HEROKU_DATA_HOST", api_host),
            ("HEROKU_EXEC_URL", exec),
            ("HEROKU_LOGIN_HOST", api.clone()),
            ("HEROKU_BUILDPACK_REGISTRY_URL", api.clone()),
            ("HEROKU_STATUS_HOST", api),
            ("NODE_EXTRA_CA_CERTS", node),
            ("GIT_SSL_CAINFO", trusted),
            ("HEROKU_NETRC_WRITE", "true".to_owned()),
            ("DISABLE_TELEMETRY", "true".to_owned()),
            ("HEROKU_SKIP_ANALYTICS", "1".to_owned()),
            ("HEROKU_DISABLE_AUTOUPDATE", "1".to_owned()),
            ("HEROKU_SKIP_NEW_VERSION_CHECK", "1".to_owned()),
        ])
    }

    /// What is to be known about a platform elsewhere before its dynos are entered with the official CLI.
    ///
    /// # Errors
    /// When there can be no forwarder.
    pub fn caveat(&self) -> Result<Option<String>, Error> {
        let Site::Elsewhere(login) = &self.site else { return Ok(None) };
        let way = connect::ensure(login, &self.executable)?;
        Ok(way.ssh.is_none().then(|| connect::NO_SSH.to_owned()))
    }

    /// A file beside the authority's with these certificates and the platform's own; its path.
    fn bundle(&self, name: &str, with: Option<&Path>) -> Result<String, Error> {
        let path = self.certificates().join(name);
        let failed = |path: &Path| {
            let operation = format!("write the certificate bundle {}", path.display());
            move |source| Error::Io { operation, source }
        };
        // In a shell that has evaluated `dozen env` already, the joined bundle itself is what is set.
        let source = with.filter(|with| *with != path);
        let kept =
            if with == Some(&*path) { fs::read(&path).ok() } else { source.and_then(|with| fs::read(with).ok()) };
        let own = fs::read(self.ca()).map_err(|_| Error::NotStarted { path: self.ca().display().to_string() })?;
        let mut joined = kept.unwrap_or_default();
        if !contains(&joined, own.trim_ascii()) {
            if !joined.is_empty() && !joined.ends_with(b"\n") {
                joined.push(b'\n');
            }
            joined.extend_from_slice(&own);
        }
        if fs::read(&path).ok().as_deref() != Some(&joined) {
            let fresh = path.with_extension(format!("new-{}", std::process::id()));
            fs::write(&fresh, &joined).and_then(|()| fs::rename(&fresh, &path)).map_err(failed(&path))?;
        }
        Ok(path.display().to_string())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// A value as a POSIX shell reads it back.
pub fn quoted(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:,+@%=".contains(&b);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(data_dir: &Path) -> Place {
        fs::create_dir(data_dir.join("tls")).expect("made");
        fs::write(data_dir.join("tls/ca.pem"), "own\n").expect("written");
        fs::write(data_dir.join("admin.json"), r#"{"email":"a@b","api_key":"k"}"#).expect("written");
        Place {
            site: Site::Here {
                data_dir: data_dir.to_owned(),
                api: "127.0.0.1:5000".parse().expect("an address"),
                tls: "127.0.0.1:5443".parse().expect("an address"),
            },
            api_key: None,
            node_extra_ca_certs: None,
            git_ssl_cainfo: None,
            executable: PathBuf::from("dozen"),
        }
    }

    fn value(place: &Place, name: &str) -> String {
        let variables = place.variables().expect("variables");
        variables.into_iter().find(|(key, _)| *key == name).expect("set").1
    }

    #[test]
    fn a_bundle_that_is_set_is_joined_and_not_replaced() {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut place = place(scratch.path());
        let set = scratch.path().join("company.pem");
        fs::write(&set, "company").expect("written");
        place.node_extra_ca_certs = Some(set);
        let joined = value(&place, "NODE_EXTRA_CA_CERTS");
        assert_eq!(fs::read_to_string(&joined).expect("there"), "company\nown\n");
        place.node_extra_ca_certs = Some(PathBuf::from(&joined));
        assert_eq!(value(&place, "NODE_EXTRA_CA_CERTS"), joined, "evaluating it again changes nothing");
        assert_eq!(fs::read_to_string(&joined).expect("there"), "company\nown\n");
    }

    #[test]
    fn git_trusts_the_system_too() {
        let scratch = tempfile::tempdir().expect("a directory");
        let place = place(scratch.path());
        assert!(fs::read_to_string(value(&place, "GIT_SSL_CAINFO")).expect("there").ends_with("own\n"));
        assert_eq!(value(&place, "HEROKU_GIT_HOST"), "localhost:5443");
        assert_eq!(value(&place, "HEROKU_API_KEY"), "k");
    }

    #[test]
    fn before_the_first_start_there_is_nothing_to_point_at() {
        let scratch = tempfile::tempdir().expect("a directory");
        let place = place(scratch.path());
        fs::remove_file(scratch.path().join("admin.json")).expect("removed");
        assert!(place.variables().expect_err("refused").to_string().contains("dozen server"));
    }

    #[test]
    fn values_are_quoted_for_a_shell() {
        assert_eq!(quoted("http://localhost:5000"), "http://localhost:5000");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
