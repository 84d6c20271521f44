//! A drain to an HTTP receiver: frames of `application/logplex-1` in POST requests, one at a time.
//!
//! 2xx takes a frame, 4xx (but 429) refuses it for good, anything else and silence are worth another try with the same
//! frame id (heroku/logplex, `logplex_http_drain`). A frame that is given up is counted as dropped, and the next one
//! tells so.

use std::io;

use bytes::Bytes;
use data_encoding::BASE64;
use dozen_api::drains::{Address, Protocol};
use dozen_domain::limits::{millis, seconds};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;

use super::{Task, cursor::Frame, request::Client, syslog::Writer};

const USER_AGENT: &str = concat!("Logplex/dozen-", env!("CARGO_PKG_VERSION"));

/// Serves the drain for ever.
///
/// # Errors
/// When history cannot be read or the position not be kept.
pub(super) async fn run(task: &mut Task, address: &Address) -> io::Result<()> {
    let limits = task.shared.limits.clone();
    let frame_bytes = usize::try_from(limits.drain_frame_bytes).unwrap_or(usize::MAX);
    let mut writer = Writer::http();
    let mut client = Client::new(&task.shared, address, false);
    let mut tries = 0;
    loop {
        let frame = task.next(frame_bytes, |to, record| writer.put(to, record))?;
        let Some(frame) = frame else {
            tokio::select! {
                behind = task.cursor.behind() => behind?,
                () = client.idle(seconds(limits.drain_idle_seconds)) => {}
            }
            continue;
        };
        task.cursor.begin(&frame)?;
        let Some(request) = request(task, address, &frame) else {
            return Err(io::Error::other("the drain's URL cannot be asked for"));
        };
        match client.send(&task.shared, request, millis(limits.drain_request_ms)).await {
            Ok(answer) if answer.status.is_success() => {
                task.cursor.delivered(&frame)?;
                task.health.good();
                tries = 0;
            }
            Ok(answer) => {
                tries += 1;
                let final_ = answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS;
                if final_ || tries >= limits.drain_tries {
                    task.cursor.failed(&frame)?;
                    tries = 0;
                }
                let why = io::Error::other(format!("it answers {}", answer.status));
                task.failed(&why, &address.to_string()).await;
            }
            Err(error) => {
                tries += u64::from(error.was_sent());
                if tries >= limits.drain_tries {
                    task.cursor.failed(&frame)?;
                    tries = 0;
                }
                task.failed(&error, &address.to_string()).await;
            }
        }
    }
}

fn request(task: &Task, address: &Address, frame: &Frame) -> Option<Request<Full<Bytes>>> {
    let Protocol::Http { target, authority, user } = &address.protocol else { return None };
    let mut request = Request::post(target)
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/logplex-1")
        .header(header::USER_AGENT, USER_AGENT)
        .header("logplex-msg-count", frame.messages)
        .header("logplex-frame-id", &frame.id)
        .header("logplex-drain-token", &task.drain.token);
    if let Some(user) = user {
        let value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(user.expose().as_bytes())));
        let mut value = value.ok()?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(&frame.bytes))).ok()
}
