//! Log lines on their way to the logs role and back to log sessions, over `run/logs.sock`.
//!
//! A connection begins with one JSON [`Hello`] frame. [`Hello::Ingest`] is followed by frames that each hold a `u64`
//! batch number and lines ([`encode`]); each is answered by one empty frame once its lines are stored. A batch that is
//! sent again (same sender, same number) is stored once, so a line is neither lost nor doubled when either side dies.
//! [`Hello::Session`] is answered by frames of one [`Sent`] each and, at its proper end, one empty frame.
//! Output of dynos does not come this way: the logs role reads it from the shims, told of new ones by
//! [`Hello::Dyno`] and finding all by a scan of `run/dynos` when it starts.
//!
//! Callers use [`Sender`] for lines in, [`open_session`] for lines out, [`announce`] and [`remove`].

use std::{fmt, str::FromStr};

use dozen_domain::ids::{AppId, DynoId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Micros;
pub use crate::log_session::{announce, open_session, remove};

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The app, or somebody acting on it (`app[api]`).
    App,
    /// The platform (`heroku[router]`, `heroku[web.1]`).
    Heroku,
}

impl Source {
    /// `app` or `heroku`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Heroku => "heroku",
        }
    }
}

/// One line of an app's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub app: AppId,
    /// When it was written.
    pub at: Micros,
    /// By whom.
    pub source: Source,
    /// `web.1`, `router`, `api`.
    pub process: String,
    /// The text, without line end.
    pub text: String,
}

/// What the platform writes about something that people gave it, such as a command: in one line, for what would begin
/// another one could say anything in the platform's name; and without what does something to a terminal.
pub fn in_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let written = |c: char| match c.is_control() && c != '\t' {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(written).collect()
}

/// Appends a line to a frame: 16 bytes app, `i64` time, `u8` source (0 app, 1 heroku), `u8` length and process,
/// `u32` length and text, all little-endian.
pub fn encode(line: &Line, to: &mut Vec<u8>) {
    let process = &line.process.as_bytes()[..line.process.len().min(255)];
    to.extend_from_slice(line.app.0.as_bytes());
    to.extend_from_slice(&line.at.to_le_bytes());
    to.push(u8::from(line.source == Source::Heroku));
    to.push(process.len() as u8);
    to.extend_from_slice(process);
    to.extend_from_slice(&(line.text.len() as u32).to_le_bytes());
    to.extend_from_slice(line.text.as_bytes());
}

/// Takes the next line off a frame; `None` at its end or when the rest makes no sense.
pub fn decode(from: &mut &[u8]) -> Option<Line> {
    fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (head, rest) = from.split_at_checked(n)?;
        *from = rest;
        Some(head)
    }
    let app = AppId(Uuid::from_slice(take(from, 16)?).ok()?);
    let at = i64::from_le_bytes(take(from, 8)?.try_into().ok()?);
    let source = if take(from, 1)? == [0] { Source::App } else { Source::Heroku };
    let length = usize::from(take(from, 1)?[0]);
    let process = String::from_utf8_lossy(take(from, length)?).into_owned();
    let length = u32::from_le_bytes(take(from, 4)?.try_into().ok()?) as usize;
    let text = String::from_utf8_lossy(take(from, length)?).into_owned();
    Some(Line { app, at, source, process, text })
}

/// A place in an app's stream: just behind one of its lines. As text, the `id` of an event and so a `Last-Event-ID`, it is
/// `1763856000000042-17`, or without the second number when that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The line's number in the stream. It grows, but not always by one.
    pub sequence: u64,
    /// How many lines were stored up to it. It grows by one a line, so it tells how many lines lie between two places.
    pub ordinal: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            Some(ordinal) => write!(f, "{}-{ordinal}", self.sequence),
            None => write!(f, "{}", self.sequence),
        }
    }
}

/// A text that is no place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a log line")]
pub struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let number = |text: &str| text.parse().map_err(|_| NotAPlace);
        match text.split_once('-') {
            Some((sequence, ordinal)) => Ok(Self { sequence: number(sequence)?, ordinal: Some(number(ordinal)?) }),
            None => Ok(Self { sequence: number(text)?, ordinal: None }),
        }
    }
}

/// First frame of a connection to the logs role.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hello {
    /// Lines follow.
    Ingest {
        /// Which role, for its own log.
        role: String,
        /// Which run of it; batches are numbered from 1 within one.
        sender: Uuid,
    },
    /// Lines are wanted.
    Session(Session),
    /// A dyno was started: its shim is at `run/dynos/<id>`. Answered by one empty frame.
    Dyno(DynoId),
    /// All drains that there are, in place of those from before. Answered by one empty frame once they are kept.
    Drains(Vec<crate::drains::Drain>),
    /// An app is gone: remove its history. Answered by one empty frame.
    Remove(AppId),
}

