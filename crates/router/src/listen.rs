//! Accepts client connections and finds out what they speak: HTTP/1, HTTP/2 by ALPN or by prior knowledge, TLS or plain.
//!
//! What a connection may cost is bounded here: how many there are, how long a handshake or an idle connection may take.
//! The stop of the router begins here as well: listeners close, idle connections end, busy ones finish what they are
//! at and are cut when the time is over.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use dozen_api::replay::Replayed;
use dozen_domain::limits::millis;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Router,
    edge::proxy_protocol,
    exchange::Client,
    serve::{http1, http2},
    tls,
    wire::buffer::Buffer,
};

/// Pause after the system could not give a connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);
/// How an HTTP/2 client begins that has not asked before.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Accepts connections until the router stops.
pub(crate) async fn accept(router: Arc<Router>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        // Past the limit connections are still taken to be told of it, but not without bound.
        let limit = router.limits.router_connections;
        let hard = limit.saturating_add(limit / 8 + 1);
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
                        biased;
                        () = serve(&router, stream, peer, tls, excess) => {}
                        () = router.cut.cancelled() => {}
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

async fn serve(
    router: &Arc<Router>,
    mut stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    excess: bool,
) {
    // Small writes must not wait for acknowledgements; a failure costs speed alone.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let mut client = Client::new(peer.ip(), local.port(), acceptor.is_some(), excess);
    if router.proxies.iter().any(|network| network.contains(peer.ip().to_canonical())) {
        let time = millis(router.limits.router_tls_handshake_ms);
        let read = async { timeout(time, proxy_protocol::read(&mut stream)).await.ok() };
        match until_stop(router, read).await {
            Some(Ok(Some(behind))) => {
                let tls = acceptor.is_some() || behind.tls;
                client = Client::new(behind.source.ip(), behind.destination.port(), tls, excess);
            }
            Some(Ok(None)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, %peer, "a trusted proxy sent no header of the PROXY protocol");
                return;
            }
            None => return,
        }
    }
    // Whoever is behind a proxy is counted under an address of their own.
    let member = router.crowd.join(client.ip);
    let limit = router.limits.router_connections_per_address;
    if member.number > limit.saturating_add(limit / 8) {
        return;
    }
    client.excess |= member.number > limit;
    match acceptor {
        None => {
            let client = Arc::new(client);
            let mut first = Buffer::default();
            let time = client.patience(&router.limits);
            let begun = async { timeout(time, first_bytes(&mut stream, &mut first)).await.ok()?.ok() };
            if until_stop(router, begun).await.is_none() {
                return;
            }
            if first.bytes().starts_with(PREFACE) {
                let begun = Bytes::copy_from_slice(first.bytes());
                drop(first);
                Box::pin(http2::run(router, Replayed::new(begun, stream), &client)).await;
            } else {
                http1::run(router, stream, first, &client).await;
            }
        }
        // Large, which those that wait in plain HTTP need not hold.
        Some(acceptor) => Box::pin(secure(router, stream, peer, acceptor, client)).await,
    }
}

async fn secure(router: &Arc<Router>, stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, mut client: Client) {
    // Which certificate is shown is in the table. Past the wait, the request is told what is wrong.
    if !router.table.is_ready() {
        let wait = timeout(millis(router.limits.router_table_wait_ms), router.table.ready());
        if until_stop(router, async { Some(wait.await) }).await.is_none() {
            return;
        }
    }
    let time = millis(router.limits.router_tls_handshake_ms);
    match until_stop(router, async { timeout(time, acceptor.accept(stream)).await.ok() }).await {
        Some(Ok(stream)) => {
            let session = stream.get_ref().1;
            let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
            client.server_name = session.server_name().map(|name| name.to_ascii_lowercase().into());
            let client = Arc::new(client);
            match protocol.as_deref() {
                // A certificate authority has seen what it came for.
                Some(tls::ACME) => {}
                Some(b"h2") => Box::pin(http2::run(router, stream, &client)).await,
                _ => http1::run(router, stream, Buffer::default(), &client).await,
            }
        }
        Some(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
        None => {}
    }
}

async fn until_stop<T>(router: &Router, future: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => done,
        () = router.stop.cancelled() => None,
    }
}

/// Reads until it is clear whether the client begins as one of HTTP/2 does.
async fn first_bytes(stream: &mut TcpStream, first: &mut Buffer) -> io::Result<()> {
    loop {
        if poll_fn(|context| first.poll_read(stream, context)).await? == 0 {
            return if first.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
        let bytes = first.bytes();
        if bytes.len() >= PREFACE.len() || !PREFACE.starts_with(bytes) {
            return Ok(());
        }
    }
}
