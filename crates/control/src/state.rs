//! What every part of the control role shares: the store, the seams to engine and builds, keys, clock, limits.
//!
//! [`Context`] is cheap to clone and handed to every operation. It holds nothing that would be lost with the process.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    ops::Deref,
    path::PathBuf,
    sync::Arc,
};

use dozen_api::{
    build::Builds,
    clock::{Clock, Micros},
    engine::Engine,
    logs::{Line, Sender, Source, in_one_line},
};
use dozen_domain::{
    config::{Secret, Vars},
    ids::AppId,
    limits::Limits,
    network::Prefix,
    reach::Reach,
};

use crate::{
    Error, Options, acme,
    auth::{failures::Failures, keys::Keys, rate::Rates},
    cron, git, ops,
    reconcile::{Nudge, certificates::Challenges},
    sessions::Sessions,
    store::Store,
    tls,
    traffic::Board,
};

/// [`Options`] without the listeners.
#[derive(Debug)]
pub struct Settings {
    /// `$DOZEN_DATA_DIR`.
    pub data_dir: PathBuf,
    /// `None` is `dozen.db` in the data directory.
    pub database_url: Option<String>,
    /// Apps answer below this name.
    pub apps_domain: String,
    /// Port of the router's plain listener.
    pub router_port: u16,
    /// `host[:port]` of git remotes.
    pub git_host: String,
    /// Base of plain URLs, without a slash at the end.
    pub api_url: String,
    /// Base of TLS URLs, without a slash at the end.
    pub tls_url: String,
    /// Where SSH clients of the exec family come in, if anywhere.
    pub ssh: Option<SocketAddr>,
    /// E-mail of the first account.
    pub admin_email: Option<String>,
    /// Token of the first account.
    pub admin_api_key: Option<Secret>,
    /// This machine's name.
    pub hostname: String,
    /// The operator's variables that builds get.
    pub build_env: Vars,
    /// Private networks from which sources may be fetched.
    pub fetch_allow_networks: Vec<Prefix>,
    /// Where folders may be that are buildpacks.
    pub buildpack_dirs: Vec<PathBuf>,
    /// Where the platform connects to on somebody's behalf.
    pub reach: Reach,
    /// All limits.
    pub limits: Limits,
    /// What the certificates are for.
    pub certificates: tls::Names,
    /// The certificate authority for apps' domains.
    pub acme: acme::Settings,
    /// Command of git's pre-receive hook.
    pub hook: Vec<String>,
}

/// The bound sockets of the API.
#[derive(Debug)]
pub struct Listeners {
    /// Plain HTTP.
    pub api: TcpListener,
    /// TLS.
    pub tls: TcpListener,
    /// SSH.
    pub ssh: Option<TcpListener>,
}

impl Settings {
    /// Takes the listeners out of the options.
    pub fn split(options: Options) -> (Self, Listeners) {
        let settings = Self {
            data_dir: options.data_dir,
            database_url: options.database_url,
            apps_domain: options.apps_domain,
            router_port: options.router_port,
            git_host: options.git_host,
            api_url: options.api_url,
            tls_url: options.tls_url,
            ssh: options.ssh_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
            admin_email: options.admin_email,
            admin_api_key: options.admin_api_key,
            hostname: options.hostname,
            build_env: options.build_env,
            fetch_allow_networks: options.fetch_allow_networks,
            buildpack_dirs: options.buildpack_dirs,
            reach: options.reach,
            limits: options.limits,
            certificates: options.certificates,
            acme: options.acme,
            hook: options.hook,
        };
        (settings, Listeners { api: options.api_listener, tls: options.tls_listener, ssh: options.ssh_listener })
    }

    /// Settings for a data directory, everything else at its default. For one-off commands and tests.
    pub fn of_directory(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            database_url: None,
            apps_domain: "localhost".to_owned(),
            router_port: 8080,
            git_host: "localhost:5443".to_owned(),
            api_url: "http://localhost:5000".to_owned(),
            tls_url: "https://localhost:5443".to_owned(),
            ssh: None,
            admin_email: None,
            admin_api_key: None,
            hostname: "localhost".to_owned(),
            build_env: BTreeMap::new(),
            fetch_allow_networks: Vec::new(),
            buildpack_dirs: Vec::new(),
            reach: Reach::default(),
            limits: Limits::default(),
            certificates: tls::Names { apps_domain: "localhost".to_owned(), ..tls::Names::default() },
            acme: acme::Settings::default(),
            hook: Vec::new(),
        }
    }
}

/// What [`Context`] points to.
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Keys for config vars and tickets.
    pub keys: Keys,
    /// Where dynos run.
    pub engine: Arc<dyn Engine>,
    /// Where builds run.
    pub builds: Arc<dyn Builds>,
    /// To the logs role.
    pub logs: Sender,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What the role was told at its start.
    pub settings: Settings,
    /// Calls left, by account.
    pub rates: Rates,
    /// Wrong credentials, by address.
    pub failures: Failures,
    /// To the reconcilers.
    pub nudge: Nudge,
    /// Output of builds and release commands.
    pub outputs: ops::output::Outputs,
    /// Who may build.
    pub building: ops::builds::Building,
    /// Release commands under way.
    pub phases: ops::release_phase::Phases,
    /// Commands that wait for their clients.
    pub sessions: Sessions,
    /// To whoever runs timed jobs.
    pub cron: cron::Bell,
    /// Pushes under way.
    pub pushes: git::Pushes,
    /// What the router is to answer certificate authorities.
    pub challenges: Challenges,
    /// How apps' requests went lately.
    pub traffic: Board,
    /// Git requests of this hour.
    pub git_requests: git::Requests,
}

/// Shared by everything in the role; see the module.
#[derive(Clone)]
pub struct Context(Arc<Shared>);

impl Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Context {
    /// Opens database and keys, and makes the first account if there is none.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn open(
        settings: Settings,
        engine: Arc<dyn Engine>,
        builds: Arc<dyn Builds>,
        logs: Sender,
        clock: Arc<dyn Clock>,
        nudge: Nudge,
    ) -> Result<Self, Error> {
        let keys = Keys::open(&settings.data_dir)
            .map_err(|source| Error::Io { operation: "open the keys in the data directory".to_owned(), source })?;
        let store = Store::open(&settings.data_dir, settings.database_url.as_deref()).await?;
        let rates = Rates::new(settings.limits.api_calls_per_hour);
        let failures = Failures::new(&settings.limits);
        let building = ops::builds::Building::new(settings.limits.builds_concurrent);
        let context = Self(Arc::new(Shared {
            store,
            keys,
            engine,
            builds,
            logs,
            clock,
            settings,
            rates,
            failures,
            nudge,
            outputs: ops::output::Outputs::default(),
            building,
            phases: ops::release_phase::Phases::default(),
            sessions: Sessions::default(),
            cron: cron::Bell::default(),
            pushes: git::Pushes::default(),
            challenges: Challenges::default(),
            traffic: Board::default(),
            git_requests: git::Requests::default(),
        }));
        ops::accounts::ensure_admin(&context).await?;
        Ok(context)
    }

    /// All limits.
    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// The time.
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// Writes an `app[api]` line: somebody did something to the app.
    pub fn log_api(&self, app: AppId, text: String) {
        self.log(app, Source::App, "api", in_one_line(text));
    }

    /// Writes a line into an app's stream.
    pub fn log(&self, app: AppId, source: Source, process: &str, text: String) {
        self.logs.send(Line { app, at: self.now(), source, process: process.to_owned(), text });
    }
}
