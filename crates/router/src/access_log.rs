//! One line a request into the app's stream, as `heroku[router]`.
//!
//! Fields and their order are fixed: `at`, `code` and `desc` of a failure, `method`, `path`, `host`, `request_id`,
//! `fwd`, `dyno`, `connect`, `service`, `status`, `bytes`, `protocol`; `sock` comes before all of them when a socket
//! ended early. A field that has no value stays, empty. Requests to hosts that are nobody's leave no line: there is no
//! stream to put it in.

use std::{fmt::Write, time::Duration};

use dozen_domain::codes::Code;

use crate::{
    error::{Severity, Verdict},
    exchange::Exchange,
    wire::names::Name,
};

const FIXED: usize = 220; // names, code, description, request id and numbers of a line

/// Writes the line of a request that ended well, or with `verdict`.
pub(crate) fn line(exchange: &Exchange, verdict: Option<&Verdict>) -> String {
    let path = exchange.head.path();
    let mut line = String::with_capacity(FIXED + path.len() + exchange.host.len() + exchange.forwarded.len());
    let severity = verdict.map_or(Severity::Info, |verdict| verdict.severity);
    if let Some(sock) = verdict.and_then(|verdict| verdict.sock) {
        push(&mut line, &["sock=", sock, " "]);
    }
    push(&mut line, &["at=", severity.as_str()]);
    if let Some((verdict, code)) = verdict.and_then(|verdict| Some((verdict, verdict.code?))) {
        push(&mut line, &[" code=", code.as_str(), " desc=\"", code.description(), verdict.detail, "\""]);
        if let Some(cause) = verdict.cause {
            push(&mut line, &[" cause=\"", cause, "\""]);
        }
        if let (Code::H31, Some(agent)) = (code, exchange.head.first(Name::UserAgent)) {
            line.push_str(" agent=\"");
            push_safe(&mut line, agent);
            line.push('"');
        }
    }
    line.push_str(" method=");
    push_safe(&mut line, exchange.head.method());
    line.push_str(if exchange.head.lacks_slash() { " path=\"/" } else { " path=\"" });
    push_safe(&mut line, path);
    push(&mut line, &["\" host=", &exchange.host, " request_id=", &exchange.request_id, " fwd=\""]);
    push_safe(&mut line, &exchange.forwarded);
    push(&mut line, &["\" dyno=", exchange.dyno.as_ref().map_or("", |dyno| &dyno.label), " connect="]);
    push_ms(&mut line, exchange.connect);
    line.push_str(" service=");
    push_ms(&mut line, exchange.dispatched.map(|since| since.elapsed()));
    line.push_str(" status=");
    if let Some(status) = verdict.map_or(Some(exchange.status), |verdict| verdict.status) {
        push_number(&mut line, u64::from(status));
    }
    line.push_str(" bytes=");
    if exchange.dispatched.is_some() {
        push_number(&mut line, exchange.bytes);
    }
    line.push_str(if exchange.client.tls { " protocol=https" } else { " protocol=http" });
    line
}

fn push(line: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| line.push_str(part));
}

fn push_ms(line: &mut String, duration: Option<Duration>) {
    if let Some(duration) = duration {
        push_number(line, duration.as_millis() as u64);
        line.push_str("ms");
    }
}

fn push_number(line: &mut String, number: u64) {
    // Writing to a string cannot fail.
    let _ = write!(line, "{number}");
}

/// Appends what a client sent so that it can neither end its field nor the line.
fn push_safe(line: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(|b| matches!(b, 0x20..0x7f) && *b != b'"') => line.push_str(text),
        _ => {
            for byte in bytes {
                match byte {
                    0x20..0x7f if *byte != b'"' => line.push(char::from(*byte)),
                    _ => {
                        let _ = write!(line, "%{byte:02X}");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_bytes_beyond_ascii_are_escaped() {
        let mut line = String::new();
        push_safe(&mut line, b"/a\"b\xc3\xa9\r\n");
        assert_eq!(line, "/a%22b%C3%A9%0D%0A");
    }
}
