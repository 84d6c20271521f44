//! Requests as spans: one of kind server for each line of the router.
//!
//! A request's id is its trace: what an app writes about the same `X-Request-Id` belongs to it. The ids follow from the
//! line alone, so a span that is sent again is the same span. What apps trace themselves goes from their own libraries
//! to the consumer and does not pass here.

use dozen_api::{drains::Drain, logs::Source};
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::{
    access::Access,
    proto::Message,
    signals::{envelope, nanos},
};
use crate::batch::Record;

const SERVER: u64 = 2; // SPAN_KIND_SERVER
const ERROR: u64 = 2; // STATUS_CODE_ERROR
const TRACE_ID: usize = 16;
const SPAN_ID: usize = 8;

/// Spans of the lines of one frame.
#[derive(Debug, Default)]
pub(crate) struct Spans(Message);

impl Spans {
    /// Appends a request's span, if the line is of one.
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        if record.source != Source::Heroku || record.process != b"router" {
            return;
        }
        let Some(access) = std::str::from_utf8(record.text).ok().and_then(Access::read) else { return };
        let id = access.text("request_id");
        let whole = digest(&SHA256, &[&record.at.to_le_bytes(), record.text].concat());
        let trace = match Uuid::parse_str(id) {
            Ok(id) => *id.as_bytes(),
            // A client's own: any text that it liked.
            Err(_) => digest(&SHA256, id.as_bytes()).as_ref().first_chunk::<TRACE_ID>().copied().unwrap_or_default(),
        };
        let micros = (access.seconds.unwrap_or(0.0) * 1e6) as i64;
        let status: u64 = access.text("status").parse().unwrap_or(0);
        let failed = access.text("at") == "error" || status >= 500;
        self.0.message(2, |span| {
            span.bytes(1, &trace);
            span.bytes(2, &whole.as_ref()[..SPAN_ID]);
            span.bytes(5, access.text("method").as_bytes());
            span.number(6, SERVER);
            span.fixed(7, nanos(record.at - micros));
            span.fixed(8, nanos(record.at));
            let (path, query) = access.text("path").split_once('?').unwrap_or((access.text("path"), ""));
            let client = access.text("fwd").split(',').next().unwrap_or_default().trim();
            let attributes = [
                ("http.request.method", access.text("method")),
                ("url.path", path),
                ("url.query", query),
                ("server.address", access.text("host")),
                ("client.address", client),
                ("heroku.dyno.name", access.text("dyno")),
                ("heroku.request.id", id),
                ("error.type", access.text("code")),
            ];
            for (name, value) in attributes.into_iter().filter(|(_, value)| !value.is_empty()) {
                span.attribute(9, name, value.as_bytes());
            }
            span.message(9, |pair| {
                pair.bytes(1, b"http.response.status_code");
                pair.message(2, |any| any.number(3, status));
            });
            if failed {
                span.message(15, |outcome| {
                    outcome.bytes(2, access.text("desc").as_bytes());
                    outcome.number(3, ERROR);
                });
            }
        });
    }

    /// An `ExportTraceServiceRequest`; `None` when there was no request.
    pub(crate) fn request(&self, drain: &Drain) -> Option<Vec<u8>> {
        let spans = &self.0.0;
        (!spans.is_empty()).then(|| envelope(drain, |scope| scope.0.extend_from_slice(spans)))
    }
}