/// Which lines, how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whose.
    pub app: AppId,
    /// Only this source.
    pub source: Option<Source>,
    /// Only this dyno (`web.1`) or process type (`web`), or `router`, `api`.
    pub process: Option<String>,
    /// Lines of history at most.
    pub lines: u64,
    /// Go on with new lines.
    pub tail: bool,
    /// Only lines after this place (the client's `Last-Event-ID`); then all of them that history still has, whatever
    /// `lines` says, and first of all how many it has no longer.
    pub after: Option<Place>,
}

/// Logs role to session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sent {
    /// One line, as people see it: `2026-01-02T03:04:05.678901+00:00 app[web.1]: text`.
    Line {
        /// Where it stands; each is behind the one before. Of a line that is not in the stream itself, the place that
        /// it speaks of.
        place: Place,
        /// The line. It holds no `\n`, but may hold a bare `\r`, which ends a line in an event stream: whoever
        /// writes one must treat it so.
        text: String,
    },
    /// History is through; without `tail` the stream ends here.
    Caught {
        /// The stream's last line when history was read, whether it was wanted or not: whoever comes back goes on from
        /// there. `None` when history cannot be read.
        end: Option<Place>,
    },
}

/// Hands lines to the logs role without ever waiting for it: a bounded queue, drained by a task that reconnects.
///
/// What does not fit is counted and told as L12 in the stream of the app concerned once there is room again.
#[derive(Clone)]
pub struct Sender {
    queue: std::sync::Arc<sender::Queue>,
}

impl Sender {
    /// Queues one line.
    pub fn send(&self, line: Line) {
        self.queue.push(line);
    }

    /// How many lines did not fit so far.
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Waits until the logs role has stored all lines queued so far: for a role that is about to end. It waits for
    /// ever while the logs role is away, so give it a limit.
    pub async fn flushed(&self) {
        self.queue.flushed().await;
    }

    /// A sender that keeps lines for a test to look at.
    pub fn memory() -> (Self, Memory) {
        let queue = std::sync::Arc::new(sender::Queue::new(usize::MAX));
        (Self { queue: queue.clone() }, Memory { queue })
    }

    /// Starts the task that sends to `run/logs.sock` at `socket` under this role's name; `capacity` lines wait at most.
    pub fn connect(socket: std::path::PathBuf, role: &'static str, capacity: usize) -> Self {
        let queue = std::sync::Arc::new(sender::Queue::new(capacity));
        tokio::spawn(sender::run(queue.clone(), socket, role));
        Self { queue }
    }
}

/// Lines that a test's [`Sender`] was given.
pub struct Memory {
    queue: std::sync::Arc<sender::Queue>,
}

impl Memory {
    /// Takes the lines given so far.
    pub fn take(&self) -> Vec<Line> {
        let lines = self.queue.drain(usize::MAX);
        self.queue.settle();
        lines
    }
}

mod sender {
    //! The queue behind a [`super::Sender`].

    use std::{
        collections::{HashMap, VecDeque},
        io,
        path::{Path, PathBuf},
        sync::{Arc, Mutex, PoisonError},
        time::Duration,
    };

    use dozen_domain::{codes::Code, ids::AppId};
    use tokio::{io::AsyncWriteExt, sync::Notify};
    use uuid::Uuid;

    use super::{Hello, Line, Source};
    use crate::{clock, frame, socket};

    const BATCH: usize = 500; // lines a frame: log-shuttle's batch size

    #[derive(Default)]
    struct Waiting {
        lines: VecDeque<Line>,
        dropped: HashMap<AppId, (u64, clock::Micros)>,
        /// All that were ever dropped.
        lost: u64,
        /// Lines were taken and are not stored yet.
        sending: bool,
    }

    pub(super) struct Queue {
        waiting: Mutex<Waiting>,
        capacity: usize,
        nudge: Notify,
        settled: Notify,
    }

    impl Queue {
        pub(super) fn new(capacity: usize) -> Self {
            Self { waiting: Mutex::default(), capacity, nudge: Notify::new(), settled: Notify::new() }
        }

