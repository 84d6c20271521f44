//! A telemetry drain: OTLP over HTTP (protocol buffers in POST requests) or gRPC.
//!
//! A frame of lines becomes up to three requests, one a signal; the frame is through when each of them is. What is worth
//! another try is what the OTLP specification calls retryable; the rest is dropped, counted, and told in the next frame.

mod access;
mod proto;
mod signals;
mod spans;

use std::io;

use bytes::Bytes;
use data_encoding::BASE64;
use dozen_api::drains::{Address, Protocol, Telemetry};
use dozen_domain::limits::{millis, seconds};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;

use self::{
    proto::{Value, fields},
    signals::Metrics,
    spans::Spans,
};
use super::{
    Failure, Task,
    request::{Answer, Client},
};

const USER_AGENT: &str = concat!("dozen/", env!("CARGO_PKG_VERSION"));
/// gRPC's codes that the OTLP specification says to retry: cancelled, deadline exceeded, aborted, out of range,
/// unavailable, data loss.
const RETRYABLE: [&str; 6] = ["1", "4", "10", "11", "14", "15"];

/// A kind of telemetry that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Logs,
    Metrics,
    Traces,
}

impl Signal {
    /// The last word of an endpoint's path.
    fn path(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::Logs => "opentelemetry.proto.collector.logs.v1.LogsService",
            Self::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService",
            Self::Traces => "opentelemetry.proto.collector.trace.v1.TraceService",
        }
    }
}

/// What a consumer made of a request.
enum Outcome {
    /// All but so many.
    Taken(u64),
    Again(String),
    Refused(String),
}

/// Serves the drain for ever.
///
/// # Errors
/// When history cannot be read, the position not be kept, or the endpoint is no URL.
pub(super) async fn run(task: &mut Task, to: &Telemetry) -> io::Result<()> {
    let address = Address::parse(to.endpoint.expose()).map_err(io::Error::other)?;
    let limits = task.shared.limits.clone();
    let frame_bytes = usize::try_from(limits.drain_frame_bytes).unwrap_or(usize::MAX);
    let mut consumer = Consumer { client: Client::new(&task.shared, &address, to.grpc), address, to };
    let (mut tries, mut done) = (0, Done::default());
    loop {
        let (mut metrics, mut spans) = (Metrics::default(), Spans::default());
        let frame = task.next(frame_bytes, |bytes, record| {
            signals::log_record(bytes, record);
            if to.metrics {
                metrics.add(record);
            }
            if to.traces {
                spans.add(record);
            }
        })?;
        let Some(frame) = frame else {
            tokio::select! {
                behind = task.cursor.behind() => behind?,
                () = consumer.client.idle(seconds(limits.drain_idle_seconds)) => {}
            }
            continue;
        };
        task.cursor.begin(&frame)?;
        let logs = to.logs.then(|| (Signal::Logs, signals::logs_request(&task.drain, &frame.bytes)));
        let metrics = metrics.request(&task.drain).map(|bytes| (Signal::Metrics, bytes));
        let traces = spans.request(&task.drain).map(|bytes| (Signal::Traces, bytes));
        let sent = consumer.send(task, logs.into_iter().chain(metrics).chain(traces), &mut done).await;
        let failure = match sent {
            Ok(()) => done.refused.take().map(Box::<Failure>::from),
            Err((was_sent, error)) => {
                tries += u64::from(was_sent);
                if tries < limits.drain_tries {
                    task.failed(error.as_ref(), &consumer.address.to_string()).await;
                    continue;
                }
                Some(error)
            }
        };
        // The frame has come to its end. Measurements and spans that are lost are no lines; only lines are counted.
        if to.logs && !done.has(Signal::Logs) {
            task.cursor.failed(&frame)?
        } else {
            task.cursor.delivered_but(&frame, done.rejected)?
        }
        (tries, done) = (0, Done::default());
        match failure {
            Some(failure) => task.failed(failure.as_ref(), &consumer.address.to_string()).await,
            None => task.health.good(),
        }
    }
}

/// What of a frame needs no further request.
#[derive(Default)]
struct Done {
    signals: Vec<Signal>,    // taken; or, if no lines, refused
    rejected: u64,           // lines
    refused: Option<String>, // all lines
}

impl Done {
    fn has(&self, signal: Signal) -> bool {
        self.signals.contains(&signal)
    }
}

struct Consumer<'a> {
    client: Client,
    address: Address,
    to: &'a Telemetry,
}

