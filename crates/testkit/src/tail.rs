//! A reader of a log session's URL, as the official client reads it: server-sent events, taken up again with
//! `Last-Event-ID` when the connection breaks.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::{Value, json};

use crate::{LONG, TestPlatform, wait_until};

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    connection: Mutex<Option<TcpStream>>,
    connections: Mutex<usize>,
    paused: Mutex<bool>,
    goes_on: Condvar,
    ended: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log session that is read until it is dropped.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

impl Tail {
    /// Opens a tail of an app with its last lines, and reads it over as many connections as it takes.
    ///
    /// # Panics
    /// When the API refuses.
    pub fn open(platform: &TestPlatform, app: &str, lines: usize) -> Self {
        let url = session(platform, app, &json!({"tail": true, "lines": lines}));
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let reader = std::thread::spawn(move || {
            let mut last = None;
            while !own.ended.load(Ordering::Relaxed) {
                // However a connection ends, the next one goes on behind the last whole event.
                _ = read(&url, &mut last, &own);
                std::thread::yield_now();
            }
        });
        Self { shared, reader: Some(reader) }
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.lines).clone()
    }

    /// Over how many connections they came.
    pub fn connections(&self) -> usize {
        *lock(&self.shared.connections)
    }

    /// Waits until a line ends so.
    ///
    /// # Panics
    /// When none does.
    #[track_caller]
    pub fn wait_for(&self, end: &str) {
        let seen = || lock(&self.shared.lines).iter().rev().any(|line| line.ends_with(end));
        wait_until(&format!("{end:?} in a tail"), LONG, seen);
    }

    /// The lines from this one on (the first is 0).
    pub fn lines_from(&self, first: usize) -> Vec<String> {
        lock(&self.shared.lines).get(first..).unwrap_or_default().to_vec()
    }

    /// Reads nothing more, or goes on.
    pub fn pause(&self, paused: bool) {
        *lock(&self.shared.paused) = paused;
        self.shared.goes_on.notify_all();
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.pause(false);
        if let Some(connection) = &*lock(&self.shared.connection) {
            _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(reader) = self.reader.take() {
            _ = reader.join();
        }
    }
}

/// All lines of an app's history, as many as the platform keeps.
///
/// # Panics
/// When the API refuses or the stream breaks.
pub(crate) fn history(platform: &TestPlatform, app: &str) -> Vec<String> {
    let url = session(platform, app, &json!({"tail": false, "lines": 10_000_000}));
    let shared = Shared::default();
    read(&url, &mut None, &shared).expect("all of the history");
    shared.lines.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn session(platform: &TestPlatform, app: &str, body: &Value) -> String {
    let (status, session) = platform.api("POST", &format!("/apps/{app}/log-sessions"), Some(body));
    assert_eq!(status, 201, "{session}");
    session["logplex_url"].as_str().expect("a URL").to_owned()
}

/// Reads over one connection to its end. `last` is the last event's id.
fn read(url: &str, last: &mut Option<String>, shared: &Shared) -> io::Result<()> {
    let other = |what: &str| io::Error::other(format!("{what}: {url}"));
    let (host, path) =
        url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).ok_or_else(|| other("no URL"))?;
    let mut connection = TcpStream::connect(host)?;
    *lock(&shared.connection) = Some(connection.try_clone()?);
    if shared.ended.load(Ordering::Relaxed) {
        return Ok(());
    }
    let resumes = last.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    let head = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n{resumes}\r\n");
    connection.write_all(head.as_bytes())?;
    let mut connection = BufReader::new(connection);
    let mut line = String::new();
    connection.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(other(line.trim()));
    }
    while !matches!(line.as_str(), "\r\n" | "") {
        line.clear();
        connection.read_line(&mut line)?;
    }
    *lock(&shared.connections) += 1;
    let (mut id, mut data) = (None, Vec::new());
    let mut rest = String::new(); // what came of a line whose end has not
    loop {
        let mut paused = lock(&shared.paused);
        while *paused {
            paused = shared.goes_on.wait(paused).unwrap_or_else(PoisonError::into_inner);
        }
        drop(paused);
        let mut size = String::new();
        connection.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        connection.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(());
        }
        rest.push_str(std::str::from_utf8(&chunk[..size]).map_err(io::Error::other)?);
        let mut lines = lock(&shared.lines);
        while let Some(end) = rest.find('\n') {
            match rest[..end].split_once(": ") {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data.push(value.to_owned()),
                _ if end == 0 => {
                    // Only a whole event counts.
                    *last = id.take().or(last.take());
                    lines.extend((!data.is_empty()).then(|| data.join("\n")));
                    data.clear();
                }
                _ => {}
            }
            rest.drain(..=end);
        }
    }
}
