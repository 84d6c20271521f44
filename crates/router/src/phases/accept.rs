//! Phase 1: reads the head, checks it against the limits, gives the request its id and its start time.

use std::sync::{Arc, atomic::Ordering};

use http::Request;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    Router, edge,
    error::{Error, Kind},
    exchange::{Client, Exchange},
    headers,
};

/// Makes the request's context, with what is wrong with it: an app whose host is readable is told of bad requests.
pub(crate) fn run(
    router: Arc<Router>,
    client: Arc<Client>,
    request: &Request<Incoming>,
) -> (Exchange, Result<(), Error>) {
    let host = headers::host(request);
    let checked = headers::check_request(request, &router.limits);
    let accepted = host.as_ref().map(|_| ()).map_err(|flaw| *flaw).and(checked);
    client.begun.fetch_add(1, Ordering::Relaxed);
    let mut exchange = Exchange {
        started: Instant::now(),
        method: request.method().clone(),
        target: request.uri().path_and_query().cloned(),
        host: host.unwrap_or_default(),
        request_id: headers::request_id(request.headers()),
        forwarded: headers::forwarded(request.headers(), &client.address),
        agent: None,
        app: None,
        waiting: None,
        dyno: None,
        connect: None,
        dispatched: None,
        status: 0,
        bytes: 0,
        logged: false,
        router,
        client,
    };
    edge::guard::note(&mut exchange, request.headers());
    (exchange, accepted.map_err(|flaw| Error::client(Kind::BadRequest(flaw))))
}
