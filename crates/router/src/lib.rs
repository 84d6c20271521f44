//! The router role: HTTP and WebSocket in, dyno out.
//!
//! It holds the whole route table and asks nobody while it answers. Control tells it changes of the table ([`feed`]);
//! when control is dead, it goes on with the last table, and starts from the one on disk. A request goes through the
//! [`phases`] in a fixed order and leaves one access line in its app's stream. Listening sockets belong to the parent
//! process and outlive this one.
//!
//! This crate decides nothing about dynos: it starts none, stops none, and believes what the table says of them,
//! except that it passes one over for some seconds that has just refused a connection.

mod access_log;
mod alarm;
mod downstream;
mod edge;
mod error;
mod exchange;
mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod headers;
mod link;
mod listen;
mod metrics;
mod pages;
mod phases;
mod serve;
mod table;
pub mod tls;
mod upstreams;
mod wire;

use std::{
    future::Future,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dozen_api::logs;
use dozen_domain::{
    limits::{Limits, millis},
    network::Prefix,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::table::Table;

/// How long the router's end waits for its last access lines to be stored.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What the router is given.
#[derive(Debug)]
pub struct Options {
    /// Where apps are asked for in plain HTTP, already bound.
    pub http: std::net::TcpListener,
    /// Where they are asked for over TLS, if at all.
    pub https: Option<Https>,
    /// The data directory's `run`: `routes.sock`, `routes.json` and `logs.sock` are in it.
    pub run_directory: PathBuf,
    /// The platform's limits; those called `router_` and the size of the buffer for log lines are used.
    pub limits: Limits,
    /// Networks whose connections begin with a header of the PROXY protocol.
    pub proxies: Vec<Prefix>,
    /// Where the router tells of itself, already bound.
    pub metrics: Option<std::net::TcpListener>,
    /// Is told when requests are served by a table.
    pub ready: watch::Sender<bool>,
    /// Every app answers at `<name>.<apps_domain>`.
    pub apps_domain: String,
}

/// What the router is given for TLS.
#[derive(Debug)]
pub struct Https {
    /// The listening socket, already bound.
    pub listener: std::net::TcpListener,
    /// PEM file of the certificate (chain) for names that have none of their own.
    pub certificate: PathBuf,
    /// PEM file of its key. Both are read again when they change.
    pub key: PathBuf,
}

/// Why the router could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listening socket cannot be used.
    #[error("listening on the router's {name} socket")]
    Listen {
        /// `HTTP`, `HTTPS` or `metrics`.
        name: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The default certificate cannot be used.
    #[error("loading the router's default certificate")]
    Certificate(#[from] tls::Error),
}

/// What all connections share.
struct Router {
    limits: Limits,
    table: Arc<Table>,
    /// How certificates are chosen, where there is TLS.
    tls: Option<Arc<tls::Resolver>>,
    /// Where apps are asked for over TLS.
    https_port: Option<u16>,
    /// Networks whose connections begin with a header of the PROXY protocol.
    proxies: Vec<Prefix>,
    metrics: metrics::Metrics,
    logs: logs::Sender,
    connections: AtomicU64,
    /// The same by client address.
    crowd: Arc<edge::crowd::Crowd>,
    /// Fires when a connection ends.
    freed: Notify,
    /// Connections and tunnels.
    tasks: TaskTracker,
    /// No new connections and requests.
    stop: CancellationToken,
    /// No connections at all.
    cut: CancellationToken,
    /// What ends from now on was cut by the router.
    cutting: AtomicBool,
}

/// Routes until `shutdown`, then lets open requests finish for `router_drain_ms`, cuts the rest (H24) and returns.
///
/// # Errors
/// When a socket or the default certificate cannot be used; never once it has begun to serve.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let Options { http, https, run_directory, limits, proxies, metrics, ready, apps_domain } = options;
    let http = listener("HTTP", http)?;
    let table = Arc::new(Table::new(&apps_domain));
    let port = |https: &Https| https.listener.local_addr().ok().map(|address| address.port());
    let https_port = https.as_ref().and_then(port);
    let (https, tls) = match https {
        Some(https) => {
            let resolver = tls::Resolver::new(table.clone(), tls::Fallback::load(&https.certificate, &https.key)?);
            let acceptor = TlsAcceptor::from(tls::configuration(resolver.clone())?);
            (Some((listener("HTTPS", https.listener)?, acceptor)), Some(resolver))
        }
        None => (None, None),
    };
    let saved = run_directory.join("routes.json");
    let capacity = usize::try_from(limits.log_local_buffer_lines).unwrap_or(usize::MAX);
    let router = Arc::new(Router {
        logs: logs::Sender::connect(run_directory.join("logs.sock"), "router", capacity),
        limits,
        table: table.clone(),
        tls,
        https_port,
        proxies,
        metrics: metrics::Metrics::default(),
        connections: AtomicU64::new(0),
        crowd: Arc::default(),
        freed: Notify::new(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
        cutting: AtomicBool::new(false),
    });

    let changed = Arc::new(Notify::new());
    let background = TaskTracker::new();
    let end = CancellationToken::new();
    let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let end = end.clone();
        background.spawn(async move { end.run_until_cancelled(task).await });
    };
    spawn(Box::pin(feed::start(table.clone(), saved.clone())));
    if let Some(metrics) = metrics {
        spawn(Box::pin(metrics::serve(router.clone(), listener("metrics", metrics)?)));
    }
    spawn(Box::pin(feed::follow(router.clone(), run_directory.join("routes.sock"), changed.clone())));
    let saving = end.child_token();
    let save = saving.clone().run_until_cancelled_owned(feed::save(table.clone(), saved, changed));
    spawn(Box::pin(async move { _ = save.await }));
    spawn(Box::pin(reap(router.clone())));
    spawn(Box::pin(renew(router.clone())));
    router.tasks.spawn(listen::accept(router.clone(), http, None));
    if let Some((listener, acceptor)) = https {
        router.tasks.spawn(listen::accept(router.clone(), listener, Some(acceptor)));
    }

    let serving = async {
        // Without any table requests are told so, after the same time.
        let _ = timeout(millis(router.limits.router_table_wait_ms), router.table.ready()).await;
        ready.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = shutdown => {}
        () = serving => {}
    }
    router.stop.cancel();
    // A successor keeps the table on disk from here on.
    saving.cancel();
    router.tasks.close();
    if timeout(millis(router.limits.router_drain_ms), router.tasks.wait()).await.is_err() {
        router.cutting.store(true, Ordering::Relaxed);
        router.cut.cancel();
        router.tasks.wait().await;
    }
    // The last lines are not to die with this process; the logs role may well be gone already.
    if timeout(LAST_LINES, router.logs.flushed()).await.is_err() {
        tracing::warn!("the last access lines could not be handed over");
    }
    end.cancel();
    background.close();
    background.wait().await;
    Ok(())
}

fn listener(name: &'static str, listener: std::net::TcpListener) -> Result<TcpListener, Error> {
    let usable = || {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    usable().map_err(|source| Error::Listen { name, source })
}

/// Looks for a renewed default certificate, for ever.
async fn renew(router: Arc<Router>) {
    let Some(tls) = router.tls.clone() else { return };
    loop {
        sleep(millis(router.limits.router_certificate_look_ms)).await;
        let tls = tls.clone();
        // Two small files; a panic in there would be told by the runtime.
        let _ = tokio::task::spawn_blocking(move || tls.refresh()).await;
    }
}

/// Closes connections to dynos that were idle for too long, for ever.
async fn reap(router: Arc<Router>) {
    let length = millis(router.limits.router_upstream_keep_alive_ms);
    loop {
        sleep(length / 4).await;
        router.table.upstreams().iter().for_each(|dyno| dyno.reap(length));
    }
}
