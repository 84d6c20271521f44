//! Lines as log records, and the measurements that some of them hold as metrics.
//!
//! Where the measurements come from is the stream itself: `log-runtime-metrics` lines of dynos (`sample#memory_rss=…`)
//! become gauges, the router's lines a histogram of request durations. So metrics are exactly what the log says, and
//! need no second way through the platform.

use std::collections::BTreeMap;

use dozen_api::{drains::Drain, logs::Source};

use super::{access::Access, proto::Message};
use crate::batch::Record;

const INFO: u64 = 9; // SEVERITY_NUMBER_INFO
const WARN: u64 = 13; // SEVERITY_NUMBER_WARN
const ERROR: u64 = 17; // SEVERITY_NUMBER_ERROR
const DELTA: u64 = 1; // AGGREGATION_TEMPORALITY_DELTA
/// Upper bounds in seconds that the semantic conventions advise for `http.server.request.duration`.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Microseconds since 1970 as OTLP has them.
pub(crate) fn nanos(at: i64) -> u64 {
    at.max(0).cast_unsigned().saturating_mul(1_000)
}

/// Appends one line as a `ScopeLogs.log_records` field.
pub(crate) fn log_record(to: &mut Vec<u8>, record: &Record<'_>) {
    let mut message = Message(std::mem::take(to));
    message.message(2, |log| {
        log.fixed(1, nanos(record.at));
        log.fixed(11, nanos(record.at));
        let severity = severity(record);
        log.number(2, severity);
        log.bytes(
            3,
            match severity {
                ERROR => b"ERROR",
                WARN => b"WARN",
                _ => b"INFO",
            },
        );
        log.message(5, |body| body.bytes(1, record.text));
        log.attribute(6, "heroku.log.source", record.source.as_str().as_bytes());
        log.attribute(6, "heroku.log.process", record.process);
    });
    *to = message.0;
}

/// The router says how grave a line is, logplex's notices are warnings, and apps' own lines are nobody's to judge.
fn severity(record: &Record<'_>) -> u64 {
    match (record.source, record.process) {
        (Source::Heroku, b"router") if record.text.starts_with(b"at=error") => ERROR,
        (Source::Heroku, b"router") if record.text.starts_with(b"at=warning") => WARN,
        (Source::Heroku, b"logplex") => WARN,
        (Source::Heroku, _) if record.text.starts_with(b"Error ") => ERROR,
        _ => INFO,
    }
}

/// A request of any signal: whose it is, and what `scope` writes.
pub(crate) fn envelope(drain: &Drain, scope: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_signals| {
        resource_signals.message(1, |resource| {
            resource.attribute(1, "service.name", drain.app_name.as_bytes());
            resource.attribute(1, "cloud.provider", b"heroku");
            resource.attribute(1, "heroku.app.id", drain.app.to_string().as_bytes());
            resource.attribute(1, "heroku.app.name", drain.app_name.as_bytes());
        });
        resource_signals.message(2, |signals| {
            signals.message(1, |scope| {
                scope.bytes(1, b"dozen");
                scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            scope(signals);
        });
    });
    request.0
}

/// An `ExportLogsServiceRequest` of records made by [`log_record`].
pub(crate) fn logs_request(drain: &Drain, records: &[u8]) -> Vec<u8> {
    envelope(drain, |scope| scope.0.extend_from_slice(records))
}

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    at: i64,
    process: String,
    value: f64,
}

/// Requests between two times.
#[derive(Debug, Clone, Default, PartialEq)]
struct Durations {
    first: i64,
    last: i64,
    count: u64,
    sum: f64,
    buckets: [u64; BOUNDS.len() + 1],
}

/// What the lines of one frame measured.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    gauges: BTreeMap<(String, &'static str), Vec<Sample>>, // name and unit
    durations: BTreeMap<(String, String, String), Durations>, // method, status, dyno
}

