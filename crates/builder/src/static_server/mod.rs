//! The hidden command `dozen static-server`: serves a folder of files from inside a dyno.
//!
//! It binds `$PORT` on IPv6 and IPv4 alike, knows `static.json` (root, clean URLs, routes, error page, headers), answers
//! conditional and range requests, and drains on SIGTERM. TLS, compression and access logs are the router's affair.

mod answer;
mod content_type;
mod locate;
pub(crate) mod settings;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::{answer::Site, settings::Settings};

/// How long open requests may take after SIGTERM; the platform kills after thirty seconds.
const DRAIN: Duration = Duration::from_secs(25);
/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(60);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("usage: dozen static-server [--root FOLDER]")]
    Usage,
    /// `PORT` is not set or no port.
    #[error("the variable PORT must hold the port to listen on")]
    Port,
    /// `static.json` is wrong.
    #[error("static.json cannot be used: {0}")]
    Settings(String),
    /// The root is not there.
    #[error("there is no folder {0} to serve")]
    Root(PathBuf),
    /// The operating system refused.
    #[error("{operation}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Serves until SIGTERM; answers the exit status.
pub fn main(args: &[String]) -> i32 {
    match serve(args) {
        Ok(()) => 0,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            say(&format!("static-server: {error}{cause}"));
            1
        }
    }
}

/// The dyno's log is its standard error; a reader that is gone is no reason to stop.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn serve(args: &[String]) -> Result<(), Error> {
    let root = match args {
        [] => None,
        [option, root] if option == "--root" => Some(root.clone()),
        _ => return Err(Error::Usage),
    };
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).ok_or(Error::Port)?;
    let settings = match (root, crate::command::read_if_there("static.json".as_ref())) {
        (Some(root), _) => Settings { root, ..Settings::default() },
        (None, Some(text)) => Settings::parse(&text).map_err(Error::Settings)?,
        (None, None) => Settings::default(),
    };
    let io = |operation| move |source| Error::Io { operation, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io("start"))?;
    runtime.block_on(async move {
        let site = Arc::new(Site::open(settings)?);
        let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
        let listener = TcpListener::bind(&any[..]).await.map_err(io("bind the port"))?;
        let mut terminated = signal(SignalKind::terminate()).map_err(io("wait for signals"))?;
        say(&format!("Serving {} on port {port}", site.root().display()));
        run(listener, site, async move {
            terminated.recv().await;
        })
        .await;
        Ok(())
    })
}

/// Accepts until `stop`, then lets open requests finish.
pub(crate) async fn run(listener: TcpListener, site: Arc<Site>, stop: impl Future<Output = ()>) {
    // Connections hold a receiver each: they see the change, and the sender sees when the last is gone.
    let (closing, watched) = watch::channel(());
    let mut stop = std::pin::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, or a client that went away: the next may be luckier.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (site, mut watched) = (Arc::clone(&site), watched.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let site = Arc::clone(&site);
                async move { Ok::<_, std::convert::Infallible>(site.answer(&request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = watched.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop((listener, watched));
    let _ = closing.send(());
    let _ = tokio::time::timeout(DRAIN, closing.closed()).await;
}
