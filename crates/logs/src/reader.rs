//! Reads one dyno's output from its shim into its app's stream.
//!
//! ```text
//! connect from the stored position -> pieces -> lines -> stored with the new position -> acknowledged
//! ```
//!
//! Only stored lines are acknowledged, and the position of a line is stored with it, so after the death of either side
//! the next connection begins at the first line that is missing. Reading goes in turns of a bounded size; while a
//! reader waits for its turn its shim's backlog fills, and what overflows there is told here (L12).

use std::{cell::RefCell, io, path::PathBuf, sync::Arc, time::Duration};

use dozen_api::{
    clock::{self, Micros},
    frame,
    logs::Source,
    shim::{Hello, Output, Record},
    socket,
};
use dozen_domain::{codes::Code, ids::DynoId, limits::millis};
use tokio::{
    io::{AsyncWriteExt, Interest, Ready},
    net::UnixStream,
    time::timeout,
};

use crate::{
    Role,
    batch::{Batch, Mark, Producer},
    channel::Channel,
    lines::Splitter,
    shims::{LOST, loss},
};

/// Bytes read in one turn; also what is kept for the next one.
const TURN: usize = 256 << 10;
/// The same for a stream with drains, which read between turns: fewer lines than may wait for them, if lines are usual.
const DRAINED_TURN: usize = 64 << 10;
/// A longer frame is none: shims send pieces of at most their backlog's size.
const FRAME_MAX: usize = 64 << 20;
const RETRY: Duration = Duration::from_millis(50);
const RETRY_DEAD: Duration = Duration::from_secs(1);

thread_local! {
    /// What one turn works with; shared by all readers of a thread, because a turn does not wait for anything.
    static DESK: RefCell<(Vec<u8>, Batch)> = RefCell::default();
}

struct Reader {
    dyno: DynoId,
    channel: Arc<Channel>,
    process: String,
    quiet: Duration, // after it a line without its end is one
    producer: Producer,
    splitter: Splitter,
    held: Vec<u8>, // what was read and not looked at: the beginning of a frame, or all of some when `left`
    left: bool,    // lines wait in `held` for the next turn
    most: usize,   // lines of one turn, for a stream with drains
    received: u64, // end of the last piece
    last_at: Micros, // its time
    stored: u64,   // what the channel has
    ended: bool,
    heard: bool, // anything, ever
}

