//! Configuration: the one place that reads the environment, once, at start.
//!
//! [`VARIABLES`] names every variable with its default and its meaning; `docs/configuration.md` is generated from it
//! ([`reference`]) and a `DOZEN_` variable that it does not name is refused, so that a misspelt one cannot go
//! unnoticed. What a variable leads to (directories, sockets, keys) is made elsewhere.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use dozen_domain::{
    config::{Secret, Vars},
    limits::{self, Limits},
    network::Prefix,
    reach::Reach,
};

use crate::own_log::Format;

/// One variable of the platform's own configuration.
#[derive(Debug)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: &'static str,
    /// What holds when it is not set, in words.
    pub(crate) default: &'static str,
    /// What it decides.
    pub(crate) doc: &'static str,
}

/// Every variable, except the limits, which are [`Limits::REFERENCE`].
pub(crate) const VARIABLES: &[Variable] = &[
    Variable {
        name: "DOZEN_DATA_DIR",
        default: "`/var/lib/dozen` as root, else `~/.local/share/dozen`",
        doc: "Everything that lasts: database, keys, images, repositories, logs. Made at first start, mode 0700.",
    },
    Variable {
        name: "DATABASE_URL",
        default: "`sqlite://$DOZEN_DATA_DIR/dozen.db`",
        doc: "The platform's own database. `sqlite://` followed by an absolute path.",
    },
    Variable {
        name: "DOZEN_API_LISTEN",
        default: "`127.0.0.1:5000`",
        doc: "Plain HTTP for the Platform API and log sessions. Port 0 takes any free port.",
    },
    Variable { name: "DOZEN_TLS_LISTEN", default: "`127.0.0.1:5443`", doc: "The same over TLS, and git." },
    Variable { name: "DOZEN_ROUTER_LISTEN", default: "`127.0.0.1:8080`", doc: "Apps, plain HTTP." },
    Variable { name: "DOZEN_ROUTER_TLS_LISTEN", default: "`127.0.0.1:8443`", doc: "Apps over TLS." },
    Variable {
        name: "DOZEN_ROUTER_METRICS_LISTEN",
        default: "none: not served",
        doc: "The router's own figures for Prometheus, at `/metrics`. Give a loopback or internal address.",
    },
    Variable {
        name: "DOZEN_ROUTER_PROXY_NETWORKS",
        default: "none",
        doc: "Networks of load balancers that speak the PROXY protocol (version 1 or 2), as prefixes with commas between. \
              Their connections must begin with its header; what it says of the client is believed. From anywhere else \
              such a header is a bad request.",
    },
    Variable {
        name: "DOZEN_SSH_LISTEN",
        default: "`127.0.0.2:80`",
        doc: "SSH for `ps:exec` and its family; the official client insists on port 80. When this is not set and the \
              default cannot be had because another platform has it, the next free address up to `127.0.0.9:80` is taken; \
              when there is none (ports below 1024 need root), there is no SSH and the log says so.",
    },
    Variable {
        name: "DOZEN_APPS_DOMAIN",
        default: "`localhost`",
        doc: "Apps answer at `http://<app>.<domain>:<port>`.",
    },
    Variable {
        name: "DOZEN_API_NAMES",
        default: "none",
        doc: "Host names and addresses, with commas between, by which other machines reach the API: the platform's \
              certificate covers them besides `localhost`, the addresses it listens on and this machine's own name.",
    },
    Variable {
        name: "DOZEN_ADMIN_EMAIL",
        default: "`admin@localhost.localdomain`",
        doc: "Address of the account that is made at first start; without effect later.",
    },
    Variable {
        name: "DOZEN_API_KEY",
        default: "generated",
        doc: "Token of that account; without effect later. `dozen env` prints the one in force.",
    },
    Variable {
        name: "DOZEN_BUILD_ENV",
        default: "none",
        doc: "Names of variables of the platform's environment that builds get too, with commas between: \
              `HTTPS_PROXY,PIP_INDEX_URL`. Nothing else of that environment reaches a build.",
    },
    Variable {
        name: "DOZEN_DYNO_ALLOW_NETWORKS",
        default: "none",
        doc: "Private networks that dynos and builds may reach, as prefixes with commas between: `10.1.0.0/16`. All \
              other private, link-local and loopback destinations are dropped, the machine's name servers excepted.",
    },
    Variable {
        name: "DOZEN_FETCH_ALLOW_NETWORKS",
        default: "none",
        doc: "Private networks from which the platform itself may fetch what users give it an address of (a build's \
              `source_blob`), written the same way. All other addresses that are not the internet's are refused.",
    },
    Variable {
        name: "DOZEN_BUILDPACK_DIRS",
        default: "none",
        doc: "Directories of this machine, with commas between. A buildpack may be given as the path of a folder below \
              one of them; other paths are refused, because builds of every account could read what is there.",
    },
    Variable {
        name: "DOZEN_DRAIN_ALLOW_NETWORKS",
        default: "none",
        doc: "Private networks to which log and telemetry drains may lead, as prefixes with commas between. All other \
              addresses that are not the internet's are refused, and the platform's own listeners in any case.",
    },
    Variable {
        name: "SSL_CERT_FILE",
        default: "what the system trusts",
        doc: "PEM file of the certificates that those of log and telemetry drains are checked against.",
    },
    Variable {
        name: "DOZEN_RUST_SYSROOT",
        default: "what `rustc --print sysroot` says, if there is one",
        doc: "Rust toolchain for builds of Rust apps, bound read-only into them.",
    },
    Variable {
        name: "DOZEN_GO_ROOT",
        default: "`/usr/local/go`, if it is there",
        doc: "Go toolchain for builds of Go apps, bound read-only into them. Without one, the system's `go` is used.",
    },
    Variable {
        name: "DOZEN_ACME_DIRECTORY",
        default: "`https://acme-v02.api.letsencrypt.org/directory`",
        doc: "Certificate authority for `certs:auto`, by its ACME directory. Whoever enables `certs:auto` agrees to its \
              terms of service.",
    },
    Variable {
        name: "DOZEN_ACME_EMAIL",
        default: "none",
        doc: "Address that the certificate authority may write to; taken up when its account is made.",
    },
    Variable {
        name: "DOZEN_ACME_CA_FILE",
        default: "the system's authorities",
        doc: "PEM file of what the certificate authority's own certificate is checked against: for one of your own.",
    },
    Variable {
        name: "DOZEN_HEROKU_CLI",
        default: "`heroku` on `PATH`",
        doc: "The official CLI's executable for `dozen heroku`.",
    },
    Variable {
        name: "DOZEN_LOG",
        default: "`info`",
        doc: "How much the platform itself logs to standard output: `error`, `warn`, `info`, `debug` or `trace`.",
    },
    Variable {
        name: "DOZEN_LOG_FORMAT",
        default: "`logfmt`",
        doc: "How it is written there, one event a line: `logfmt` (`time=… level=… target=… msg=… key=value`) or `json`.",
    },
];

