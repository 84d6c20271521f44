//! The platform's own log: events on standard output, one a line, as `logfmt` or JSON.
//!
//! Every value that could be mistaken for more than one, or end the line, is quoted and escaped, so whatever reads the
//! lines can rely on them, whoever chose the bytes of an error's text. Not here: apps' lines, which are the logs role's.

use std::fmt::{self, Write as _};

use dozen_api::clock;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object.
    Json,
}

impl Format {
    /// The format of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "logfmt" => Some(Self::Logfmt),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Starts it. Where nobody reads standard output, nothing is complained of.
pub(crate) fn start(level: Level, format: Format) {
    tracing_subscriber::fmt().with_max_level(level).log_internal_errors(false).event_format(format).init();
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (mut fields, about) = (Fields::default(), event.metadata());
        fields.put("time", clock::rfc3339_micros(clock::now()).into());
        fields.put("level", about.level().as_str().to_ascii_lowercase().into());
        fields.put("target", about.target().into());
        fields.put("msg", "".into()); // its place; the event says it
        event.record(&mut fields);
        match self {
            Self::Json => writeln!(to, "{}", Value::Object(fields.0)),
            Self::Logfmt => writeln!(to, "{}", logfmt(&fields.0)),
        }
    }
}

/// An event's fields in their order, each name once.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// A field of an event's own, which does not hide one of those that every event has.
    fn own(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.put("msg", value),
            name @ ("time" | "level" | "target" | "msg") => self.put(&format!("event.{name}"), value),
            name => self.put(name, value),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.own(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.own(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.own(field, value.to_string().into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.own(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.own(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.own(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.own(field, value.into());
    }
}

fn logfmt(fields: &Map<String, Value>) -> String {
    let mut line = String::new();
    for (name, value) in fields {
        if !line.is_empty() {
            line.push(' ');
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
        // JSON's escapes are those of logfmt's quoted values. Writing to a String cannot fail.
        _ = match !text.is_empty() && text.chars().all(plain) {
            true => write!(line, "{name}={text}"),
            false => write!(line, "{name}={}", Value::String(text)),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format) -> String {
        let to = Kept::default();
        let writer = to.clone();
        let subscriber = tracing_subscriber::fmt().event_format(format).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no \"route\"\nto host level=error");
            tracing::warn!(%error, n = 7_u64, path = "/tmp", empty = "", level = "mine", "it fails");
        });
        let bytes = to.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn an_event_is_one_line_of_pairs_whatever_its_values_hold() {
        let line = written(Format::Logfmt);
        let (time, rest) = line.split_once(' ').expect("pairs");
        assert!(time.starts_with("time=2") && time.ends_with("+00:00"), "{time}");
        let expected = r#"level=warn target=dozen::own_log::tests msg="it fails" error="no \"route\"\nto host level=error" n=7 path=/tmp empty="" event.level=mine"#;
        assert_eq!(rest, format!("{expected}\n"));
    }

    #[test]
    fn an_event_is_one_object_where_json_is_wanted() {
        let line = written(Format::Json);
        assert_eq!(line.matches('\n').count(), 1);
        let mut object: Value = serde_json::from_str(&line).expect("JSON");
        object.as_object_mut().expect("an object").remove("time").expect("a time");
        let expected = json!({"level": "warn", "target": "dozen::own_log::tests", "msg": "it fails",
            "error": "no \"route\"\nto host level=error", "n": 7, "path": "/tmp", "empty": "", "event.level": "mine"});
        assert_eq!(object, expected);
    }
}
