//! Phase 6: the head of the answer to the client, and behind it the dyno's body, a tunnel, or a page.

use http::{
    HeaderValue, Method, Response, StatusCode, Version,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SERVER, VIA},
};
use std::sync::atomic::Ordering;
use tokio::time::Instant;

use crate::{
    body::{Download, Reply},
    edge,
    error::{Blame, Error, Kind},
    exchange::Exchange,
    headers,
    pages::Page,
    phases::forward::Answer,
    tunnel,
};

/// Passes a dyno's answer on; its access line is written when the body has ended.
pub(crate) fn answer(exchange: Exchange, answer: Answer) -> Response<Reply> {
    match answer {
        Answer::Response { mut parts, body, connection, upload } => {
            headers::to_client(&mut parts.headers, false);
            // Of the two connections each has its own version.
            parts.version = Version::HTTP_11;
            let mut download =
                Box::new(Download { body, exchange, connection, upload, moved: Instant::now(), silence: None });
            download.complete_if_empty();
            Response::from_parts(parts, Reply::Download(download))
        }
        Answer::Tunnel { mut parts, client, dyno } => {
            headers::to_client(&mut parts.headers, true);
            parts.version = Version::HTTP_11;
            let tasks = exchange.router.tasks.clone();
            tasks.spawn(tunnel::run(exchange, client, dyno));
            Response::from_parts(parts, Reply::Page(None))
        }
    }
}

/// Answers with the page of a failure and writes its access line.
pub(crate) fn failure(mut exchange: Exchange, error: Error) -> Response<Reply> {
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
        Some(499) => StatusCode::REQUEST_TIMEOUT,
        Some(status) => StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        None => StatusCode::SERVICE_UNAVAILABLE,
    };
    exchange.finish(Some(&error));
    // A body may still be coming, and a close with unread bytes would take this answer with it.
    exchange.client.linger.store(true, Ordering::Relaxed);
    let mut response = Response::new(Reply::Page(None));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    fields.insert(SERVER, HeaderValue::from_static("Heroku"));
    fields.insert(VIA, HeaderValue::from_static("1.1 heroku-router"));
    if error.kind == Kind::Insecure {
        edge::answers::redirected(&exchange, fields);
    }
    if error.blame == Blame::Client && error.kind != Kind::NoSuchApp || exchange.client.excess {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if exchange.method == Method::HEAD {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(page.len()));
    } else {
        *response.body_mut() = Reply::Page(Some(page));
    }
    response
}
