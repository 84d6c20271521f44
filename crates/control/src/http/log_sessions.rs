//! `/apps/{app}/log-sessions`, and the stream that a session's URL leads to (server-sent events).

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use dozen_api::{
    clock::rfc3339_seconds,
    log_session::open_session,
    logs::{Place, Sent},
    platform::log_session::LogSession as View,
};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::Member,
};
use crate::{
    ops::{
        self,
        log_sessions::{New, Redeemed, event_id},
    },
    state::Context,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const KEEP_ALIVE: Duration = Duration::from_secs(15); // proxies and the client's 60 s of silence
const PIECE: usize = 16 << 10; // bytes of lines that are sent together

/// `POST /apps/{app}/log-sessions`
pub async fn create(State(context): State<Context>, member: Member, Json(new): Json<New>) -> Result {
    let opened = ops::log_sessions::create(&context, &member.app, &member.account, new)?;
    let created_at = rfc3339_seconds(opened.created_at);
    let view =
        View { created_at: created_at.clone(), id: opened.id.0, logplex_url: opened.url, updated_at: created_at };
    Ok(Reply::created(&view))
}

/// Query of a session's URL.
#[derive(Debug, Deserialize)]
pub struct Ticket {
    #[serde(default)]
    token: String,
}

/// `GET /logs/stream`: the URL carries its secret, so there are no credentials.
pub async fn stream(
    State(context): State<Context>,
    Query(ticket): Query<Ticket>,
    headers: HeaderMap,
) -> Result<Response> {
    let last = headers.get(LAST_EVENT_ID).and_then(|id| Some(id.to_str().ok()?.trim()));
    let Redeemed { session, visa } = ops::log_sessions::redeem(&context, &ticket.token, last).await?;
    let tail = session.tail;
    let lines = open_session(context.settings.data_dir.join("run/logs.sock"), session);
    let mut response = Body::from_stream(events(lines, visa, tail, KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Lines as events. Without `tail` the first thing said is `retry: 1`: the official client then leaves at once when the
/// stream ends, in place of waiting three seconds for a reconnect that it does not make.
fn events(
    lines: impl Stream<Item = std::io::Result<Sent>> + Send + 'static,
    visa: String,
    tail: bool,
    keep_alive: Duration,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let first = Bytes::from_static(if tail { b": hello\n\n" } else { b"retry: 1\n\n" });
    // Lines that are ready together go out together.
    let lines = Box::pin(lines.ready_chunks(128));
    let rest = stream::unfold(Some((lines, visa)), move |state| async move {
        let (mut lines, visa) = state?;
        let Ok(next) = timeout(keep_alive, lines.next()).await else {
            return Some((Ok(Bytes::from_static(b": keep-alive\n\n")), Some((lines, visa))));
        };
        let mut piece = Vec::with_capacity(PIECE);
        for sent in next? {
            match sent {
                Ok(Sent::Line { place, text }) => event(&mut piece, place, &visa, &text),
                // An id without data: a client that has seen no line yet goes on from here as well.
                Ok(Sent::Caught { end: Some(end) }) if tail => {
                    field_id(&mut piece, end, &visa);
                    piece.push(b'\n');
                }
                Ok(Sent::Caught { .. }) => {}
                Err(error) => return Some((Err(error), None)),
            }
        }
        Some((Ok(piece.into()), Some((lines, visa))))
    });
    stream::once(async move { Ok(first) }).chain(rest.filter(|piece| {
        let empty = matches!(piece, Ok(bytes) if bytes.is_empty());
        std::future::ready(!empty)
    }))
}

/// One event. A bare carriage return would end the line, and with it smuggle fields in.
fn event(piece: &mut Vec<u8>, place: Place, visa: &str, text: &str) {
    field_id(piece, place, visa);
    for line in text.split(['\r', '\n']).filter(|line| !line.is_empty()) {
        piece.extend_from_slice(b"data: ");
        piece.extend_from_slice(line.as_bytes());
        piece.push(b'\n');
    }
    piece.push(b'\n');
}

fn field_id(piece: &mut Vec<u8>, place: Place, visa: &str) {
    piece.extend_from_slice(b"id: ");
    piece.extend_from_slice(event_id(place, visa).as_bytes());
    piece.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(sent: Vec<Sent>, tail: bool) -> String {
        let pieces: Vec<_> =
            events(stream::iter(sent.into_iter().map(Ok)), "v".to_owned(), tail, KEEP_ALIVE).collect().await;
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.expect("a piece")).collect();
        String::from_utf8(bytes).expect("text")
    }

    fn line(sequence: u64, text: &str) -> Sent {
        Sent::Line { place: place(sequence), text: text.to_owned() }
    }

    fn place(sequence: u64) -> Place {
        Place { sequence, ordinal: None }
    }

    #[tokio::test]
    async fn history_is_events_with_ids_and_the_client_leaves_at_once() {
        let sent = vec![line(7, "2026 app[web.1]: one"), line(9, "two"), Sent::Caught { end: Some(place(9)) }];
        let expected = "retry: 1\n\nid: 7.v\ndata: 2026 app[web.1]: one\n\nid: 9.v\ndata: two\n\n";
        assert_eq!(text(sent, false).await, expected);
    }

    #[tokio::test]
    async fn a_tail_keeps_the_clients_own_retry() {
        let sent = vec![Sent::Caught { end: Some(place(0)) }, line(1, "x"), Sent::Caught { end: None }];
        assert_eq!(text(sent, true).await, ": hello\n\nid: 0.v\n\nid: 1.v\ndata: x\n\n");
    }

    #[tokio::test]
    async fn a_line_cannot_smuggle_in_another_event() {
        let answer = text(vec![line(1, "progress\rid: 99\r\revent: x")], true).await;
        assert_eq!(answer, ": hello\n\nid: 1.v\ndata: progress\ndata: id: 99\ndata: event: x\n\n");
    }

    #[tokio::test]
    async fn silence_is_filled_with_comments() {
        let mut events = Box::pin(events(stream::pending(), String::new(), true, Duration::from_millis(1)));
        assert_eq!(events.next().await.expect("one").expect("bytes"), ": hello\n\n");
        assert_eq!(events.next().await.expect("one").expect("bytes"), ": keep-alive\n\n");
        assert_eq!(events.next().await.expect("one").expect("bytes"), ": keep-alive\n\n");
    }
}
