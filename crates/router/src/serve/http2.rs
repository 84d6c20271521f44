//! A client's HTTP/2 connection: many requests at once, a task for each.
//!
//! The library keeps the protocol's own rules and bounds what a hostile client can make it hold: open streams, heads,
//! streams that are reset as soon as they are opened, endless continuations. What it lets through meets the same
//! reader of heads as HTTP/1.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use dozen_domain::limits::millis;
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

use crate::{
    Router,
    alarm::Alarm,
    downstream::Http2Client,
    error::Flaw,
    exchange::Client,
    phases::{self, Workspace},
    wire::{
        head::{Length, Version},
        http2::{Http2, write_request},
    },
};

/// Streams that one connection may have open.
const STREAMS: u32 = 128;
/// Bytes of a request's body that may be on the way, for one stream and for all of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that were reset before they were accepted, after which the client is taken for hostile.
const RESETS: usize = 20;

/// Serves a connection.
pub(crate) async fn run<S>(router: &Arc<Router>, stream: S, peer: &Arc<Client>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &router.limits;
    let idle = millis(limits.router_keep_alive_ms);
    let handshake = server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.router_head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(RESETS)
        .handshake::<_, Bytes>(stream);
    let Ok(Ok(mut connection)) = timeout(idle, handshake).await else { return };
    let open = Arc::new(AtomicU64::new(0));
    let (mut alarm, mut since, mut leaving) = (Alarm::default(), Instant::now(), false);
    let mut stop = std::pin::pin!(router.stop.cancelled());
    loop {
        let accepted = poll_fn(|context| {
            let accepted = connection.poll_accept(context);
            if accepted.is_ready() || leaving {
                return accepted.map(Some);
            }
            if open.load(Ordering::Relaxed) > 0 {
                since = Instant::now();
            }
            let stopped = stop.as_mut().poll(context).is_ready();
            if stopped || alarm.poll(context, since + idle).is_ready() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match accepted {
            Some(Some(Ok((request, respond)))) => {
                since = Instant::now();
                let task = Open::new(&open);
                let (router, peer) = (router.clone(), peer.clone());
                router.tasks.clone().spawn(async move {
                    let _open = task;
                    let cut = router.cut.clone();
                    cut.run_until_cancelled(answer(&router, &peer, request, respond)).await
                });
            }
            Some(Some(Err(error))) => {
                tracing::trace!(%error, "a client's HTTP/2 connection ended early");
                return;
            }
            Some(None) => return,
            None => {
                leaving = true;
                connection.graceful_shutdown();
            }
        }
    }
}

/// Counts one open stream.
struct Open(Arc<AtomicU64>);

impl Open {
    fn new(open: &Arc<AtomicU64>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(router: &Arc<Router>, peer: &Arc<Client>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    let mut text = Vec::with_capacity(512);
    write_request(&parts, &mut text);
    let mut work = Workspace::default();
    let mut judged = work.request.request(&text, &router.limits);
    if parts.uri.path_and_query().is_none() {
        judged = Err(Flaw::Header);
    }
    work.request.version = Version::Http2;
    let whole = body.is_end_stream();
    match work.request.length {
        // HTTP/2 has no chunks, and says so.
        Length::Chunked => judged = Err(Flaw::Header),
        Length::Unsaid if !whole => work.request.length = Length::Chunked,
        Length::Unsaid | Length::Known(_) => {}
    }
    let mut client = Http2Client::new(respond, Http2::new((!whole).then_some(body), None));
    phases::handle(router, peer, &mut client, &mut work, judged).await;
}
