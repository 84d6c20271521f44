//! A client's HTTP/2 connection: many requests at once, a task for each.
//!
//! The library keeps the protocol's own rules and bounds what a hostile client can make it hold: open streams, heads,
//! streams that are reset as soon as they are opened, endless continuations. What it lets through meets the same
//! reader of heads as HTTP/1.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use dozen_api::replay::Watched;
use dozen_domain::limits::millis;
use h2::{
    Reason, RecvStream,
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
    let (idle, going) = (peer.patience(limits), millis(limits.router_tls_handshake_ms));
    let handshake = server::Builder::new()
        .max_concurrent_streams(u32::try_from(limits.router_http2_streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.router_head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(RESETS)
        .handshake::<_, Bytes>(Watched::new(stream, opening()));
    let Ok(Ok(mut connection)) = timeout(going, handshake).await else { return };
    let (open, given_up, mut all) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), 0_u64);
    let (mut alarm, mut since, mut leaving) = (Alarm::default(), Instant::now(), false);
    let mut stop = std::pin::pin!(router.stop.cancelled());
    loop {
        let accepted = poll_fn(|context| {
            let accepted = connection.poll_accept(context);
            if accepted.is_ready() {
                return accepted.map(Some);
            }
            if open.load(Ordering::Relaxed) > 0 {
                since = Instant::now();
            }
            let stopped = !leaving && stop.as_mut().poll(context).is_ready();
            let patience = if leaving { going } else { idle };
            if stopped || alarm.poll(context, since + patience).is_ready() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match accepted {
            Some(Some(Ok((request, respond)))) => {
                since = Instant::now();
                all += 1;
                let task = Open::new(&open);
                let (router, peer, given_up) = (router.clone(), peer.clone(), given_up.clone());
                router.tasks.clone().spawn(async move {
                    let _open = task;
                    let cut = router.cut.clone();
                    if cut.run_until_cancelled(answer(&router, &peer, request, respond)).await == Some(true) {
                        given_up.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            Some(Some(Err(error))) => {
                tracing::trace!(%error, "a client's HTTP/2 connection ended early");
                return;
            }
            Some(None) => return,
            // It has no request open and does not go.
            None if leaving => return,
            None => {
                leaving = true;
                since = Instant::now();
                connection.graceful_shutdown();
            }
        }
        if leaving {
            continue;
        }
        let wasted = given_up.load(Ordering::Relaxed);
        if wasted >= limits.router_http2_resets && wasted * 2 > all {
            tracing::debug!(client = %peer.address, wasted, all, "a client gives up its requests as soon as they are made");
            leaving = true;
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        } else if peer.excess {
            // Its first request is told, and no other one comes.
            leaving = true;
            connection.graceful_shutdown();
        }
    }
}

/// Behind the preface of 24 bytes and the frame's length.
const FIRST_KIND: usize = 24 + 3;
const SETTINGS: u8 = 4;

/// Looks at a client's bytes, of which the first frame has to be SETTINGS (RFC 9113, 3.4): the library does not.
fn opening() -> impl FnMut(&[u8]) -> io::Result<()> + Unpin {
    // How many bytes have come, up to where the first frame's kind is.
    let mut seen = 0;
    move |fresh| {
        if seen <= FIRST_KIND {
            if fresh.get(FIRST_KIND - seen).is_some_and(|kind| *kind != SETTINGS) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            seen += fresh.len();
        }
        Ok(())
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

/// Answers one request; says whether the client gave it up before that.
async fn answer(
    router: &Arc<Router>,
    peer: &Arc<Client>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> bool {
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
    let expects = work.request.expects();
    let mut client = Http2Client::new(respond, Http2::new((!whole).then_some(body), None), expects);
    phases::handle(router, peer, &mut client, &mut work, judged).await;
    client.given_up
}
