//! Shows an app's log: makes a log session and prints the lines of its event stream.

use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};

use dozen_api::client;

use crate::{Error, Printer, commands::Session};

/// Which lines.
pub(super) struct Wanted {
    pub(super) lines: u64,
    pub(super) tail: bool,
    pub(super) dyno: Option<String>,
    pub(super) source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LogSession {
    logplex_url: String,
}

pub(super) async fn run(session: &Session, app: &str, wanted: &Wanted, printer: &mut Printer<'_>) -> Result<(), Error> {
    let mut body = json!({ "lines": wanted.lines, "tail": wanted.tail });
    for (key, value) in [("dyno", &wanted.dyno), ("source", &wanted.source)] {
        if let Some(value) = value {
            body[key] = Value::from(value.as_str());
        }
    }
    let made: LogSession = session.api.call(Method::POST, &format!("/apps/{app}/log-sessions"), Some(&body)).await?;
    let (stream, path) = session.promised(&made.logplex_url)?;
    let wrong =
        |detail: String| client::Error::Answer { method: Method::GET, path: "the log session".to_owned(), detail };
    let request = Request::get(path).header(header::ACCEPT, "text/event-stream").body(http_body_util::Full::default());
    let response = stream.send(request.map_err(|error| wrong(error.to_string()))?).await?;
    if !response.status().is_success() {
        return Err(wrong(response.status().to_string()).into());
    }
    let mut body = response.into_body();
    let mut events = Events::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| wrong(error.to_string()))?;
        if let Some(bytes) = frame.data_ref() {
            for line in events.take(bytes) {
                let line = if printer.is_json() { parts(&line).to_string() } else { line };
                printer.line(&line)?;
            }
        }
    }
    Ok(())
}

/// A line's time, source, process and text: one object a line, so that a stream of them can be read as it comes.
fn parts(line: &str) -> Value {
    let split = || {
        let (at, rest) = line.split_once(' ')?;
        let (origin, message) = rest.split_once("]: ").or_else(|| Some((rest.strip_suffix("]:")?, "")))?;
        let (source, process) = origin.split_once('[')?;
        Some(json!({ "at": at, "source": source, "process": process, "message": message }))
    };
    split().unwrap_or_else(|| json!({ "message": line }))
}

/// The `data:` lines of an event stream that arrives in pieces.
#[derive(Default)]
struct Events(Vec<u8>);

impl Events {
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.0.drain(..=end).collect();
        let lines = String::from_utf8_lossy(&whole).into_owned();
        let data = lines.lines().filter_map(|line| line.strip_prefix("data:"));
        data.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_parts() {
        let line = "2026-01-01T00:00:00.000000+00:00 app[web.1]: said: [x]: y";
        let expected = json!({"at": "2026-01-01T00:00:00.000000+00:00", "source": "app", "process": "web.1", "message": "said: [x]: y"});
        assert_eq!(parts(line), expected);
        assert_eq!(parts("2026 app[web.1]:")["message"], "");
        assert_eq!(parts("something else"), json!({"message": "something else"}));
    }

    #[test]
    fn lines_come_out_of_pieces() {
        let mut events = Events::default();
        assert_eq!(events.take(b"retry: 1\n\nid: 1\ndata: one\n\nda"), ["one"]);
        assert_eq!(events.take(b"ta: two\n: keep-alive\n"), ["two"]);
    }
}
