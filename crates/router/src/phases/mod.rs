//! A request's way through the router, one phase a file, always in this order:
//!
//! ```text
//! accept ──> lookup ──> checkout ──> connect ──> forward ──> respond
//!  limits,    host to     choose an    kept or     head and     head back, body
//!  host, id   app, mode   up dyno,     fresh       body out,    streamed, line
//!                         or wait      connection  await head   written at its end
//!                            ^            │            │
//!                            └────────────┴────────────┘  only while the dyno has seen nothing
//! ```
//!
//! A phase takes the [`Exchange`] and either fills in its part or fails with an [`Error`], which [`respond`] makes
//! into an answer. No phase asks another process anything.

pub(crate) mod accept;
pub(crate) mod checkout;
pub(crate) mod connect;
pub(crate) mod forward;
pub(crate) mod lookup;
pub(crate) mod respond;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use crate::{
    Router,
    alarm::Alarm,
    downstream::Downstream,
    edge,
    error::{Error, Flaw, Retry},
    exchange::{Client, Exchange},
    link::Link,
    upstreams::Protocol,
    wire::head::Head,
};

use self::{checkout::Attempts, forward::Outgoing};

/// What a connection keeps for its requests.
#[derive(Default)]
pub(crate) struct Workspace {
    pub(crate) request: Head,
    response: Head,
    pub(crate) alarm: Alarm,
}

impl Workspace {
    /// Gives back the memory that a waiting connection does not need.
    pub(crate) fn rest(&mut self) {
        self.request.clear();
        self.response.clear();
    }
}

/// Answers one request, whose head is in the workspace.
pub(crate) async fn handle<D: Downstream>(
    router: &Arc<Router>,
    peer: &Arc<Client>,
    client: &mut D,
    work: &mut Workspace,
    judged: Result<(), Flaw>,
) {
    let head = std::mem::take(&mut work.request);
    let (mut exchange, accepted) = accept::run(router.clone(), peer.clone(), head, judged);
    if let Some(answer) = edge::answers::challenge(&mut exchange) {
        respond::own(&mut exchange, client, &answer).await;
    } else if let Err(error) = serve(&mut exchange, client, work, accepted).await {
        respond::failure(&mut exchange, client, error).await;
    }
    work.request = std::mem::take(&mut exchange.head);
}

async fn serve<D: Downstream>(
    exchange: &mut Exchange,
    client: &mut D,
    work: &mut Workspace,
    accepted: Result<(), Error>,
) -> Result<(), Error> {
    let app = watched(client, lookup::run(exchange, accepted)).await?;
    exchange.wanted = edge::affinity::wanted(&app, &exchange.head);
    exchange.router.metrics.note(&app);
    let mut attempts = Attempts::new(exchange);
    let mut outgoing = Outgoing::new(exchange);
    let view = app.view();
    let protocol = Protocol::of(&view.app, outgoing.upgrade);
    if view.app.dialogue.end_to_end_continue && protocol != Protocol::Http2 && exchange.head.expects() && client.owes()
    {
        exchange.expects = true;
        client.defer();
    }
    drop(view);
    loop {
        let link = watched(client, reach(exchange, &app, &mut attempts, &outgoing, protocol)).await?;
        match forward::run(exchange, client, link, &mut outgoing, &mut work.response, &mut work.alarm).await {
            Ok(link) => {
                return respond::answer(exchange, client, link, outgoing, &work.response, &mut work.alarm).await;
            }
            Err(error) if error.retry == Retry::FreshConnection => attempts.fresh = true,
            Err(error) => return Err(error),
        }
        exchange.dispatched = None;
    }
}

/// Gets a connection to one of the app's dynos.
async fn reach(
    exchange: &mut Exchange,
    app: &crate::table::App,
    attempts: &mut Attempts,
    outgoing: &Outgoing,
    protocol: Protocol,
) -> Result<Link, Error> {
    loop {
        let dyno = checkout::run(app, attempts).await?;
        exchange.dyno = Some(dyno.clone());
        match connect::run(exchange, &dyno, protocol, outgoing, attempts).await {
            Err(error) if error.retry == Retry::OtherDyno => attempts.failed(&dyno, error)?,
            reached => return reached,
        }
    }
}

/// Does something for a client for as long as it is there.
async fn watched<D: Downstream, T>(client: &mut D, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut work = pin!(work);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Pending if client.poll_gone(context).is_ready() => Poll::Ready(Err(Error::client(client.lost()))),
        polled => polled,
    })
    .await
}