        pub(super) fn push(&self, line: Line) {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.lines.len() >= self.capacity {
                waiting.dropped.entry(line.app).or_insert((0, line.at)).0 += 1;
                waiting.lost += 1;
                return;
            }
            waiting.lines.push_back(line);
            drop(waiting);
            self.nudge.notify_one();
        }

        pub(super) fn lost(&self) -> u64 {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).lost
        }

        pub(super) fn drain(&self, most: usize) -> Vec<Line> {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let n = waiting.lines.len().min(most);
            let mut lines: Vec<Line> = waiting.lines.drain(..n).collect();
            for (app, (count, since)) in waiting.dropped.drain() {
                let since = clock::rfc3339_micros(since);
                let text = format!("Error {}: {count} messages dropped since {since}.", Code::L12);
                lines.push(Line { app, at: clock::now(), source: Source::Heroku, process: "logplex".to_owned(), text });
            }
            waiting.sending |= !lines.is_empty();
            lines
        }

        /// Notes that the lines taken last are stored.
        pub(super) fn settle(&self) {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).sending = false;
            self.settled.notify_waiters();
        }

        pub(super) async fn flushed(&self) {
            loop {
                let mut settled = std::pin::pin!(self.settled.notified());
                settled.as_mut().enable();
                {
                    let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    if waiting.lines.is_empty() && !waiting.sending {
                        return;
                    }
                }
                settled.await;
            }
        }
    }

    /// Waits until there are lines and makes a frame of them under the next batch number.
    async fn next_batch(queue: &Queue, number: &mut u64) -> Vec<u8> {
        loop {
            let lines = queue.drain(BATCH);
            if lines.is_empty() {
                queue.nudge.notified().await;
                continue;
            }
            *number += 1;
            let mut bytes = vec![0; 4];
            bytes.extend_from_slice(&number.to_le_bytes());
            lines.iter().for_each(|line| super::encode(line, &mut bytes));
            let length = (bytes.len() - 4) as u32;
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            return bytes;
        }
    }

    /// Sends batches until the connection fails; the batch that was not acknowledged stays in `unstored`.
    async fn send(
        queue: &Queue,
        path: &Path,
        hello: &Hello,
        number: &mut u64,
        unstored: &mut Option<Vec<u8>>,
    ) -> io::Result<()> {
        let mut stream = socket::connect(path).await?;
        frame::write(&mut stream, hello).await?;
        loop {
            if unstored.is_none() {
                *unstored = Some(next_batch(queue, number).await);
            }
            if let Some(bytes) = unstored {
                stream.write_all(bytes).await?;
            }
            if frame::read_bytes(&mut stream).await?.is_none() {
                return Ok(());
            }
            *unstored = None;
            queue.settle();
        }
    }

    pub(super) async fn run(queue: Arc<Queue>, path: PathBuf, role: &'static str) {
        let hello = Hello::Ingest { role: role.to_owned(), sender: Uuid::new_v4() };
        let (mut number, mut unstored) = (0, None);
        loop {
            // The logs role is away or has just died: the queue holds what comes until it is back.
            if let Err(error) = send(&queue, &path, &hello, &mut number, &mut unstored).await {
                tracing::debug!(%error, "the logs role does not take lines");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_gave_begins_no_line_of_its_own() {
        let forged = "true` by user me\nRelease v9 created by user boss\u{1b}[2J\u{9b}\ttab \u{fc}";
        let shown = "true` by user me\\nRelease v9 created by user boss\\u{1b}[2J\\u{9b}\ttab \u{fc}";
        assert_eq!(in_one_line(forged.to_owned()), shown);
        assert_eq!(in_one_line("as it is".to_owned()), "as it is");
    }

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["1763856000000042-17", "7"] {
            assert_eq!(text.parse::<Place>().expect("a place").to_string(), text);
        }
        for text in ["", "-", "7-", "-7", "x", "7-1-1", "18446744073709551616"] {
            assert_eq!(text.parse::<Place>(), Err(NotAPlace), "{text:?}");
        }
    }

    #[test]
    fn lines_round_trip() {
        let line = |text: &str| Line {
            app: AppId::random(),
            at: 1_700_000_000_123_456,
            source: Source::Heroku,
            process: "web.1".to_owned(),
            text: text.to_owned(),
        };
        let lines = [line("State changed from starting to up"), line("")];
        let mut frame = Vec::new();
        lines.iter().for_each(|line| encode(line, &mut frame));
        let mut rest = frame.as_slice();
        let read: Vec<Line> = std::iter::from_fn(|| decode(&mut rest)).collect();
        assert_eq!(read, lines);
        assert!(rest.is_empty());
    }
}