const LIMIT: &str = "DOZEN_LIMIT_";

/// A variable that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No variable has this name.
    #[error("{name} is set, but there is no such variable{hint} (docs/configuration.md lists them)")]
    Unknown {
        /// As it was given.
        name: String,
        /// `; did you mean …?` or nothing.
        hint: String,
    },
    /// The value makes no sense.
    #[error("{name}={value}: {problem}")]
    Invalid {
        /// Which variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// The value is not text.
    #[error("{name}: the value is not valid UTF-8")]
    NotText {
        /// Which variable.
        name: String,
    },
    /// A limit that does not exist or is no number.
    #[error(transparent)]
    Limit(#[from] limits::Invalid),
    /// Neither `DOZEN_DATA_DIR` nor `HOME` is set.
    #[error("there is no home directory to keep data in: set DOZEN_DATA_DIR")]
    NoHome,
}

/// Addresses of the listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Listen {
    /// `DOZEN_API_LISTEN`
    pub(crate) api: SocketAddr,
    /// `DOZEN_TLS_LISTEN`
    pub(crate) tls: SocketAddr,
    /// `DOZEN_ROUTER_LISTEN`
    pub(crate) router: SocketAddr,
    /// `DOZEN_ROUTER_TLS_LISTEN`
    pub(crate) router_tls: SocketAddr,
    /// `DOZEN_SSH_LISTEN`; none when the default could not be had.
    #[serde(default)]
    pub(crate) ssh: Option<SocketAddr>,
    /// `DOZEN_ROUTER_METRICS_LISTEN`
    #[serde(default)]
    pub(crate) router_metrics: Option<SocketAddr>,
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `DOZEN_DATA_DIR`, absolute.
    pub(crate) data_dir: PathBuf,
    /// Whether it was given: then commands are for the platform there, not for the one that was logged in to.
    pub(crate) data_dir_given: bool,
    /// Where this user's login to a platform elsewhere is kept.
    pub(crate) login_dir: Option<PathBuf>,
    /// `DATABASE_URL`
    pub(crate) database_url: String,
    /// Addresses as configured; port 0 is filled in by the parent.
    pub(crate) listen: Listen,
    /// Whether `DOZEN_SSH_LISTEN` was given, so that it must be had.
    pub(crate) ssh_given: bool,
    /// `DOZEN_APPS_DOMAIN`
    pub(crate) apps_domain: String,
    /// `DOZEN_API_NAMES`
    pub(crate) api_names: Vec<String>,
    /// `DOZEN_ADMIN_EMAIL`
    pub(crate) admin_email: Option<String>,
    /// `DOZEN_API_KEY`
    pub(crate) api_key: Option<Secret>,
    /// The variables that `DOZEN_BUILD_ENV` names, as far as they are set.
    pub(crate) build_env: Vars,
    /// `DOZEN_DYNO_ALLOW_NETWORKS`
    pub(crate) dyno_allow_networks: Vec<Prefix>,
    /// `DOZEN_FETCH_ALLOW_NETWORKS`
    pub(crate) fetch_allow_networks: Vec<Prefix>,
    /// `DOZEN_BUILDPACK_DIRS`, absolute.
    pub(crate) buildpack_dirs: Vec<PathBuf>,
    /// `DOZEN_DRAIN_ALLOW_NETWORKS`
    pub(crate) drain_allow_networks: Vec<Prefix>,
    /// `SSL_CERT_FILE`
    pub(crate) ssl_cert_file: Option<PathBuf>,
    /// `DOZEN_ROUTER_PROXY_NETWORKS`
    pub(crate) router_proxy_networks: Vec<Prefix>,
    /// `DOZEN_RUST_SYSROOT`
    pub(crate) rust_sysroot: Option<PathBuf>,
    /// `DOZEN_GO_ROOT`
    pub(crate) go_root: Option<PathBuf>,
    /// `DOZEN_HEROKU_CLI`
    pub(crate) heroku_cli: Option<PathBuf>,
    /// `DOZEN_ACME_*`
    pub(crate) acme: dozen_control::acme::Settings,
    /// `DOZEN_LOG`
    pub(crate) log: tracing::Level,
    /// `DOZEN_LOG_FORMAT`
    pub(crate) log_format: Format,
    /// `DOZEN_LIMIT_*`
    pub(crate) limits: Limits,
    /// `PATH`, to find the tools that the platform starts.
    pub(crate) path: String,
    /// The user's own `NODE_EXTRA_CA_CERTS`, for `dozen env` to join with the platform's CA.
    pub(crate) node_extra_ca_certs: Option<PathBuf>,
    /// The user's own `GIT_SSL_CAINFO`, likewise.
    pub(crate) git_ssl_cainfo: Option<PathBuf>,
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// When a variable cannot be used.
    pub(crate) fn from_env() -> Result<Self, Error> {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            match value.into_string() {
                Ok(value) => _ = variables.insert(name.to_owned(), value),
                Err(_) if name.starts_with("DOZEN_") => return Err(Error::NotText { name: name.to_owned() }),
                Err(_) => {}
            }
        }
        Self::read(&variables, rustix::process::geteuid().is_root())
    }

    /// Reads a set of variables.
    fn read(variables: &BTreeMap<String, String>, root: bool) -> Result<Self, Error> {
        let mut limits = Limits::default();
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("DOZEN_")) {
            if let Some(limit) = name.strip_prefix(LIMIT) {
                limits.set(limit, value.trim())?;
            } else if !VARIABLES.iter().any(|variable| variable.name == name) {
                return Err(Error::Unknown { name: name.clone(), hint: hint(name) });
            }
        }
        let text = |name: &'static str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let path = |name: &'static str| text(name).map(PathBuf::from);

        let data_dir = match (path("DOZEN_DATA_DIR"), path("HOME")) {
            (Some(given), _) => std::path::absolute(&given).map_err(|_| Error::Invalid {
                name: "DOZEN_DATA_DIR",
                value: given.display().to_string(),
                problem: "not a path",
            })?,
            (None, _) if root => PathBuf::from("/var/lib/dozen"),
            (None, Some(home)) => home.join(".local/share/dozen"),
            (None, None) => return Err(Error::NoHome),
        };
        let database_url = match text("DATABASE_URL") {
            Some(url) if url.starts_with("sqlite:") => url.to_owned(),
            Some(url) => {
                let scheme = url.split(':').next().unwrap_or_default();
                let problem = "the platform's database is SQLite: give sqlite:///path/to/file or leave it unset";
                return Err(Error::Invalid { name: "DATABASE_URL", value: format!("{scheme}:…"), problem });
            }
            None => format!("sqlite://{}", data_dir.join("dozen.db").display()),
        };
        let address = |name: &'static str, default: &str| {
            let value = text(name).unwrap_or(default);
            value.parse::<SocketAddr>().map_err(|_| Error::Invalid {
                name,
                value: value.to_owned(),
                problem: "not an address with a port, such as 127.0.0.1:5000 or [::1]:5000",
            })
        };
        let listen = Listen {
            api: address("DOZEN_API_LISTEN", "127.0.0.1:5000")?,
            tls: address("DOZEN_TLS_LISTEN", "127.0.0.1:5443")?,
            router: address("DOZEN_ROUTER_LISTEN", "127.0.0.1:8080")?,
            router_tls: address("DOZEN_ROUTER_TLS_LISTEN", "127.0.0.1:8443")?,
            ssh: Some(address("DOZEN_SSH_LISTEN", "127.0.0.2:80")?),
            router_metrics: match text("DOZEN_ROUTER_METRICS_LISTEN") {
                Some(given) => Some(address("DOZEN_ROUTER_METRICS_LISTEN", given)?),
                None => None,
            },
        };
        let list = |name: &'static str| {
            let items = text(name).unwrap_or_default().split(',').map(str::trim);
            items.filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let build_env = list("DOZEN_BUILD_ENV")
            .into_iter()
            .filter_map(|name| variables.get(&name).map(|value| (name, Secret::new(value.clone()))))
            .collect();
        let apps_domain = text("DOZEN_APPS_DOMAIN").unwrap_or("localhost").to_ascii_lowercase();
        if !apps_domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            let problem = "not a domain name (without scheme and port)";
            return Err(Error::Invalid { name: "DOZEN_APPS_DOMAIN", value: apps_domain, problem });
        }
        let api_names = list("DOZEN_API_NAMES");
        let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        if let Some(value) = api_names.iter().find(|name| !plain(name)).cloned() {
            let problem = "not host names or addresses with commas between (without scheme and port)";
            return Err(Error::Invalid { name: "DOZEN_API_NAMES", value, problem });
        }
        let mut acme = dozen_control::acme::Settings {
            contact: text("DOZEN_ACME_EMAIL").map(str::to_owned),
            roots: path("DOZEN_ACME_CA_FILE"),
            ..Default::default()
        };
        if let Some(directory) = text("DOZEN_ACME_DIRECTORY") {
            if !directory.starts_with("https://") {
                let problem = "not an address that begins with https://";
                return Err(Error::Invalid { name: "DOZEN_ACME_DIRECTORY", value: directory.to_owned(), problem });
            }
            directory.clone_into(&mut acme.directory);
        }
        let log = text("DOZEN_LOG").unwrap_or("info");
        let log = log.parse().map_err(|_| Error::Invalid {
            name: "DOZEN_LOG",
            value: log.to_owned(),
            problem: "must be error, warn, info, debug or trace",
        })?;
        let format = text("DOZEN_LOG_FORMAT").unwrap_or("logfmt");
        let log_format = Format::parse(format).ok_or_else(|| Error::Invalid {
            name: "DOZEN_LOG_FORMAT",
            value: format.to_owned(),
            problem: "must be logfmt or json",
        })?;
        let config_home = path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(".config")));
        Ok(Self {
            data_dir,
            data_dir_given: text("DOZEN_DATA_DIR").is_some(),
            login_dir: config_home.map(|home| home.join("dozen")),
            database_url,
            listen,
            ssh_given: text("DOZEN_SSH_LISTEN").is_some(),
            apps_domain,
            api_names,
            admin_email: text("DOZEN_ADMIN_EMAIL").map(str::to_owned),
            api_key: text("DOZEN_API_KEY").map(Secret::new),
            build_env,
            dyno_allow_networks: networks("DOZEN_DYNO_ALLOW_NETWORKS", list("DOZEN_DYNO_ALLOW_NETWORKS"))?,
            fetch_allow_networks: networks("DOZEN_FETCH_ALLOW_NETWORKS", list("DOZEN_FETCH_ALLOW_NETWORKS"))?,
            buildpack_dirs: directories("DOZEN_BUILDPACK_DIRS", list("DOZEN_BUILDPACK_DIRS"))?,
            drain_allow_networks: networks("DOZEN_DRAIN_ALLOW_NETWORKS", list("DOZEN_DRAIN_ALLOW_NETWORKS"))?,
            ssl_cert_file: path("SSL_CERT_FILE"),
            router_proxy_networks: networks("DOZEN_ROUTER_PROXY_NETWORKS", list("DOZEN_ROUTER_PROXY_NETWORKS"))?,
            rust_sysroot: path("DOZEN_RUST_SYSROOT"),
            go_root: path("DOZEN_GO_ROOT"),
            heroku_cli: path("DOZEN_HEROKU_CLI"),
            acme,
            log,
            log_format,
            limits,
            path: text("PATH").unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").to_owned(),
            node_extra_ca_certs: path("NODE_EXTRA_CA_CERTS"),
            git_ssl_cainfo: path("GIT_SSL_CAINFO"),
        })
    }

    /// Where the platform connects to on somebody's behalf, given the addresses that its listeners have got.
    pub(crate) fn reach(&self, listen: &Listen) -> Reach {
        let listeners = vec![listen.api, listen.tls]; // apps may be written to: they are behind the router
        Reach { allowed: self.drain_allow_networks.clone(), listeners }
    }

    /// A tool on `PATH`.
    pub(crate) fn tool(&self, name: &str) -> Option<PathBuf> {
        let candidates = std::env::split_paths(&self.path).map(|directory| directory.join(name));
        candidates.into_iter().find(|file| is_executable(file))
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn directories(name: &'static str, directories: Vec<String>) -> Result<Vec<PathBuf>, Error> {
    let absolute = directories.into_iter().map(|directory| match PathBuf::from(&directory) {
        path if path.is_absolute() => Ok(path),
        _ => Err(Error::Invalid { name, value: directory, problem: "not an absolute path, such as /srv/buildpacks" }),
    });
    absolute.collect()
}

fn networks(name: &'static str, networks: Vec<String>) -> Result<Vec<Prefix>, Error> {
    let parsed = networks.into_iter().map(|network| {
        let problem = "not a network such as 10.1.0.0/16";
        network.parse().map_err(|_| Error::Invalid { name, value: network, problem })
    });
    parsed.collect()
}

/// The nearest known name, if one is near.
fn hint(name: &str) -> String {
    let nearest = VARIABLES.iter().map(|variable| (distance(name, variable.name), variable.name)).min();
    match nearest {
        Some((changes, nearest)) if changes <= 4 => format!("; did you mean {nearest}?"),
        _ => String::new(),
    }
}

/// Levenshtein's distance: insertions, removals and replacements that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[to.len()]
}

