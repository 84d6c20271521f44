//! The listeners of the control role and everything that runs beside them, until shutdown.
//!
//! Plain HTTP and TLS serve the same routes. On the TLS port a connection that does not begin with an HTTP request is a
//! [`Rendezvous`]: a client that attaches to a one-off dyno by a secret, or one of the exec family that speaks SSH. [`run`] is the order in which the role starts.

mod connections;
mod sniff;

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use tokio_util::sync::CancellationToken;

use self::connections::Server;
pub use self::connections::Via;
use crate::{
    Context, Error, cron, git, hook,
    http::routes,
    ops,
    reconcile::{
        Nudges,
        apps::Apps,
        autoscale::Autoscale,
        certificates::Certificates,
        drains::Drains,
        driver::{Statuses, Task, chain, drive},
        rollouts::Rollouts,
        routes::Routes,
        upkeep::Upkeep,
    },
    routes_feed::Feed,
    sessions::{meeting::Meetings, ssh},
    state::Listeners,
    tls,
};

/// Both directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Takes connections on the TLS port that are no HTTP.
#[async_trait]
pub trait Rendezvous: Send + Sync + 'static {
    /// Serves one, from its first byte on, until its end.
    async fn meet(&self, stream: Box<dyn Stream>);

    /// Serves one that speaks SSH.
    async fn ssh(&self, stream: Box<dyn Stream>);
}

/// Starts the role and serves until `shutdown` resolves.
///
/// Requests are answered before dynos are found again and apps are looked at: an API call waits for nothing but the
/// database.
///
/// # Errors
/// When git is missing, or certificates, sockets or the database cannot be used.
pub async fn run(
    context: Context,
    listeners: Listeners,
    nudges: Nudges,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let settings = &context.settings;
    let certificates = tls::ensure_at(&settings.data_dir, &settings.certificates, context.now())?;
    let certificate = tls::Certificate::load(&certificates.api_certificate, &certificates.api_key)?;
    git::prepare(&settings.data_dir, &settings.hook).await?;
    ops::builds::recover(&context).await?;
    let failed = |operation: &str| {
        let operation = operation.to_owned();
        move |source| Error::Io { operation, source }
    };
    let scratch = settings.data_dir.join("tmp");
    std::fs::create_dir_all(&scratch).map_err(failed("make the directory tmp in the data directory"))?;
    let hooks = hook::serve::bind(&settings.data_dir).map_err(failed("listen at run/control.sock"))?;

    let exec_family = match ssh::Server::new(context.clone()) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::error!(%error, "no SSH: ps:exec and its family do not work");
            None
        }
    };
    let meetings = Meetings { context: context.clone(), exec_family: exec_family.clone() };
    let most = context.limits().api_connections;
    let server = Server::new(routes::table(context.clone()), routes::crowded(most), most, Arc::new(meetings));
    let listener = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let api = listener(listeners.api).map_err(failed("use the listener of DOZEN_API_LISTEN"))?;
    let over_tls = listener(listeners.tls).map_err(failed("use the listener of DOZEN_TLS_LISTEN"))?;
    let over_ssh = listeners.ssh.map(listener).transpose().map_err(failed("use the listener of DOZEN_SSH_LISTEN"))?;
    let config = certificate.server()?;

    let leave = CancellationToken::new();
    let exec_family = exec_family.zip(over_ssh);
    let exec_family = exec_family.map(|(server, over_ssh)| tokio::spawn(server.accept(over_ssh, leave.clone())));
    let beside = tokio::spawn(beside(context.clone(), certificate, nudges));
    let hooks = tokio::spawn(hook::serve::serve(context.clone(), hooks));
    tokio::select! {
        () = async { tokio::join!(server.accept(api, None), server.accept(over_tls, Some(config))); } => {}
        () = shutdown => {}
    }
    leave.cancel();
    server.stop().await;
    if let Some(exec_family) = exec_family {
        let _ = exec_family.await;
    }
    beside.abort();
    hooks.abort();
    context.store.close().await;
    Ok(())
}

/// Finds what runs, then keeps it and the routes as they should be.
async fn beside(context: Context, certificate: Arc<tls::Certificate>, nudges: Nudges) {
    let feed = Feed::new(context.clone());
    context.engine.set_gate(feed.clone());
    let recorder = Arc::new(ops::usage::Recorder::new(context.clone()));
    context.engine.set_meter(recorder.clone());
    if let Err(error) = context.engine.adopt().await {
        tracing::error!(error = %chain(&error), "cannot find all dynos that run; starting all the same");
    }
    let socket = context.settings.data_dir.join("run/routes.sock");
    let feeding = async {
        if let Err(error) = feed.clone().run(&socket).await {
            tracing::error!(error = %chain(&error), "the router gets no routes");
        }
    };
    let tasks: Vec<Arc<dyn Task>> = vec![
        Arc::new(Apps::new(context.clone())),
        Arc::new(ops::release_phase::ReleasePhase(context.clone())),
        Arc::new(Rollouts(context.clone())),
        Arc::new(Autoscale::new(context.clone())),
        Arc::new(Routes(feed.clone())),
        Arc::new(Drains::new(context.clone())),
        Arc::new(Certificates::new(context.clone(), feed.clone())),
        Arc::new(Upkeep::new(context.clone(), certificate)),
    ];
    let statuses = Arc::new(Statuses::default());
    let following = Rollouts::follow(context.clone());
    let tasks = drive(context.clone(), tasks, nudges, statuses);
    tokio::join!(feeding, cron::keep(context), recorder.beat(), following, tasks);
}