/// Reads a dyno's output until its end has been acknowledged, or its shim is gone with what it had not sent (L13).
pub(crate) async fn run(role: Arc<Role>, record: Record, directory: PathBuf) {
    let mut reader = Reader {
        dyno: record.dyno,
        channel: role.channels.channel(record.app),
        splitter: Splitter::new(role.options.limits.log_line_bytes),
        process: record.name.to_string(),
        quiet: millis(role.options.limits.log_partial_ms),
        producer: Producer::Dyno(record.dyno.0),
        held: Vec::new(),
        left: false,
        most: usize::try_from(role.options.limits.drain_buffer_lines * 3 / 4).unwrap_or(usize::MAX).max(1),
        received: 0,
        last_at: record.created_at,
        stored: 0,
        ended: false,
        heard: false,
    };
    let (mut failing, mut refused) = (false, 0);
    loop {
        let error = match reader.channel.position(reader.producer) {
            Ok(LOST) => return,
            Ok(stored) => {
                reader.stored = reader.stored.max(stored);
                match reader.connect(&directory).await {
                    Ok(connection) => match reader.follow(connection).await {
                        Ok(()) => return,
                        Err(error) => error,
                    },
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let dead = error.kind() == io::ErrorKind::ConnectionRefused;
        refused = if dead { refused + 1 } else { 0 };
        let removed = !directory.exists();
        if removed || refused > 0 {
            reader.give_up_partial();
        }
        // One that refuses once may be about to listen; one that was never heard and is gone did not start.
        if removed || refused > 1 {
            if !reader.ended && (reader.heard || !removed) {
                reader.tell_loss();
            }
            return;
        }
        if !failing {
            tracing::debug!(dyno = %record.dyno, %error, "a dyno's output is not readable now");
        }
        failing = true;
        tokio::time::sleep(if dead { RETRY_DEAD } else { RETRY }).await;
    }
}

impl Reader {
    /// Connects and asks for what is not stored.
    async fn connect(&mut self, directory: &std::path::Path) -> io::Result<UnixStream> {
        let mut connection = socket::connect(&directory.join("shim.sock")).await?;
        frame::write(&mut connection, &Hello::Output { from: self.stored, ack: true }).await?;
        self.splitter.reset();
        (self.held, self.left) = (Vec::new(), false);
        self.received = self.stored;
        Ok(connection)
    }

    /// Reads until the end of output has been stored and acknowledged.
    async fn follow(&mut self, mut connection: UnixStream) -> io::Result<()> {
        let mut unsent = Vec::new(); // rest of an acknowledgement that the socket did not take
        let mut acknowledged = self.stored;
        loop {
            let interest = if unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let ready = if self.left {
                Ready::READABLE
            } else if self.splitter.pending() == 0 {
                connection.ready(interest).await?
            } else {
                match timeout(self.quiet, connection.ready(interest)).await {
                    Ok(ready) => ready?,
                    Err(_) => {
                        self.give_up_partial(); // a prompt, or a line that is finished much later
                        Ready::EMPTY
                    }
                }
            };
            let drained = if ready.is_readable() { self.take_turn(&connection).await? } else { true };
            if self.ended {
                connection.write_all(&unsent).await?;
                return frame::write(&mut connection, &self.stored).await;
            }
            if unsent.is_empty() && self.stored > acknowledged {
                unsent = frame::encode(&self.stored)?;
                acknowledged = self.stored;
            }
            if !drained {
                tokio::task::yield_now().await; // let other apps have their turn, and drains theirs
            }
            if !unsent.is_empty() {
                match connection.try_write(&unsent) {
                    Ok(n) => drop(unsent.drain(..n)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Takes a turn. When the stream has drains, they have theirs before any dyno of the app has another.
    async fn take_turn(&mut self, connection: &UnixStream) -> io::Result<bool> {
        let channel = self.channel.clone();
        let Some(turn) = channel.turn().await else { return self.turn(connection, usize::MAX) };
        let drained = self.turn(connection, self.most)?;
        turn.give_way().await;
        Ok(drained)
    }

    /// Reads what is there, up to a turn's size, and stores its lines, `most` at most. Says whether nothing is left to
    /// read.
    fn turn(&mut self, connection: &UnixStream, most: usize) -> io::Result<bool> {
        DESK.with_borrow_mut(|(bytes, batch)| {
            batch.clear(2 * TURN); // a turn that failed left its lines; they will be read again
            let turn = if most < usize::MAX { DRAINED_TURN } else { TURN };
            let mut filled = self.held.len();
            let room = filled.max(frame_length(&self.held)) + turn;
            if bytes.len() < room {
                bytes.resize(room, 0);
            }
            bytes[..filled].copy_from_slice(&self.held);
            self.held = Vec::new();
            let mut closed = false;
            let drained = loop {
                if filled >= room || self.left {
                    break false;
                }
                match connection.try_read(&mut bytes[filled..room]) {
                    Ok(0) => {
                        closed = true;
                        break true;
                    }
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                    Err(error) => return Err(error),
                }
            };
            let mut at = 0;
            self.left = false;
            while let Some(head) = bytes[..filled].get(at..at + 4) {
                let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
                if length > FRAME_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a shim's frame is too long"));
                }
                let Some(piece) = bytes[..filled].get(at + 4..at + 4 + length) else { break };
                self.left = !self.piece(piece, batch, most)?;
                if self.left {
                    break;
                }
                at += 4 + length;
                if most == usize::MAX && batch.records.len() >= turn {
                    self.store(batch);
                }
            }
            self.store(batch);
            self.held = bytes[at..filled].to_vec();
            if bytes.len() > 2 * TURN {
                bytes.truncate(TURN);
                bytes.shrink_to_fit();
            }
            if closed && !self.ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(drained) }
        })
    }

    /// Takes a frame in, as far as the batch then has `most` lines; says whether that was all of it. If not, the same
    /// frame goes on where it was left.
    fn piece(&mut self, frame: &[u8], batch: &mut Batch, most: usize) -> io::Result<bool> {
        let Some((offset, at, dropped, bytes)) = Output::parts(frame) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a shim's piece of output is too short"));
        };
        self.heard = true;
        let process = &self.process;
        let missing = if offset < self.received { 0 } else { (offset - self.received).max(dropped) };
        if missing > 0 {
            self.splitter.flush(|at, text| batch.push(at, Source::App, process, text));
            let since = clock::rfc3339_micros(self.last_at);
            let text = format!("Error {}: {missing} bytes of {process} dropped since {since}.", Code::L12);
            batch.push(clock::now(), Source::App, "log-shuttle", text.as_bytes());
        }
        // A shim may begin before the position asked for; what is stored is not stored again.
        let known = usize::try_from(self.received.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let taken = known + up_to(&bytes[known..], most.saturating_sub(batch.lines as usize).max(1));
        self.splitter.feed(&bytes[known..taken], at, |at, text| batch.push(at, Source::App, process, text));
        self.received = self.received.max(offset + taken as u64);
        self.last_at = at;
        if taken < bytes.len() {
            return Ok(false);
        }
        if bytes.is_empty() {
            self.splitter.flush(|at, text| batch.push(at, Source::App, process, text));
            self.ended = true;
        }
        Ok(true)
    }

    /// Stores the lines so far with the position behind them.
    fn store(&mut self, batch: &mut Batch) {
        let position = self.received - self.splitter.pending();
        if position > self.stored {
            batch.mark = Some(Mark { producer: self.producer, position });
        }
        self.channel.append(batch);
        self.stored = self.stored.max(position);
        batch.clear(2 * TURN);
    }

    /// Tells that the shim is gone, and with it what it had not sent.
    fn tell_loss(&self) {
        let since = clock::rfc3339_micros(self.last_at);
        let what = format!("output of {} since {since} may be lost, because its shim was killed.", self.process);
        self.channel.append(&loss(self.dyno, &what));
    }

    /// Stores a line whose end does not come.
    fn give_up_partial(&mut self) {
        if self.splitter.pending() == 0 {
            return;
        }
        let mut batch = Batch::default();
        let process = &self.process;
        self.splitter.flush(|at, text| batch.push(at, Source::App, process, text));
        self.store(&mut batch);
    }
}

/// Length of the first so many lines.
fn up_to(bytes: &[u8], lines: usize) -> usize {
    if bytes.len() <= lines {
        return bytes.len(); // nearly always, and always without a bound
    }
    memchr::memchr_iter(b'\n', bytes).nth(lines - 1).map_or(bytes.len(), |end| end + 1)
}

/// Length of the frame that begins here, as far as it is known.
fn frame_length(bytes: &[u8]) -> usize {
    let head: Option<[u8; 4]> = bytes.first_chunk().copied();
    head.map_or(0, |head| (u32::from_le_bytes(head) as usize).min(FRAME_MAX) + 4)
}
