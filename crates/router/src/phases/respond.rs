//! Phase 6: the head of the answer to the client, and behind it the dyno's body, bytes of another protocol, or a page.
//!
//! Bodies may still go in both directions. 55 s of silence on both end the exchange, on account of the side that was
//! awaited (H15, H28).

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use dozen_domain::limits::millis;
use tokio::time::{Instant, timeout};

use crate::{
    alarm::Alarm,
    downstream::{Content, Downstream, Start, send_all},
    edge,
    error::{Blame, Error, Flaw, Kind},
    exchange::Exchange,
    headers,
    link::Link,
    pages::Page,
    phases::forward::Outgoing,
    wire::{
        Fail, Flow, Stage, Torn,
        head::{Head, Length},
        http2::Fields as _,
        pump,
    },
};

/// What is going on between the two sides.
struct Relay<'a, D> {
    exchange: &'a mut Exchange,
    client: &'a mut D,
    link: &'a mut Link,
    up: Flow,
    down: Flow,
    /// The dyno takes no more of the request.
    refused: bool,
    tunnel: bool,
    moved: Instant,
}

/// Passes a dyno's answer on to its end and writes the access line.
pub(crate) async fn answer<D: Downstream>(
    exchange: &mut Exchange,
    client: &mut D,
    mut link: Link,
    outgoing: Outgoing,
    head: &Head,
    alarm: &mut Alarm,
) -> Result<(), Error> {
    let tunnel = head.status == 101;
    if tunnel && !outgoing.upgrade {
        return Err(Error::dyno(Kind::Malformed));
    }
    exchange.waiting = None;
    exchange.status = head.status;
    let content = content(exchange, head);
    if client.owes() && !tunnel {
        // Whether it will still be read to its end nobody knows.
        client.close();
    }
    let start = Start { status: head.status, reason: head.reason(), content };
    let begun = client.answer(start, |fields| {
        headers::to_client(head, tunnel, fields);
        edge::affinity::keep(exchange, fields);
    });
    let mut relay = Relay {
        up: outgoing.up,
        down: Flow::new(),
        refused: outgoing.refused,
        tunnel,
        moved: Instant::now(),
        exchange,
        client,
        link: &mut link,
    };
    if tunnel {
        relay.client.switch();
        relay.link.switch();
        (relay.up, relay.refused) = (Flow::new(), false);
    } else {
        relay.link.expect(if matches!(content, Content::Nothing(_)) { Length::Known(0) } else { head.length });
    }
    let ended = match begun {
        Ok(()) => poll_fn(|context| relay.poll(context, alarm)).await,
        Err(_refused) => Err(Error::dyno(Kind::Malformed)),
    };
    let sent = relay.up.is_done();
    exchange.bytes = relay.down.bytes;
    match ended {
        Ok(()) => {
            exchange.finish(None);
            if let Some(dyno) = exchange.dyno.as_ref().filter(|_| sent && !tunnel && headers::keeps_open(head)) {
                dyno.checkin(link, &exchange.router.limits);
            }
        }
        Err(error) => {
            client.abort();
            exchange.finish(Some(&error));
        }
    }
    Ok(())
}

fn content(exchange: &Exchange, head: &Head) -> Content {
    let said = match head.length {
        Length::Known(length) => Some(length),
        Length::Chunked | Length::Unsaid => None,
    };
    match head.status {
        101 => Content::Switched,
        204 => Content::Nothing(None),
        304 => Content::Nothing(said),
        _ if exchange.head.method() == b"HEAD" => Content::Nothing(said),
        _ => said.map_or(Content::Open, Content::Known),
    }
}

