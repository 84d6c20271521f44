//! New lines on their way to one session: a bounded queue whose overflow is counted and told (L11). The bound is one of
//! lines, or of bytes where lines are short: dynos at full speed hand over more lines at once than the first would hold.
//!
//! A reader that is too slow loses the newest lines until it has taken all that waited; then it is told how many and
//! since when, at the place where they are missing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dozen_api::{
    clock::{self, Micros, Stamp},
    logs::{Place, Session, Source},
};
use dozen_domain::{codes::Code, limits::Limits};
use tokio::sync::Notify;

use crate::batch::{Batch, Record, records};

/// Which lines of an app a session wants.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    source: Option<Source>,
    process: Option<String>,
}

impl Filter {
    /// The filter of a session.
    pub(crate) fn new(session: &Session) -> Self {
        Self { source: session.source, process: session.process.clone() }
    }

    /// Says whether the line is wanted. A process is meant by its name, `web.1`, or by its type, `web`.
    pub(crate) fn matches(&self, record: &Record<'_>) -> bool {
        self.source.is_none_or(|source| source == record.source)
            && self.process.as_ref().is_none_or(|wanted| {
                record.process.strip_prefix(wanted.as_bytes()).is_some_and(|rest| matches!(rest, [] | [b'.', ..]))
            })
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Place, Arc<str>)>,
    bytes: usize, // of the lines that wait
    dropped: u64,
    dropped_since: Micros,
    dropped_last: Option<Place>,
    ended: bool,
}

/// The queue of one session.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) filter: Filter,
    capacity: usize,
    capacity_bytes: usize,
    state: Mutex<State>,
    nudge: Notify,
}

impl Tail {
    /// A queue of as many lines as either limit allows.
    pub(crate) fn new(filter: Filter, limits: &Limits) -> Self {
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        let capacity = size(limits.log_tail_buffer_lines).max(1);
        let capacity_bytes = size(limits.log_tail_buffer_bytes);
        Self { filter, capacity, capacity_bytes, state: Mutex::default(), nudge: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, place: Place, at: Micros, line: impl FnOnce() -> Arc<str>) {
        let mut state = self.state();
        let full = state.waiting.len() >= self.capacity && state.bytes >= self.capacity_bytes;
        if state.dropped > 0 || full {
            if state.dropped == 0 {
                state.dropped_since = at;
            }
            state.dropped += 1;
            state.dropped_last = Some(place);
        } else {
            let line = line();
            state.bytes += line.len();
            state.waiting.push_back((place, line));
        }
        drop(state);
        self.nudge.notify_one();
    }

    /// Ends the session after the lines that wait.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.nudge.notify_one();
    }

    /// Waits for lines and takes all, then the notice of those that did not fit; `None` at the end. May be cancelled.
    pub(crate) async fn next(&self) -> Option<VecDeque<(Place, Arc<str>)>> {
        loop {
            {
                let mut state = self.state();
                let mut lines = std::mem::take(&mut state.waiting);
                state.bytes = 0;
                if let Some(last) = state.dropped_last.take() {
                    lines.push_back((last, overflow(state.dropped, state.dropped_since)));
                    state.dropped = 0;
                }
                if !lines.is_empty() {
                    return Some(lines);
                }
                if state.ended {
                    return None;
                }
            }
            self.nudge.notified().await;
        }
    }
}

fn overflow(dropped: u64, since: Micros) -> Arc<str> {
    let (code, since) = (Code::L11, clock::rfc3339_micros(since));
    let text =
        format!("Error {code} ({}) -> This tail session dropped {dropped} messages since {since}", code.description());
    let record = Record { at: clock::now(), source: Source::Heroku, process: b"logplex", text: text.as_bytes() };
    record.line(&mut Stamp::default()).into()
}

/// Shows a batch to tails, whose lines stand at these places. A line is made printable once at most.
pub(crate) fn publish(tails: &[Arc<Tail>], places: impl Iterator<Item = Place>, batch: &Batch) {
    if tails.is_empty() {
        return;
    }
    let mut stamp = Stamp::default();
    for (place, record) in places.zip(records(&batch.records)) {
        let mut line: Option<Arc<str>> = None;
        for tail in tails.iter().filter(|tail| tail.filter.matches(&record)) {
            tail.push(place, record.at, || line.get_or_insert_with(|| record.line(&mut stamp).into()).clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(source: Option<Source>, process: Option<&str>) -> Filter {
        Filter { source, process: process.map(str::to_owned) }
    }

    #[test]
    fn a_process_is_meant_by_name_or_by_type() {
        let wanted = |process: &str, of: &str| {
            let record = Record { at: 0, source: Source::App, process: of.as_bytes(), text: b"" };
            filter(None, Some(process)).matches(&record)
        };
        assert!(wanted("web.1", "web.1") && wanted("web", "web.1") && wanted("router", "router"));
        assert!(!wanted("web.1", "web.11") && !wanted("web", "webhook.1") && !wanted("web.1", "web"));
    }

    fn limits(bytes: u64) -> Limits {
        Limits { log_tail_buffer_lines: 3, log_tail_buffer_bytes: bytes, ..Limits::default() }
    }

    fn push(tail: &Arc<Tail>, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let mut batch = Batch::default();
            batch.push(1_704_067_200_000_000, Source::App, "web.1", n.to_string().as_bytes());
            let place = Place { sequence: n, ordinal: None };
            publish(std::slice::from_ref(tail), std::iter::once(place), &batch);
        }
    }

    #[tokio::test]
    async fn more_lines_wait_when_they_are_short() {
        let tail = Arc::new(Tail::new(filter(None, None), &limits(1_000)));
        push(&tail, 100..200);
        let mut lines = tail.next().await.expect("lines");
        let (told, lines) =
            lines.make_contiguous().split_last().map(|(told, lines)| (told.1.clone(), lines)).expect("some");
        let bytes: usize = lines.iter().map(|(_, line)| line.len()).sum();
        assert!((1_000..1_100).contains(&bytes) && lines.len() > 3, "{bytes} bytes");
        assert!(told.contains(&format!("dropped {} messages", 100 - lines.len())), "{told}");
        push(&tail, 200..204); // room again
        assert_eq!(tail.next().await.expect("lines").len(), 4);
    }

    #[tokio::test]
    async fn what_a_slow_reader_misses_is_counted_where_it_is_missing() {
        let tail = Arc::new(Tail::new(filter(None, None), &limits(0)));
        push(&tail, 1..11);
        let lines = tail.next().await.expect("lines");
        let numbers: Vec<u64> = lines.iter().map(|(place, _)| place.sequence).collect();
        assert_eq!(numbers, [1, 2, 3, 10]);
        let told = "heroku[logplex]: Error L11 (Tail buffer overflow) -> This tail session dropped 7 messages since \
                    2024-01-01T00:00:00.000000+00:00";
        assert!(lines[3].1.ends_with(told), "{}", lines[3].1);
        push(&tail, 11..13);
        tail.end();
        assert_eq!(tail.next().await.expect("lines").len(), 2);
        assert!(tail.next().await.is_none());
    }
}
