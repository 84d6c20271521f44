//! Phase 5: hands the request to the dyno and awaits the head of its response.
//!
//! The body is streamed meanwhile, and this phase keeps the time: 55 s of silence from a client that still owes a part
//! of its body (H28), 30 s from a dyno that has everything (H12). A request is sent again only when the dyno cannot
//! have acted on it: nothing of it was written, or it is idempotent, has no body, went over a kept connection, and not
//! one byte came back.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use dozen_domain::limits::{Limits, millis};
use tokio::time::Instant;

use crate::{
    alarm::Alarm,
    downstream::Downstream,
    error::{Error, Flaw, Kind, Retry},
    exchange::Exchange,
    headers,
    link::{Link, Unsent},
    wire::{
        Fail, Flow, Stage, Torn,
        head::{Head, Length},
        pump,
    },
};

/// A request on its way to a dyno.
pub(crate) struct Outgoing {
    /// The body.
    pub(crate) up: Flow,
    /// The dyno takes no more of it.
    pub(crate) refused: bool,
    /// The client wants another protocol.
    pub(crate) upgrade: bool,
    idempotent: bool,
    has_body: bool,
    /// The dyno has said `100 Continue`.
    continued: bool,
    unsent: Option<Unsent>,
}

impl Outgoing {
    pub(crate) fn new(exchange: &Exchange) -> Self {
        let head = &exchange.head;
        let idempotent = matches!(head.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE");
        Self {
            up: Flow::new(),
            refused: false,
            upgrade: headers::wants_upgrade(head),
            idempotent,
            has_body: !matches!(head.length, Length::Unsaid | Length::Known(0)),
            continued: false,
            unsent: None,
        }
    }

    /// Says whether sending it twice does no harm and is possible.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.idempotent && !self.has_body
    }
}

/// When something last moved on the way of a request's body, and what is awaited now.
struct Pace {
    moved: Instant,
}

impl Pace {
    /// Until when the next thing must happen, and what it is when it does not.
    fn deadline(&self, up: &Flow, limits: &Limits) -> (Instant, Error) {
        let (answer, idle) = (millis(limits.router_first_byte_ms), millis(limits.router_idle_ms));
        match up.stage {
            Stage::Done => (self.moved + answer, Error::dyno(Kind::Unanswered)),
            Stage::Awaited => (self.moved + idle, Error::client(Kind::Idle)),
            // The dyno does not even read.
            Stage::Blocked => (self.moved + idle, Error::dyno(Kind::Unanswered)),
        }
    }
}

/// Sends the request and awaits the response's head, which is left in `head`.
///
/// # Errors
/// What went wrong, with whether the request may be sent again.
pub(crate) async fn run<D: Downstream>(
    exchange: &mut Exchange,
    client: &mut D,
    mut link: Link,
    outgoing: &mut Outgoing,
    head: &mut Head,
    alarm: &mut Alarm,
) -> Result<Link, Error> {
    let now = Instant::now();
    exchange.dispatched = Some(now);
    match outgoing.unsent.take() {
        Some(unsent) => {
            link.resume(unsent);
            if outgoing.up.is_done() {
                outgoing.up = Flow::new();
            }
        }
        None => link.begin(exchange, outgoing.upgrade).map_err(Error::dyno)?,
    }
    let mut pace = Pace { moved: now };
    let answered =
        poll_fn(|context| poll(context, exchange, client, &mut link, outgoing, head, &mut pace, alarm)).await;
    match answered {
        Ok(()) => Ok(link),
        Err(error) => {
            let lost = matches!(error.kind, Kind::ClosedEarly);
            if lost && link.is_kept() {
                outgoing.unsent = link.unsent(outgoing.is_repeatable());
            }
            outgoing.refused = false;
            let retry = if outgoing.unsent.is_some() { Retry::FreshConnection } else { Retry::Never };
            Err(error.retry(retry))
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "all parts of one exchange, borrowed for one poll")]
fn poll<D: Downstream>(
    context: &mut Context<'_>,
    exchange: &Exchange,
    client: &mut D,
    link: &mut Link,
    outgoing: &mut Outgoing,
    head: &mut Head,
    pace: &mut Pace,
    alarm: &mut Alarm,
) -> Poll<Result<(), Error>> {
    let limits = &exchange.router.limits;
    if !outgoing.refused {
        match pump(&mut outgoing.up, client, link, context) {
            Poll::Ready(Err(Torn::Source(Fail::Gone))) => return Poll::Ready(Err(Error::client(Kind::Closed))),
            Poll::Ready(Err(Torn::Source(Fail::Broken))) => {
                return Poll::Ready(Err(Error::client(Kind::BadRequest(Flaw::Chunk))));
            }
            // Perhaps it has answered before it closed.
            Poll::Ready(Err(Torn::Destination)) => outgoing.refused = true,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
    }
    if std::mem::take(&mut outgoing.up.moved) {
        pace.moved = Instant::now();
    }
    loop {
        match link.poll_head(context, limits, head) {
            Poll::Ready(Ok(())) if head.status >= 200 || head.status == 101 => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => {
                // One is enough, and the client may have been told by the router already.
                if head.status == 100 && std::mem::replace(&mut outgoing.continued, true) {
                    return Poll::Ready(Err(Error::dyno(Kind::Malformed)));
                }
                pace.moved = Instant::now();
                client.interim(context, head);
            }
            Poll::Ready(Err(kind)) => return Poll::Ready(Err(Error::dyno(kind))),
            Poll::Pending => break,
        }
    }
    if outgoing.up.is_done() && client.poll_gone(context).is_ready() {
        return Poll::Ready(Err(Error::client(Kind::Closed)));
    }
    let (deadline, error) = pace.deadline(&outgoing.up, limits);
    alarm.poll(context, deadline).map(|()| Err(error))
}
