//! RFC 5424 messages with octet counting (RFC 6587), as logplex writes them to its two kinds of receivers.
//!
//! To syslog servers: `<PRI>1 TIME TOKEN SOURCE PROCESS - - TEXT`; in HTTP bodies: `<PRI>1 TIME host SOURCE PROCESS -
//! TEXT`, without the structured data that the standard asks for (heroku/logplex, `logplex_syslog_utils`,
//! `logplex_http_drain`). Both end with a line feed that is counted.

use dozen_api::{clock::Stamp, decimal, logs::Source};

use crate::batch::Record;

// Priorities: eight times the facility, and the severity (RFC 5424, 6.2.1).
const APP: &[u8] = b"<190>1 "; // local7.info
const ROUTER: &[u8] = b"<158>1 "; // local3.info
const PLATFORM: &[u8] = b"<45>1 "; // syslog.notice
const LOGPLEX: &[u8] = b"<172>1 "; // local5.warning

/// Writes messages of one drain.
pub(crate) struct Writer {
    host: Vec<u8>,
    after_process: &'static [u8],
    stamp: Stamp,
}

impl Writer {
    /// To a syslog server; the drain's token stands where a host name would.
    pub(crate) fn server(token: &str) -> Self {
        Self { host: token.as_bytes().to_vec(), after_process: b" - - ", stamp: Stamp::default() }
    }

    /// Into an HTTP body.
    pub(crate) fn http() -> Self {
        Self { host: b"host".to_vec(), after_process: b" - ", stamp: Stamp::default() }
    }

    /// Appends one message.
    pub(crate) fn put(&mut self, to: &mut Vec<u8>, record: &Record<'_>) {
        let time = self.stamp.bytes(record.at);
        let priority = match (record.source, record.process) {
            (Source::App, _) => APP,
            (Source::Heroku, b"router") => ROUTER,
            (Source::Heroku, b"logplex") => LOGPLEX,
            (Source::Heroku, _) => PLATFORM,
        };
        let source = record.source.as_str().as_bytes();
        let process = if record.process.is_empty() { b"-" } else { record.process };
        let parts: [&[u8]; 10] =
            [priority, time, b" ", &self.host, b" ", source, b" ", process, self.after_process, record.text];
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + 1;
        to.reserve(length + 8);
        decimal::push(to, length as u64);
        to.push(b' ');
        parts.iter().for_each(|part| to.extend_from_slice(part));
        to.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(writer: &mut Writer, at: i64, source: Source, process: &str, text: &str) -> String {
        let mut bytes = Vec::new();
        writer.put(&mut bytes, &Record { at, source, process: process.as_bytes(), text: text.as_bytes() });
        let text = String::from_utf8(bytes).expect("text");
        let (length, message) = text.split_once(' ').expect("a length");
        assert_eq!(length, message.len().to_string());
        message.to_owned()
    }

    #[test]
    fn messages_are_those_of_logplex() {
        let at = 1_704_067_200_000_000;
        let mut server = Writer::server("d.73ea7440-270a-435a-a0ea-adf50b4e5f5a");
        assert_eq!(
            written(&mut server, at + 7, Source::App, "web.1", "hi"),
            "<190>1 2024-01-01T00:00:00.000007+00:00 d.73ea7440-270a-435a-a0ea-adf50b4e5f5a app web.1 - - hi\n"
        );
        assert_eq!(
            written(&mut server, at + 999_999, Source::Heroku, "router", ""),
            "<158>1 2024-01-01T00:00:00.999999+00:00 d.73ea7440-270a-435a-a0ea-adf50b4e5f5a heroku router - - \n"
        );
        let mut http = Writer::http();
        assert_eq!(
            written(&mut http, at + 1_000_000, Source::Heroku, "web.1", "State changed from starting to up"),
            "<45>1 2024-01-01T00:00:01.000000+00:00 host heroku web.1 - State changed from starting to up\n"
        );
        assert_eq!(
            written(&mut http, at + 1_000_120, Source::Heroku, "logplex", "Error L10"),
            "<172>1 2024-01-01T00:00:01.000120+00:00 host heroku logplex - Error L10\n"
        );
    }
}