/// `docs/configuration.md`.
pub(crate) fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\nGenerated by `dozen reference`: edit `src/config.rs` and `crates/domain/src/limits.rs` instead.\n\n\
         The platform reads its environment once, when it starts. A `DOZEN_` variable that is not listed here is refused.\n\n\
         ## Variables\n\n| variable | default | what it decides |\n|---|---|---|\n",
    );
    // Writing to a String cannot fail.
    for Variable { name, default, doc } in VARIABLES {
        _ = writeln!(page, "| `{name}` | {default} | {doc} |");
    }
    page.push_str(
        "\n## Limits\n\nThe unit is in the name; a name without one is a count.\n\n\
         | variable | default | what it bounds |\n|---|---|---|\n",
    );
    for (name, default, doc) in Limits::REFERENCE {
        _ = writeln!(page, "| `{LIMIT}{}` | {default} | {} |", name.to_ascii_uppercase(), doc.trim());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Error> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::read(&variables, false)
    }

    #[test]
    fn without_variables_the_defaults_hold() {
        let config = read(&[("HOME", "/home/ann")]).expect("defaults");
        assert_eq!(config.data_dir, Path::new("/home/ann/.local/share/dozen"));
        assert_eq!(config.database_url, "sqlite:///home/ann/.local/share/dozen/dozen.db");
        assert_eq!(config.listen.tls.to_string(), "127.0.0.1:5443");
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn a_misspelt_variable_is_refused_with_a_hint() {
        let error = read(&[("HOME", "/home/ann"), ("DOZEN_DATADIR", "/x")]).expect_err("refused").to_string();
        assert!(error.contains("did you mean DOZEN_DATA_DIR?"), "{error}");
        let error = read(&[("HOME", "/home/ann"), ("DOZEN_LIMIT_BOOT", "3")]).expect_err("refused").to_string();
        assert!(error.contains("DOZEN_LIMIT_BOOT: there is no such limit"), "{error}");
    }

    #[test]
    fn only_the_listed_variables_reach_builds() {
        let given = [("HOME", "/h"), ("DOZEN_BUILD_ENV", "PIP_INDEX_URL, MISSING"), ("PIP_INDEX_URL", "x"), ("A", "b")];
        let build_env = read(&given).expect("valid").build_env;
        assert_eq!(build_env.keys().collect::<Vec<_>>(), ["PIP_INDEX_URL"]);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (name, value) in [
            ("DOZEN_API_LISTEN", "5000"),
            ("DATABASE_URL", "postgres://u:secret@h/db"),
            ("DOZEN_APPS_DOMAIN", "http://x"),
            ("DOZEN_DYNO_ALLOW_NETWORKS", "10.0.0.0/33"),
            ("DOZEN_FETCH_ALLOW_NETWORKS", "localhost"),
            ("DOZEN_BUILDPACK_DIRS", "buildpacks"),
            ("DOZEN_LOG", "loud"),
            ("DOZEN_LOG_FORMAT", "xml"),
        ] {
            let error = read(&[("HOME", "/home/ann"), (name, value)]).expect_err(name).to_string();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_reference_page_is_up_to_date() {
        let page = include_str!("../docs/configuration.md");
        assert!(page == reference(), "run: cargo run -q -- reference > docs/configuration.md");
    }
}
