//! Phase 5: hands the request to the dyno and awaits the head of its response.
//!
//! The body is streamed by the connection's own task; this phase keeps the time: 55 s of silence from a client that
//! still owes a part of its body (H28), 30 s from a dyno that has everything (H12). A request is sent again only when
//! the dyno cannot have acted on it: it was never written, or it is idempotent, has no body, went over a kept
//! connection, and not one byte came back.

use std::{future::Future, sync::Arc};

use dozen_domain::limits::millis;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header::HOST, response, uri::PathAndQuery,
};
use http_body::Body;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::{Instant, sleep_until};

use crate::{
    body::{Progress, Stage, Upload},
    error::{Error, Kind, Restriction, Retry},
    exchange::Exchange,
    headers::{self, Origin},
    upstreams::{Connection, Meter},
};

/// The request as the dyno gets it.
pub(crate) struct Outgoing {
    request: Option<Request<Upload>>,
    progress: Option<Arc<Progress>>,
    upgrade: Option<OnUpgrade>,
    repeatable: bool,
}

impl Outgoing {
    /// Makes the dyno's request out of the client's.
    pub(crate) fn new(exchange: &Exchange, mut request: Request<Incoming>) -> Self {
        let upgrade = headers::wants_upgrade(&request).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let body_comes = !body.is_end_stream();
        let mut fields = parts.headers;
        headers::to_dyno(
            &mut fields,
            &Origin {
                forwarded: &exchange.forwarded,
                request_id: &exchange.request_id,
                port: &exchange.client.port,
                tls: exchange.client.tls,
                upgrade: upgrade.is_some(),
                chunked: body_comes && body.size_hint().exact().is_none(),
            },
        );
        if let (Version::HTTP_2, Some(authority)) = (parts.version, parts.uri.authority())
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            fields.insert(HOST, host);
        }
        let upload = Upload::new(body);
        let progress = upload.progress();
        let mut request = Request::new(upload);
        let target = exchange.target.clone().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(target);
        *request.headers_mut() = fields;
        let idempotent = matches!(
            parts.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
        );
        *request.method_mut() = parts.method;
        Self { request: Some(request), progress, upgrade, repeatable: idempotent && !body_comes }
    }

    /// Says whether sending it twice does no harm and is possible.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.repeatable
    }
}

fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// What a dyno answered.
pub(crate) enum Answer {
    /// A response.
    Response {
        parts: response::Parts,
        body: Incoming,
        /// The connection, where it may carry another request afterwards.
        connection: Option<Connection>,
        upload: Option<Arc<Progress>>,
    },
    /// Another protocol from here on.
    Tunnel { parts: response::Parts, client: OnUpgrade, dyno: OnUpgrade },
}

/// Sends the request and awaits the response's head.
pub(crate) async fn run(
    exchange: &mut Exchange,
    mut connection: Connection,
    outgoing: &mut Outgoing,
) -> Result<Answer, Error> {
    let request = outgoing.request.take().ok_or(Error::router(Kind::Internal))?;
    let spare = (connection.kept && outgoing.repeatable).then(|| copy(&request));
    connection.meter.reset();
    exchange.dispatched = Some(Instant::now());
    let sent = connection.sender.try_send_request(request);
    let upload = outgoing.progress.clone();
    let mut failed = match first_byte(exchange, upload.as_deref(), sent).await? {
        Ok(response) => return answer(exchange, connection, outgoing, response),
        Err(failed) => failed,
    };
    let error = failed.error();
    tracing::debug!(%error, "a dyno did not answer");
    if let Some(error) = upload.and_then(|upload| upload.failure()) {
        return Err(error);
    }
    let kind = diagnose(error, &connection.meter);
    // Never written, or harmless to send twice and without a byte of an answer.
    let unsent = failed.take_message().filter(|_| connection.kept);
    outgoing.request = unsent.or(spare.filter(|_| connection.meter.bytes() == 0));
    let retry = if outgoing.request.is_some() { Retry::FreshConnection } else { Retry::Never };
    Err(Error::dyno(kind).retry(retry))
}

/// Awaits the response for as long as the two sides may take.
async fn first_byte<F: Future>(
    exchange: &Exchange,
    upload: Option<&Progress>,
    response: F,
) -> Result<F::Output, Error> {
    let limits = &exchange.router.limits;
    let (answer, idle) = (millis(limits.router_first_byte_ms), millis(limits.router_idle_ms));
    let sent = exchange.dispatched.unwrap_or(exchange.started);
    let mut response = std::pin::pin!(response);
    loop {
        let (deadline, kind) = match upload.map(|upload| (upload.stage(), upload.moved().max(sent))) {
            None => (sent + answer, Error::dyno(Kind::Unanswered)),
            Some((Stage::Done, moved)) => (moved + answer, Error::dyno(Kind::Unanswered)),
            Some((Stage::Awaited, moved)) => (moved + idle, Error::client(Kind::Idle)),
            // The dyno does not even read; or its connection is about to report the client's failure.
            Some((_, moved)) => (moved + idle, Error::dyno(Kind::Unanswered)),
        };
        if deadline <= Instant::now() {
            return Err(kind);
        }
        tokio::select! {
            biased;
            response = &mut response => return Ok(response),
            () = async {
                match upload {
                    Some(upload) => upload.changed().notified().await,
                    None => std::future::pending().await,
                }
            } => {}
            () = sleep_until(deadline) => {}
        }
    }
}

fn diagnose(error: &hyper::Error, meter: &Meter) -> Kind {
    if meter.bytes() == 0 {
        Kind::ClosedEarly
    } else if error.is_parse_too_large() {
        Kind::Restricted(Restriction::Header)
    } else if error.is_parse() {
        // The parser names the field only in its text.
        if error.to_string().contains("content-length") {
            Kind::Restricted(Restriction::ContentLength)
        } else {
            Kind::Malformed
        }
    } else {
        Kind::Closed
    }
}

fn answer(
    exchange: &mut Exchange,
    connection: Connection,
    outgoing: &mut Outgoing,
    mut response: Response<Incoming>,
) -> Result<Answer, Error> {
    let malformed = Error::dyno(Kind::Malformed);
    if !connection.meter.has_reason() || !headers::is_framed(response.headers()) {
        return Err(malformed);
    }
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let dyno = switches.then(|| hyper::upgrade::on(&mut response));
    let (parts, body) = response.into_parts();
    headers::check_response(&parts, &exchange.router.limits)
        .map_err(|restriction| Error::dyno(Kind::Restricted(restriction)))?;
    exchange.waiting = None;
    exchange.status = parts.status.as_u16();
    match dyno {
        None => {
            let connection = headers::keeps_open(&parts).then_some(connection);
            Ok(Answer::Response { parts, body, connection, upload: outgoing.progress.take() })
        }
        Some(dyno) => {
            let client = outgoing.upgrade.take().ok_or(malformed)?;
            Ok(Answer::Tunnel { parts, client, dyno })
        }
    }
}
