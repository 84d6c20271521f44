//! Phase 1: judges the request's head, gives the request its id and its start time.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    Router,
    error::{Error, Flaw, Kind},
    exchange::{Client, Exchange},
    headers,
    wire::head::Head,
};

/// Makes the request's context, with what is wrong with it: an app whose host is readable is told of bad requests.
pub(crate) fn run(
    router: Arc<Router>,
    client: Arc<Client>,
    head: Head,
    judged: Result<(), Flaw>,
) -> (Exchange, Result<(), Error>) {
    let host = headers::host(&head);
    let accepted = match judged {
        // Of a head that is not whole nothing can be missing.
        Err(Flaw::Slow) => judged,
        _ => host.as_ref().map(|_| ()).map_err(|flaw| *flaw).and(judged),
    };
    let exchange = Exchange {
        started: Instant::now(),
        host: host.unwrap_or_default(),
        request_id: headers::request_id(&head),
        forwarded: headers::forwarded(&head, &client.address),
        head,
        app: None,
        open: None,
        waiting: None,
        expects: false,
        wanted: None,
        dyno: None,
        connect: None,
        dispatched: None,
        status: 0,
        bytes: 0,
        logged: false,
        router,
        client,
    };
    (exchange, accepted.map_err(|flaw| Error::client(Kind::BadRequest(flaw))))
}