impl<D: Downstream> Relay<'_, D> {
    fn poll(&mut self, context: &mut Context<'_>, alarm: &mut Alarm) -> Poll<Result<(), Error>> {
        if !self.refused {
            match pump(&mut self.up, self.client, self.link, context) {
                Poll::Ready(Err(Torn::Source(Fail::Gone))) if self.tunnel => return Poll::Ready(Ok(())),
                Poll::Ready(Err(Torn::Source(Fail::Gone))) => {
                    return Poll::Ready(Err(Error::client(self.client.lost())));
                }
                Poll::Ready(Err(Torn::Source(Fail::Broken))) => {
                    return Poll::Ready(Err(Error::client(Kind::BadRequest(Flaw::Chunk))));
                }
                // It may still answer.
                Poll::Ready(Err(Torn::Destination)) => self.refused = true,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        match pump(&mut self.down, self.link, self.client, context) {
            Poll::Ready(Ok(())) if !self.tunnel || self.up.is_done() || self.refused => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Torn::Source(_))) => return Poll::Ready(Err(Error::dyno(Kind::Closed))),
            // A client that goes away is how most tunnels end.
            Poll::Ready(Err(Torn::Destination)) if self.tunnel => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Torn::Destination)) => return Poll::Ready(Err(Error::client(self.client.lost()))),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if !self.tunnel && self.up.is_done() && self.client.poll_gone(context).is_ready() {
            return Poll::Ready(Err(Error::client(self.client.lost())));
        }
        if std::mem::take(&mut self.up.moved) | std::mem::take(&mut self.down.moved) {
            self.moved = Instant::now();
        }
        let idle = millis(self.exchange.router.limits.router_idle_ms);
        alarm.poll(context, self.moved + idle).map(|()| Err(self.silent()))
    }

    /// Whose silence it was.
    fn silent(&self) -> Error {
        let owed = !self.tunnel && !self.refused && self.up.stage == Stage::Awaited;
        if owed || self.down.stage == Stage::Blocked { Error::client(Kind::Idle) } else { Error::dyno(Kind::Idle) }
    }
}

/// Answers with the page of a failure and writes its access line.
pub(crate) async fn failure<D: Downstream>(exchange: &mut Exchange, client: &mut D, error: Error) {
    let verdict = error.verdict();
    let view = exchange.app.as_ref().map(|app| app.view());
    let own = view.as_ref().and_then(|view| match verdict.page {
        Page::ApplicationError => view.app.error_page_url.as_deref(),
        Page::Maintenance => view.app.maintenance_page_url.as_deref(),
        _ => None,
    });
    let page = verdict.page.html(own);
    let status = match verdict.status {
        // The line's word for a client's failure is no status that may go over the wire.
        Some(499) => 408,
        Some(status) => status,
        None => 503,
    };
    exchange.finish(Some(&error));
    // A body may still be coming, and a close with unread bytes would take this answer with it.
    if (error.blame == Blame::Client && error.kind != Kind::NoSuchApp) || exchange.client.excess || client.owes() {
        client.close();
    }
    let location = (error.kind == Kind::Insecure).then(|| edge::answers::redirected(exchange));
    send(exchange, client, status, &page, |fields| {
        headers::to_page(b"text/html; charset=utf-8", fields);
        location.iter().for_each(|location| fields.put(b"location", location));
    })
    .await;
}

/// Answers with what the router itself has to say in an app's name, and writes the access line.
pub(crate) async fn own<D: Downstream>(exchange: &mut Exchange, client: &mut D, text: &[u8]) {
    exchange.status = 200;
    exchange.finish(None);
    if client.owes() {
        client.close();
    }
    send(exchange, client, 200, text, |fields| headers::to_page(b"application/octet-stream", fields)).await;
}

async fn send<D: Downstream>(
    exchange: &Exchange,
    client: &mut D,
    status: u16,
    body: &[u8],
    fields: impl FnOnce(&mut D::Fields),
) {
    let length = body.len() as u64;
    let head = exchange.head.method() == b"HEAD";
    let content = if head { Content::Nothing(Some(length)) } else { Content::Known(length) };
    let sent = async {
        client.answer(Start { status, reason: b"", content }, fields)?;
        send_all(client, if head { &[] } else { body }).await
    };
    let limit = millis(exchange.router.limits.router_idle_ms);
    if !matches!(timeout(limit, sent).await, Ok(io::Result::Ok(()))) {
        client.abort();
    }
}
