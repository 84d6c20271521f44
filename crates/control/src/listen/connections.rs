//! Accepts connections and serves the API's routes on them until told to stop.
//!
//! One [`Server`] serves any number of listeners, with one bound on the connections of all of them together. Stopping it
//! lets requests in flight end, within a grace, and closes idle connections at once.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{Router, body::Body};
use dozen_api::replay::Replayed;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Rendezvous, Stream,
    sniff::{self, Protocol},
};

/// Request heads up to this size: the CLI's `Request-Id` alone grows to 7 KiB.
const HEAD_BYTES: usize = 64 << 10;
/// Time for a handshake and for the first bytes of a request, and longest silence between requests.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// Requests in flight have this long when the server stops; the parent's own patience is longer.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Connections beyond the limit that are told so at the same time; more are closed without a word.
const REFUSALS: usize = 64;
/// Time for a client to ask, and to hear that it is one too many.
const REFUSAL_TIME: Duration = Duration::from_secs(5);
/// Pause after a failed accept (no file descriptors left), so that it is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence after which the kernel asks whether a client is still there, pause between that and the next time, and how often.
const ASK: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(20), 3);

/// Has the kernel notice that a client's machine or network is gone: a forward may be silent for as long as it likes.
fn notice_loss(stream: &TcpStream) {
    use rustix::net::sockopt;
    let (after, every, times) = ASK;
    // A socket without it is only noticed later.
    let _ = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, after))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, every))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, times));
}

/// How a request reached the API; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    /// The client's address.
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// Serves one route table.
#[derive(Clone)]
pub(crate) struct Server {
    routes: Router,
    /// Served in place of `routes` on a connection that is one too many.
    crowded: Router,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    rendezvous: Arc<dyn Rendezvous>,
    stopping: CancellationToken,
    stopped: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Serves `routes` on so many connections at once, and on a few more `crowded`.
    pub(crate) fn new(routes: Router, crowded: Router, most: u64, rendezvous: Arc<dyn Rendezvous>) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            routes,
            crowded,
            places: Arc::new(Semaphore::new(most)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            rendezvous,
            stopping: CancellationToken::new(),
            stopped: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    /// Accepts until the server stops.
    pub(crate) async fn accept(&self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        let tls = tls.map(TlsAcceptor::from);
        let (mut failing, mut full) = (false, false);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    // Answers are small and a push's output is line by line: Nagle's algorithm only delays them.
                    let _ = stream.set_nodelay(true);
                    notice_loss(&stream);
                    let place = self.places.clone().try_acquire_owned();
                    if place.is_err() && !full {
                        tracing::warn!("as many connections are open as may be (DOZEN_LIMIT_API_CONNECTIONS)");
                    }
                    full = place.is_err();
                    let tls = tls.clone();
                    match place {
                        Ok(place) => {
                            let server = self.clone();
                            self.connections.spawn(async move {
                                server.connection(stream, peer, tls).await;
                                drop(place);
                            });
                        }
                        Err(_) => self.refuse(stream, peer, tls),
                    }
                }
                Err(error) if is_connections_own(&error) => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "cannot accept connections; trying on");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Tells a client that its connection is one too many, if not too many are told that already.
    fn refuse(&self, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        let Ok(turn) = self.refusals.clone().try_acquire_owned() else { return };
        let server = Self { routes: self.crowded.clone(), rendezvous: Arc::new(Nobody), ..self.clone() };
        self.connections.spawn(async move {
            let _ = tokio::time::timeout(REFUSAL_TIME, server.connection(stream, peer, tls)).await;
            drop(turn);
        });
    }

    /// Lets requests in flight end, for a while, and closes everything else.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.connections.close();
        if tokio::time::timeout(STOP_GRACE, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "requests outlived the stop and are cut off");
        }
        self.stopped.cancel();
        self.connections.wait().await;
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        let served = async {
            match tls {
                None => self.http(stream, Via { peer, tls: false }).await,
                Some(tls) => self.tls(stream, peer, tls).await,
            }
        };
        tokio::select! {
            () = served => {}
            () = self.stopped.cancelled() => {}
        }
    }

    async fn tls(&self, stream: TcpStream, peer: SocketAddr, tls: TlsAcceptor) {
        let begin = async {
            let mut stream: TlsStream<TcpStream> = tls.accept(stream).await?;
            let first = sniff::read(&mut stream).await?;
            io::Result::Ok(first.map(|(protocol, first)| (protocol, Replayed::new(first, stream))))
        };
        let begun = tokio::select! {
            begun = tokio::time::timeout(HEAD_TIME, begin) => begun,
            () = self.stopping.cancelled() => return,
        };
        match begun {
            Ok(Ok(Some((Protocol::Http, stream)))) => self.http(stream, Via { peer, tls: true }).await,
            Ok(Ok(Some((Protocol::Rendezvous, stream)))) => self.rendezvous.meet(Box::new(stream)).await,
            Ok(Ok(Some((Protocol::Ssh, stream)))) => self.rendezvous.ssh(Box::new(stream)).await,
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS connection"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: S, via: Via) {
        let routes = TowerToHyperService::new(self.routes.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(via);
            let routes = routes.clone();
            async move { answer(routes, request).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %via.peer, %error, "connection ended");
        }
    }
}

/// Takes no rendezvous: the connection is closed.
struct Nobody;

#[async_trait]
impl Rendezvous for Nobody {
    async fn meet(&self, _: Box<dyn Stream>) {}

    async fn ssh(&self, _: Box<dyn Stream>) {}
}

async fn answer(
    routes: TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    hyper::service::Service::call(&routes, request).await
}

/// Errors of one connection that was gone before it was accepted; they say nothing about the listener.
fn is_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
