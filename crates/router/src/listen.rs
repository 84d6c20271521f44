//! Accepts client connections and runs HTTP on them: HTTP/1, HTTP/2 by ALPN or by prior knowledge, TLS or plain.
//!
//! What a connection may cost is bounded here: how many there are, how long a handshake, a head or an idle connection
//! may take, how large a head is. The stop of the router begins here as well: listeners close, idle connections end,
//! busy ones finish what they are at and are cut when the time is over.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dozen_domain::limits::{Limits, millis};
use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{Router, exchange::Client, phases, socket::Socket, tls};

/// Pause after the system could not give a connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Streams that one HTTP/2 connection may have open.
const STREAMS: u32 = 128;
/// Bytes of heads that one HTTP/2 request may have.
const HTTP2_HEADS: u32 = 64 << 10;

/// Accepts connections until the router stops.
pub(crate) async fn accept(router: Arc<Router>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        // Past the limit connections are still taken to be told of it, but not without bound.
        let limit = router.limits.router_connections;
        let hard = limit + limit / 8 + 1;
        let accepted = tokio::select! {
            () = router.stop.cancelled() => return,
            accepted = async {
                while router.connections.load(Ordering::Relaxed) >= hard {
                    router.freed.notified().await;
                }
                listener.accept().await
            } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let open = Open::new(&router);
                let excess = open.number > limit;
                let (router, tls) = (router.clone(), tls.clone());
                router.tasks.clone().spawn(async move {
                    let _open = open;
                    tokio::select! {
                        () = router.cut.cancelled() => {}
                        () = serve(&router, stream, peer, tls, excess) => {}
                    }
                });
            }
            // The client went away before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// Counts one open connection.
struct Open {
    router: Arc<Router>,
    number: u64,
}

impl Open {
    fn new(router: &Arc<Router>) -> Self {
        Self { number: router.connections.fetch_add(1, Ordering::Relaxed) + 1, router: router.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.router.connections.fetch_sub(1, Ordering::Relaxed);
        self.router.freed.notify_waiters();
        self.router.freed.notify_one();
    }
}

async fn serve(router: &Arc<Router>, stream: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>, excess: bool) {
    // Small writes must not wait for acknowledgements; a failure costs speed alone.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let mut client = Client::new(peer.ip(), local.port(), acceptor.is_some(), excess);
    match acceptor {
        None => {
            let Some(http2) = until_stop(router, speaks_http2(&stream, &router.limits)).await else { return };
            run(router, stream, Arc::new(client), http2).await;
        }
        Some(acceptor) => {
            // Which certificate is shown is in the table. Past the wait, the request is told what is wrong.
            let wait = timeout(millis(router.limits.router_table_wait_ms), router.table.ready());
            if until_stop(router, async { Some(wait.await) }).await.is_none() {
                return;
            }
            let time = millis(router.limits.router_tls_handshake_ms);
            match until_stop(router, async { timeout(time, acceptor.accept(stream)).await.ok() }).await {
                Some(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    let http2 = session.alpn_protocol() == Some(b"h2");
                    // A certificate authority has seen what it came for.
                    if session.alpn_protocol() != Some(tls::ACME) {
                        client.server_name = session.server_name().map(|name| name.to_ascii_lowercase().into());
                        run(router, stream, Arc::new(client), http2).await;
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
                None => {}
            }
        }
    }
}

async fn until_stop<T>(router: &Router, future: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        () = router.stop.cancelled() => None,
        done = future => done,
    }
}

/// Says whether a client's first bytes are HTTP/2's preface; none when nothing came in time.
async fn speaks_http2(stream: &TcpStream, limits: &Limits) -> Option<bool> {
    const PREFACE: &[u8] = b"PRI ";
    let mut first = [0; PREFACE.len()];
    let peeked = timeout(millis(limits.router_keep_alive_ms), stream.peek(&mut first)).await.ok()?.ok()?;
    (peeked > 0).then_some(first[..peeked] == *PREFACE)
}

/// Runs the streams of an HTTP/2 connection so that the router's stop waits for them and can cut them.
#[derive(Clone)]
struct Tracked(Arc<Router>);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let cut = self.0.cut.clone();
        self.0.tasks.spawn(async move { cut.run_until_cancelled(future).await.map(drop) });
    }
}

/// Waits until an HTTP/2 client has had no request open for `router_keep_alive_ms`, or the router stops.
async fn until_idle(router: &Router, client: &Client) {
    let mut before = 0;
    let quiet = async {
        loop {
            sleep(millis(router.limits.router_keep_alive_ms)).await;
            let begun = client.begun.load(Ordering::Relaxed);
            if client.is_idle() && begun == before {
                return;
            }
            before = begun;
        }
    };
    tokio::select! {
        () = router.stop.cancelled() => {}
        () = quiet => {}
    }
}

async fn run<S>(router: &Arc<Router>, stream: S, client: Arc<Client>, http2: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &router.limits;
    let io = TokioIo::new(Socket::new(stream, client.clone(), millis(limits.router_idle_ms)));
    let service = service_fn(|request: Request<Incoming>| {
        let (router, client) = (router.clone(), client.clone());
        async move { Ok::<_, std::convert::Infallible>(phases::handle(router, client, request).await) }
    });
    let ended = if http2 {
        let connection = http2::Builder::new(Tracked(router.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HTTP2_HEADS)
            .keep_alive_interval(millis(limits.router_keep_alive_ms))
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = until_idle(router, &client) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let keep_alive = limits.router_keep_alive_ms;
        let head = if client.excess { keep_alive.min(limits.router_tls_handshake_ms) } else { keep_alive };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(millis(head))
            .max_headers(limits.router_headers as usize)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = router.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a client's connection ended early");
    }
}
