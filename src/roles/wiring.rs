//! What each role is made of: the only place that sees every crate and hands the parts of one to another.

use std::{
    ffi::OsString,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use dozen_api::{
    client::{self, Client},
    clock::Micros,
    logs::Sender,
};
use dozen_cli::environment;
use dozen_domain::{ids::DynoId, limits::Limits};
use dozen_runtime::{
    builds::MachineBuilds,
    engine::{Host, Machine},
};

use super::{Inherited, announce};
use crate::{config::Config, server::listeners};

use super::Error as RoleError;

/// The trust store that programs in builds are pointed at (Debian's and Ubuntu's place).
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why a part of a role gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The logs role.
    #[error("the logs role cannot go on")]
    Logs(#[from] dozen_logs::Error),
    /// The control role.
    #[error("the control role cannot go on")]
    Control(#[from] dozen_control::Error),
    /// The router role.
    #[error("the router role cannot go on")]
    Router(#[from] dozen_router::Error),
    /// Certificates.
    #[error("make the certificates")]
    Certificates(#[from] dozen_control::tls::Error),
    /// The machine.
    #[error("make this machine ready for dynos")]
    Machine(#[from] dozen_runtime::engine::HostError),
}

/// The logs role.
pub(super) async fn logs(
    config: &Config,
    inherited: Inherited,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RoleError> {
    let run_dir = config.data_dir.join("run");
    let socket = run_dir.join("logs.sock");
    announce(inherited.ready, move || {
        let socket = socket.clone();
        async move { dozen_api::socket::connect(&socket).await.is_ok() }
    });
    let options = logs_options(config);
    Ok(dozen_logs::run(options, shutdown).await.map_err(Error::from)?)
}

fn logs_options(config: &Config) -> dozen_logs::Options {
    dozen_logs::Options {
        run_dir: config.data_dir.join("run"),
        logs_dir: config.data_dir.join("logs"),
        keys_dir: config.data_dir.join("keys"),
        reach: config.reach(&listeners::recorded(config)),
        trust: config.ssl_cert_file.clone(),
        limits: config.limits.clone(),
    }
}

/// The control role.
pub(super) async fn control(
    config: &Config,
    mut inherited: Inherited,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RoleError> {
    let (api_listener, tls_listener) = (inherited.listener("api")?, inherited.listener("tls")?);
    let ssh_listener = inherited.optional("ssh")?;
    let listen = listeners::recorded(config);
    announce(inherited.ready, move || answers(listen.api, "/account"));
    let tls_host = format!("{}:{}", environment::host(listen.tls.ip()), listen.tls.port());
    let executable = std::env::current_exe()
        .map_err(|source| RoleError::Io { operation: "find the platform's own executable", source })?;
    let options = dozen_control::Options {
        data_dir: config.data_dir.clone(),
        database_url: Some(config.database_url.clone()),
        api_listener,
        tls_listener,
        ssh_listener,
        limits: config.limits.clone(),
        apps_domain: config.apps_domain.clone(),
        router_port: listen.router.port(),
        git_host: tls_host.clone(),
        api_url: format!("http://{}:{}", environment::host(listen.api.ip()), listen.api.port()),
        tls_url: format!("https://{tls_host}"),
        admin_email: config.admin_email.clone(),
        admin_api_key: config.api_key.clone(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        build_env: config.build_env.clone(),
        fetch_allow_networks: config.fetch_allow_networks.clone(),
        buildpack_dirs: config.buildpack_dirs.clone(),
        reach: config.reach(&listen),
        certificates: certificates(config),
        acme: config.acme.clone(),
        hook: vec![executable.to_string_lossy().into_owned(), "git-hook".to_owned()],
    };
    let logs = Sender::connect(config.data_dir.join("run/logs.sock"), "control", capacity(&config.limits));
    let host = Arc::new(machine(config, executable, logs).await?);
    for warning in host.warnings() {
        tracing::warn!("{warning}");
    }
    let engine = Arc::new(Machine::new(host.clone()));
    let builds = Arc::new(MachineBuilds::new(host));
    Ok(dozen_control::run(options, engine, builds, shutdown).await.map_err(Error::from)?)
}

/// What the certificates are for; the parent calls `dozen_control::tls::ensure` with it before any role starts.
pub(crate) fn certificates(config: &Config) -> dozen_control::tls::Names {
    let listening = [config.listen.api, config.listen.tls].map(|address| address.ip().to_string());
    let api = listening.into_iter().chain(config.api_names.iter().cloned()).collect();
    dozen_control::tls::Names { api, apps_domain: config.apps_domain.clone(), own: None }
}

/// This machine, ready for dynos and builds.
pub(crate) async fn machine(config: &Config, executable: PathBuf, logs: Sender) -> Result<Host, Error> {
    let rust = match &config.rust_sysroot {
        Some(given) => Some(given.clone()),
        None => found_sysroot(config).await,
    };
    // What lies in /usr is found by the build itself; this is how a newer one than the system's is preferred.
    let go = config.go_root.clone().or_else(|| Some(PathBuf::from("/usr/local/go")).filter(|root| root.is_dir()));
    let toolchain = |outside: Option<PathBuf>, inside: &str| Some((outside?, PathBuf::from(inside)));
    let toolchains = [toolchain(rust, "/opt/dozen/rust"), toolchain(go, "/opt/dozen/go")];
    let options = dozen_runtime::engine::Options {
        data: config.data_dir.clone(),
        exe: executable,
        limits: config.limits.clone(),
        logs,
        root: rustix::process::geteuid().is_root(),
        allow_networks: config.dyno_allow_networks.clone(),
        buildpack_dirs: config.buildpack_dirs.clone(),
        toolchains: toolchains.into_iter().flatten().collect(),
        ca_bundle: Some(PathBuf::from(CA_BUNDLE)).filter(|path| path.exists()),
    };
    Ok(Host::prepare(options).await?)
}

/// Where the Rust toolchain is that `rustc` on `PATH` belongs to.
async fn found_sysroot(config: &Config) -> Option<PathBuf> {
    let rustc = config.tool("rustc")?;
    let answer = tokio::process::Command::new(rustc).args(["--print", "sysroot"]).output().await.ok()?;
    let sysroot = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim());
    (answer.status.success() && sysroot.is_dir()).then_some(sysroot)
}

/// Lines that wait in a role for the logs role, at most.
fn capacity(limits: &Limits) -> usize {
    usize::try_from(limits.log_local_buffer_lines).unwrap_or(usize::MAX)
}

/// The router role.
pub(super) async fn router(
    config: &Config,
    mut inherited: Inherited,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RoleError> {
    let (plain, tls) = (inherited.listener("plain")?, inherited.listener("tls")?);
    let metrics = config.listen.router_metrics.map(|_| inherited.listener("metrics")).transpose()?;
    // Not by a request: the socket is shared with a former router that may still answer.
    let (ready, told) = tokio::sync::watch::channel(false);
    announce(inherited.ready, move || std::future::ready(*told.borrow()));
    let paths = dozen_control::tls::ensure(&config.data_dir, &certificates(config)).map_err(Error::from)?;
    let options = dozen_router::Options {
        http: plain,
        https: Some(dozen_router::Https { listener: tls, certificate: paths.apps_certificate, key: paths.apps_key }),
        run_directory: config.data_dir.join("run"),
        limits: config.limits.clone(),
        proxies: config.router_proxy_networks.clone(),
        metrics,
        ready,
        apps_domain: config.apps_domain.clone(),
    };
    Ok(dozen_router::run(options, shutdown).await.map_err(Error::from)?)
}

/// Whether a server answers at all there; what it answers does not matter.
async fn answers(address: SocketAddr, path: &'static str) -> bool {
    let Ok(client) = Client::new(&format!("http://{}", environment::connectable(address))) else { return true };
    let answer = client.get::<serde_json::Value>(path).await;
    !matches!(answer, Err(client::Error::Connect { .. } | client::Error::Exchange { .. }))
}

/// Stops all dynos and removes what they used. The logs role's work goes on meanwhile, so that the dynos' last lines
/// are kept; returns which dynos there were and when each was gone.
pub(crate) async fn tear_down(config: &Config) -> Result<Vec<(DynoId, Micros)>, RoleError> {
    let run_dir = config.data_dir.join("run");
    let options = logs_options(config);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let collecting = dozen_logs::run(options, async { _ = ended.await });
    let executable = std::env::current_exe()
        .map_err(|source| RoleError::Io { operation: "find the platform's own executable", source })?;
    let lines = Sender::connect(run_dir.join("logs.sock"), "stop", capacity(&config.limits));
    let stopping = async {
        let stopped = match machine(config, executable, lines).await {
            Ok(host) => Ok(dozen_runtime::teardown::tear_down(Arc::new(host)).await),
            Err(error) => Err(error),
        };
        // Whoever collects has not ended by itself; if it has, its error is told below.
        _ = end.send(());
        stopped
    };
    let (collected, stopped) = tokio::join!(collecting, stopping);
    collected.map_err(Error::from)?;
    Ok(stopped?)
}

/// What dynos of this start lack, one sentence each.
pub(crate) fn missing_protections() -> Vec<String> {
    dozen_runtime::sandbox::protections().iter().map(ToString::to_string).collect()
}

/// The same, each with whether no dyno can be started for want of it.
pub(crate) fn protections() -> Vec<(String, bool)> {
    let missing = dozen_runtime::sandbox::protections();
    missing.into_iter().map(|missing| (missing.to_string(), missing.prevents_dynos())).collect()
}

/// The control groups that bound dynos: `memory (v1)`.
pub(crate) fn control_groups() -> Vec<String> {
    use dozen_runtime::cgroup::{Layout, hierarchy};
    let version = |layout| if layout == Layout::Unified { "v2" } else { "v1" };
    let places = hierarchy::places();
    places.iter().map(|place| format!("{} ({})", place.controller.name(), version(place.layout))).collect()
}

/// `dozen shim DIR`
pub(crate) fn shim(directory: Option<OsString>) -> ExitCode {
    let Some(directory) = directory else { return ExitCode::from(2) };
    exit_code(dozen_runtime::shim::main(Path::new(&directory)))
}

/// `dozen builder analyze|build`
pub(crate) fn builder(phase: Option<OsString>) -> ExitCode {
    let phase: Vec<String> = phase.and_then(|phase| phase.into_string().ok()).into_iter().collect();
    exit_code(dozen_builder::main(&phase))
}

/// `dozen git-hook`
pub(crate) fn git_hook() -> ExitCode {
    exit_code(dozen_control::hook::main())
}

/// `dozen sftp-server`
pub(crate) fn sftp_server() -> ExitCode {
    exit_code(dozen_runtime::sftp::main())
}

/// `dozen static-server ARGS`
pub(crate) fn static_server(arguments: Vec<OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    exit_code(dozen_builder::static_server::main(&arguments))
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}