impl Consumer<'_> {
    /// Sends what is not done yet, up to the first failure that is worth another try; says whether it was on its way.
    async fn send(
        &mut self,
        task: &Task,
        requests: impl Iterator<Item = (Signal, Vec<u8>)>,
        done: &mut Done,
    ) -> Result<(), (bool, Box<Failure>)> {
        for (signal, bytes) in requests {
            if done.has(signal) || signal == Signal::Logs && done.refused.is_some() {
                continue;
            }
            let request =
                self.request(signal, bytes).ok_or_else(|| (true, "the endpoint cannot be asked for".into()))?;
            let limit = millis(task.shared.limits.drain_request_ms);
            let answer = self.client.send(&task.shared, request, limit).await;
            let answer = answer.map_err(|error| (error.was_sent(), error.into()))?;
            match (outcome(self.to.grpc, &answer), signal) {
                (Outcome::Taken(rejected), _) => {
                    done.signals.push(signal);
                    if rejected > 0 {
                        tracing::info!(drain = %task.drain.id, signal = signal.path(), rejected, "a telemetry drain takes a part");
                    }
                    if signal == Signal::Logs {
                        done.rejected = rejected;
                    }
                }
                (Outcome::Refused(why), Signal::Logs) => done.refused = Some(why),
                (Outcome::Refused(why), Signal::Metrics | Signal::Traces) => {
                    tracing::debug!(drain = %task.drain.id, signal = signal.path(), why, "a telemetry drain refuses a signal");
                    done.signals.push(signal);
                }
                (Outcome::Again(why), _) => return Err((true, why.into())),
            }
        }
        Ok(())
    }

    fn request(&self, signal: Signal, message: Vec<u8>) -> Option<Request<Full<Bytes>>> {
        let Protocol::Http { target, authority, user } = &self.address.protocol else { return None };
        let mut request = if self.to.grpc {
            let scheme = if self.address.tls.is_some() { "https" } else { "http" };
            let request = Request::post(format!("{scheme}://{authority}/{}/Export", signal.service()));
            request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers")
        } else {
            let (path, query) = target.split_once('?').map_or((target.as_str(), ""), |(path, query)| (path, query));
            let mark = if query.is_empty() { "" } else { "?" };
            let request = Request::post(format!("{}/v1/{}{mark}{query}", path.trim_end_matches('/'), signal.path()));
            request.header(header::HOST, authority).header(header::CONTENT_TYPE, "application/x-protobuf")
        };
        request = request.header(header::USER_AGENT, USER_AGENT);
        if let Some(user) = user {
            let basic = format!("Basic {}", BASE64.encode(user.expose().as_bytes()));
            request = request.header(header::AUTHORIZATION, secret(&basic)?);
        }
        for (name, value) in &self.to.headers {
            request = request.header(HeaderName::from_bytes(name.as_bytes()).ok()?, secret(value.expose())?);
        }
        let body = if self.to.grpc { grpc_frame(&message) } else { message };
        request.body(Full::new(body.into())).ok()
    }
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A message of gRPC: not compressed, its length, itself.
fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// What an answer means (OTLP specification, "OTLP/HTTP response" and "OTLP/gRPC response").
fn outcome(grpc: bool, answer: &Answer) -> Outcome {
    let status = answer.status;
    if !grpc {
        let retryable = [StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
        return match status {
            status if status.is_success() => partial(&answer.body),
            status if retryable.contains(&status) || status == StatusCode::GATEWAY_TIMEOUT => {
                Outcome::Again(format!("it answers {status}"))
            }
            status => Outcome::Refused(format!("it answers {status}")),
        };
    }
    // A refusal may come without a body, its code then among the headers.
    let code = answer.trailers.get("grpc-status").or_else(|| answer.headers.get("grpc-status"));
    match code.and_then(|code| code.to_str().ok()) {
        Some("0") => partial(answer.body.get(5..).unwrap_or_default()),
        Some(code) if RETRYABLE.contains(&code) => Outcome::Again(format!("it answers with gRPC status {code}")),
        Some(code) => Outcome::Refused(format!("it answers with gRPC status {code}")),
        None => Outcome::Again(format!("it answers {status} and no gRPC status")),
    }
}

/// A consumer may take a part only: `partial_success` says how much it did not. That is final.
fn partial(response: &[u8]) -> Outcome {
    let Some((_, Value::Bytes(partial))) = fields(response).find(|(field, _)| *field == 1) else {
        return Outcome::Taken(0);
    };
    let rejected = fields(partial).find_map(|(field, value)| match value {
        Value::Number(number) if field == 1 => Some(number),
        _ => None,
    });
    Outcome::Taken(rejected.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn word(grpc: bool, status: u16, code: Option<&'static str>) -> &'static str {
        let mut trailers = HeaderMap::new();
        if let Some(code) = code {
            trailers.insert("grpc-status", HeaderValue::from_static(code));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        match outcome(grpc, &Answer { status, headers: HeaderMap::new(), body: Bytes::new(), trailers }) {
            Outcome::Taken(_) => "taken",
            Outcome::Again(_) => "again",
            Outcome::Refused(_) => "refused",
        }
    }

    #[test]
    fn answers_mean_what_the_specification_says() {
        for (status, means) in [(200, "taken"), (202, "taken"), (400, "refused"), (404, "refused"), (500, "refused")] {
            assert_eq!(word(false, status, None), means, "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert_eq!(word(false, status, None), "again", "{status}");
        }
        for (code, means) in [("0", "taken"), ("3", "refused"), ("16", "refused"), ("14", "again"), ("4", "again")] {
            assert_eq!(word(true, 200, Some(code)), means, "{code}");
        }
        assert_eq!(word(true, 502, None), "again");
    }

    #[test]
    fn what_a_consumer_did_not_take_is_counted() {
        let mut response = proto::Message::default();
        response.message(1, |partial| {
            partial.number(1, 3);
            partial.bytes(2, b"too old");
        });
        assert!(matches!(partial(&response.0), Outcome::Taken(3)));
        assert!(matches!(partial(b""), Outcome::Taken(0)));
    }
}
