//! A client's HTTP/1 connection: one request after the other, until one side has had enough.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use dozen_domain::limits::millis;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

use crate::{
    Router,
    downstream::{Downstream, Http1Client},
    error::Flaw,
    exchange::Client,
    phases::{self, Workspace},
    wire::{
        buffer::Buffer,
        head::Head,
        http1::{Http1, NoHead},
    },
};

/// How long a client that was answered before it had sent everything may go on sending. Its bytes are dropped; were
/// they left unread, the kernel would reset the connection, and the client might never see the answer.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it is read.
const LINGER_BYTES: usize = 4 << 20;
/// Empty lines before a request that are passed over (RFC 9112, 2.2, wants one at least).
const EMPTY_LINES: u32 = 4;

/// Serves a connection of which some bytes may have been read already.
pub(crate) async fn run<S>(router: &Arc<Router>, stream: S, first: Buffer, peer: &Arc<Client>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = Http1Client::new(Http1::new(stream, first));
    let mut work = Workspace::default();
    while client.keep {
        let Some(judged) = next(router, peer, &mut client, &mut work).await else { break };
        client.begin(&work.request);
        if judged.is_err() {
            client.keep = false;
        }
        // A large future, which waiting connections need not hold.
        Box::pin(phases::handle(router, peer, &mut client, &mut work, judged)).await;
        if !client.wire.is_read() {
            client.keep = false;
            client.linger = true;
        }
        if router.stop.is_cancelled() {
            client.keep = false;
        }
    }
    close(&mut client).await;
}

/// Waits for the next request's head and reads it; none when the connection is to end.
async fn next<S>(
    router: &Router,
    peer: &Client,
    client: &mut Http1Client<S>,
    work: &mut Workspace,
) -> Option<Result<(), Flaw>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &router.limits;
    let longest = limits.router_request_line_bytes.max(limits.router_header_line_bytes) as usize + 2;
    let (line, most) = (longest + limits.router_header_name_bytes as usize, limits.router_head_bytes as usize);
    let (idle, whole) = (peer.patience(limits), millis(limits.router_head_ms));
    let (mut deadline, mut begun, mut lines) = (Instant::now() + idle, false, 0);
    let head = poll_fn(|context| {
        while lines < EMPTY_LINES && client.wire.unused().starts_with(b"\r\n") {
            client.wire.skip(2);
            lines += 1;
        }
        let head = client.wire.poll_head(context, line, most);
        if head.is_pending() {
            if client.wire.has_begun() {
                if !std::mem::replace(&mut begun, true) {
                    deadline = Instant::now() + whole;
                }
            } else {
                client.wire.rest();
                work.rest();
            }
            return work
                .alarm
                .poll(context, deadline)
                .map(|()| Err(if begun { NoHead::Slow } else { NoHead::Gone { partial: false } }));
        }
        head
    });
    let found = tokio::select! {
        biased;
        found = head => found,
        () = router.stop.cancelled() => return None,
    };
    match found {
        Ok(length) => Some(read(&mut client.wire, length, &mut work.request, router)),
        Err(none @ (NoHead::Hopeless | NoHead::Slow)) => {
            // Its app is told, if what is there names one.
            let _ = work.request.request(client.wire.unused(), limits);
            client.wire.skip(usize::MAX);
            client.close();
            Some(Err(if none == NoHead::Slow { Flaw::Slow } else { Flaw::Header }))
        }
        Err(NoHead::Gone { .. }) => None,
    }
}

fn read<S>(wire: &mut Http1<S>, length: usize, head: &mut Head, router: &Router) -> Result<(), Flaw>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let judged = head.request(&wire.unused()[..length], &router.limits);
    wire.skip(length);
    judged
}

/// Closes the connection so that the client gets all that was written.
async fn close<S>(client: &mut Http1Client<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let linger = client.linger;
    let closed = async {
        if poll_fn(|context| client.wire.poll_shutdown(context)).await.is_err() || !linger {
            return;
        }
        let mut left = LINGER_BYTES;
        while left > 0 {
            let dropped = poll_fn(|context: &mut Context<'_>| -> Poll<usize> { client.wire.poll_drop(context) }).await;
            if dropped == 0 {
                return;
            }
            left = left.saturating_sub(dropped);
        }
    };
    // A client that takes nothing is not waited for.
    let _ = timeout(LINGER, closed).await;
}
