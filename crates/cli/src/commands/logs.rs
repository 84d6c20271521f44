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
    let uri: http::Uri = made.logplex_url.parse().map_err(|_| client::Error::Address(made.logplex_url.clone()))?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // The URL carries its own secret; the token stays here.
    let stream = client::Client::new(&made.logplex_url)?;
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
                printer.line(&line)?;
            }
        }
    }
    Ok(())
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
    fn lines_come_out_of_pieces() {
        let mut events = Events::default();
        assert_eq!(events.take(b"retry: 1\n\nid: 1\ndata: one\n\nda"), ["one"]);
        assert_eq!(events.take(b"ta: two\n: keep-alive\n"), ["two"]);
    }
}
