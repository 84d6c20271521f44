//! Phase 5: hands the request to the dyno and awaits the head of its response.
//!
//! The body is streamed meanwhile, and this phase keeps the time: 55 s of silence from a client that still owes a part
//! of its body (H28), 30 s from a dyno that has everything (H12). A request is sent again only when the dyno cannot
//! have acted on it: nothing of it was written, or it is idempotent, has no body, went over a kept connection, and not
//! one byte came back.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
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
    phases::lookup,
    table::App,
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
    /// How many interim answers it has given.
    interims: u64,
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
            interims: 0,
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
    /// When the body was last weighed, and how much of it there was.
    weighed: (Instant, u64),
}

impl Pace {
    fn new(now: Instant, bytes: u64) -> Self {
        Self { moved: now, weighed: (now, bytes) }
    }

    /// Until when the next thing must happen, and what it is when it does not. `asked`: the dyno is asked whether the
    /// client is to send its body.
    fn deadline(&self, up: &Flow, asked: bool, limits: &Limits) -> (Instant, Error) {
        let (answer, idle) = (millis(limits.router_first_byte_ms), millis(limits.router_idle_ms));
        match up.stage {
            Stage::Done => (self.moved + answer, Error::dyno(Kind::Unanswered)),
            Stage::Awaited if asked && up.bytes == 0 => (self.moved + answer, Error::dyno(Kind::Unanswered)),
            Stage::Awaited => (self.moved + idle, Error::client(Kind::Idle)),
            // The dyno does not even read.
            Stage::Blocked => (self.moved + idle, Error::dyno(Kind::Unanswered)),
        }
    }

    /// Ready with the failure when the next thing has not happened in time.
    ///
    /// A body that drips keeps a place in the app's backlog for nothing. That is nobody's business until places become
    /// rare: then it has to bring something.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        exchange: &Exchange,
        up: &Flow,
        asked: bool,
        alarm: &mut Alarm,
    ) -> Poll<Error> {
        let limits = &exchange.router.limits;
        let (deadline, error) = self.deadline(up, asked, limits);
        if up.stage != Stage::Awaited {
            return alarm.poll(context, deadline).map(|()| error);
        }
        let window = millis(limits.router_idle_ms);
        loop {
            let weigh = self.weighed.0 + window;
            ready!(alarm.poll(context, deadline.min(weigh)));
            if deadline <= weigh {
                return Poll::Ready(error);
            }
            let least = limits.router_body_rate_bytes.saturating_mul(window.as_secs().max(1));
            if up.bytes - self.weighed.1 < least && exchange.app.as_ref().is_some_and(|app| is_pressed(app, limits)) {
                return Poll::Ready(Error::client(Kind::Idle));
            }
            self.weighed = (Instant::now(), up.bytes);
        }
    }
}

/// Says whether half of an app's backlog is taken.
fn is_pressed(app: &App, limits: &Limits) -> bool {
    app.waiting().saturating_mul(2) >= lookup::backlog(&app.view(), limits)
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
    let mut pace = Pace::new(now, outgoing.up.bytes);
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
            Poll::Ready(Err(Torn::Source(Fail::Gone))) => return Poll::Ready(Err(Error::client(client.lost()))),
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
                outgoing.interims += 1;
                let again = head.status == 100 && std::mem::replace(&mut outgoing.continued, true);
                // Nor may they go on for ever, in the memory of a client that does not read.
                if again || outgoing.interims > limits.router_interim_answers {
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
        return Poll::Ready(Err(Error::client(client.lost())));
    }
    let asked = exchange.expects && !outgoing.continued;
    pace.poll(context, exchange, &outgoing.up, asked, alarm).map(Err)
}
