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

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::{
    Router,
    body::Reply,
    edge,
    error::{Error, Retry},
    exchange::{Client, Exchange},
};

use self::{checkout::Attempts, forward::Outgoing};

/// Answers one request.
pub(crate) async fn handle(router: Arc<Router>, client: Arc<Client>, request: Request<Incoming>) -> Response<Reply> {
    let (mut exchange, accepted) = accept::run(router, client, &request);
    if let Some(answer) = edge::answers::challenge(&mut exchange) {
        return answer;
    }
    match serve(&mut exchange, accepted, request).await {
        Ok(answer) => respond::answer(exchange, answer),
        Err(error) => respond::failure(exchange, error),
    }
}

async fn serve(
    exchange: &mut Exchange,
    accepted: Result<(), Error>,
    request: Request<Incoming>,
) -> Result<forward::Answer, Error> {
    let app = lookup::run(exchange, accepted).await?;
    let mut attempts = Attempts::new(exchange);
    let mut outgoing = Outgoing::new(exchange, request);
    loop {
        let dyno = checkout::run(&app, &mut attempts).await?;
        exchange.dyno = Some(dyno.clone());
        let error = match connect::run(exchange, &dyno, &outgoing, &attempts).await {
            Ok(connection) => match forward::run(exchange, connection, &mut outgoing).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error.retry {
            Retry::Never => return Err(error),
            Retry::OtherDyno => attempts.failed(&dyno, error)?,
            Retry::FreshConnection => attempts.fresh = true,
        }
        exchange.dispatched = None;
    }
}