impl Metrics {
    /// Looks for measurements in a line.
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        if record.source != Source::Heroku {
            return;
        }
        let Ok(text) = std::str::from_utf8(record.text) else { return };
        let process = String::from_utf8_lossy(record.process);
        if record.process == b"router" {
            self.add_request(record.at, text);
            return;
        }
        for word in text.split(' ') {
            let Some((name, value)) = word.strip_prefix("sample#").and_then(|word| word.split_once('=')) else {
                continue;
            };
            let Some((value, unit)) = measured(value) else { continue };
            let samples = self.gauges.entry((format!("heroku.dyno.{name}"), unit)).or_default();
            samples.push(Sample { at: record.at, process: process.clone().into_owned(), value });
        }
    }

    fn add_request(&mut self, at: i64, text: &str) {
        let Some(access) = Access::read(text) else { return };
        let Some(seconds) = access.seconds else { return };
        let key = (access.text("method").to_owned(), access.text("status").to_owned(), access.text("dyno").to_owned());
        let durations = self.durations.entry(key).or_insert_with(|| Durations { first: at, ..Durations::default() });
        durations.last = durations.last.max(at);
        durations.count += 1;
        durations.sum += seconds;
        durations.buckets[BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())] += 1;
    }

    /// An `ExportMetricsServiceRequest`; `None` when nothing was measured.
    pub(crate) fn request(&self, drain: &Drain) -> Option<Vec<u8>> {
        if self.gauges.is_empty() && self.durations.is_empty() {
            return None;
        }
        Some(envelope(drain, |scope| {
            for ((name, unit), samples) in &self.gauges {
                scope.message(2, |metric| {
                    metric.bytes(1, name.as_bytes());
                    metric.bytes(3, unit.as_bytes());
                    metric.message(5, |gauge| samples.iter().for_each(|sample| sample.write(gauge)));
                });
            }
            if !self.durations.is_empty() {
                scope.message(2, |metric| self.write_durations(metric));
            }
        }))
    }

    fn write_durations(&self, metric: &mut Message) {
        metric.bytes(1, b"http.server.request.duration");
        metric.bytes(2, b"Duration of requests as the router sees it");
        metric.bytes(3, b"s");
        metric.message(9, |histogram| {
            for ((method, status, dyno), durations) in &self.durations {
                histogram.message(1, |point| {
                    point.fixed(2, nanos(durations.first));
                    point.fixed(3, nanos(durations.last));
                    point.fixed(4, durations.count);
                    point.double(5, durations.sum);
                    point.packed(6, durations.buckets.iter().copied());
                    point.packed(7, BOUNDS.iter().map(|bound| bound.to_bits()));
                    point.attribute(9, "http.request.method", method.as_bytes());
                    point.attribute(9, "http.response.status_code", status.as_bytes());
                    point.attribute(9, "heroku.dyno.name", dyno.as_bytes());
                });
            }
            histogram.number(2, DELTA);
        });
    }
}

impl Sample {
    fn write(&self, gauge: &mut Message) {
        gauge.message(1, |point| {
            point.fixed(3, nanos(self.at));
            point.double(4, self.value);
            point.attribute(7, "heroku.dyno.name", self.process.as_bytes());
        });
    }
}

/// A value and its unit (UCUM): `212.84MB` is 212.84 · 2^20 bytes.
fn measured(text: &str) -> Option<(f64, &'static str)> {
    const MEGABYTE: f64 = 1_048_576.0;
    let units: [(&str, f64, &str); 4] =
        [("MB", MEGABYTE, "By"), ("pages", 1.0, "{page}"), ("ms", 0.001, "s"), ("", 1.0, "1")];
    units.iter().find_map(|(suffix, factor, unit)| {
        let number: f64 = text.strip_suffix(suffix)?.parse().ok()?;
        Some((number * factor, *unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(process: &'a str, text: &'a str) -> Record<'a> {
        Record { at: 1_704_067_200_000_000, source: Source::Heroku, process: process.as_bytes(), text: text.as_bytes() }
    }

    #[test]
    fn measurements_are_found_in_the_platforms_lines_alone() {
        let mut metrics = Metrics::default();
        let text =
            "source=web.2 dyno=heroku.1.a sample#memory_rss=2.50MB sample#memory_pgpgin=7pages sample#load_avg_1m=0.20";
        metrics.add(&line("web.2", text));
        metrics.add(&Record { source: Source::App, ..line("web.2", "sample#memory_rss=9.00MB") });
        metrics.add(&line("web.2", "sample#odd=much sample# =1"));
        let gauges: Vec<_> =
            metrics.gauges.iter().map(|((name, unit), all)| (name.as_str(), *unit, all[0].value)).collect();
        assert_eq!(
            gauges,
            [
                ("heroku.dyno.load_avg_1m", "1", 0.2),
                ("heroku.dyno.memory_pgpgin", "{page}", 7.0),
                ("heroku.dyno.memory_rss", "By", 2_621_440.0),
            ]
        );
    }

    #[test]
    fn requests_are_counted_by_method_status_and_dyno() {
        let mut metrics = Metrics::default();
        for service in [3, 700, 30_000] {
            let text = format!(
                "at=info method=GET path=\"/a b\" host=x dyno=web.1 connect=1ms service={service}ms status=200 bytes=1"
            );
            metrics.add(&line("router", &text));
        }
        metrics.add(&line("router", "at=error code=H14 method=GET path=\"/\" dyno= connect= service= status=503"));
        let all: Vec<_> = metrics.durations.iter().collect();
        assert_eq!(all.len(), 1, "a request without a duration has none");
        let durations = all[0].1;
        assert_eq!((durations.count, durations.buckets[0], durations.buckets[8], durations.buckets[14]), (3, 1, 1, 1));
        assert!((durations.sum - 30.706).abs() < 1e-9);
    }
}
