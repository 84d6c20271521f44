//! How far a drain has come in its app's stream, on disk, and what it missed.
//!
//! A drain has no queue of its own: the app's history is its buffer. What waits for it is what lies between its position
//! and the stream's end, so a drain that is dead costs no memory, however many there are, and a new run of the role goes
//! on where the last one ended. When more lines wait than may, the oldest are passed over, counted, and told at the
//! place where they are missing (L10); the count is exact, because history numbers its lines without gaps.
//!
//! The position is written before and after each frame that is acknowledged. A frame that was under way when the role
//! died is made again of the same lines, under the same id, so a receiver can tell that it has it already. Where there
//! are no acknowledgements, what is written is the position before the first frame that may not have arrived.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
};

use data_encoding::HEXLOWER;
use dozen_api::{
    clock::{self, Micros},
    logs::Source,
};
use dozen_domain::{codes::Code, ids::DrainId};
use ring::digest::{SHA256, digest};

use crate::{batch::Record, buffer::Bookmark, channel::Channel};

const BYTES: usize = 52;

/// A position as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    next: u64,          // ordinal of the first line that is not delivered
    dropped: u64,       // lines passed over and not told yet
    since: Micros,      // the last line before the first of them
    dropped_at: Micros, // when the last of them was passed over
    under_way: u32,     // lines of the frame that was begun
    last_at: Micros,    // time of the last line that was passed
}

impl State {
    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[4..12].copy_from_slice(&self.next.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.dropped.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.since.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.dropped_at.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.under_way.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last_at.to_le_bytes());
        bytes[48..52].copy_from_slice(b"DZD1");
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let checked: &[u8; BYTES] = bytes.first_chunk()?;
        let long = |at: usize| Some(u64::from_le_bytes(checked.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(checked.get(at..at + 4)?.try_into().ok()?));
        if short(0)? != crc32fast::hash(&checked[4..]) || &checked[48..] != b"DZD1" {
            return None;
        }
        Some(Self {
            next: long(4)?,
            dropped: long(12)?,
            since: long(20)?.cast_signed(),
            dropped_at: long(28)?.cast_signed(),
            under_way: short(36)?,
            last_at: long(40)?.cast_signed(),
        })
    }
}

/// What is to be delivered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The messages, in the receiver's form.
    pub(crate) bytes: Vec<u8>,
    /// How many; the notice of dropped lines is one of them.
    pub(crate) messages: u32,
    /// 32 hexadecimal digits; the same each time this frame is made.
    pub(crate) id: String,
    before: State,
    after: State,
    lines: u32,
}

impl Frame {
    /// The position before it.
    pub(crate) fn before(&self) -> State {
        self.before
    }
}

/// One drain's position in its app's stream.
pub(crate) struct Cursor {
    id: DrainId,
    channel: Arc<Channel>,
    path: PathBuf,
    file: Option<File>,
    state: State,
    kept: Option<State>, // what is in the file
    place: Bookmark,
    lags: bool,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.lag(false);
    }
}

impl Cursor {
    /// Takes up the position that was kept; a new drain begins at the stream's end.
    ///
    /// # Errors
    /// When history cannot be read or the position not be written.
    pub(crate) fn open(id: DrainId, channel: Arc<Channel>) -> io::Result<Self> {
        let path = path(&channel, id);
        let kept = match fs::read(&path) {
            Ok(bytes) => State::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let end = channel.ordinal()?;
        let fresh = State { next: end, last_at: clock::now(), ..State::default() };
        // A stream is shorter than a position in it only when its end was lost with the machine's power.
        let state = kept.map_or(fresh, |kept| State { next: kept.next.min(end), ..kept });
        let mut cursor =
            Self { id, channel, path, file: None, state, kept: None, place: Bookmark::default(), lags: false };
        cursor.keep(cursor.state)?;
        Ok(cursor)
    }

    /// The stream.
    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Says whether it has lines to send to a receiver that works: then those who write let it catch up.
    pub(crate) fn lag(&mut self, lags: bool) {
        if self.lags != lags {
            self.channel.turns().lags(lags);
            self.lags = lags;
        }
    }

    /// Says whether something is there to be delivered.
    ///
    /// # Errors
    /// When history cannot be read.
    pub(crate) fn is_behind(&self) -> io::Result<bool> {
        Ok(self.channel.ordinal()? > self.state.next)
    }

    /// Waits until something is there to be delivered.
    ///
    /// # Errors
    /// When history cannot be read.
    pub(crate) async fn behind(&self) -> io::Result<()> {
        loop {
            let mut stored = std::pin::pin!(self.channel.stored());
            stored.as_mut().enable();
            if self.is_behind()? {
                return Ok(());
            }
            stored.await;
        }
    }

    /// Makes the next frame: lines that wait, of which the last `waiting` are kept and the older ones dropped, up to
    /// `most` bytes and one line. `put` writes a line in the receiver's form. `None` when nothing waits.
    ///
    /// A frame that was begun before and not ended (by [`Cursor::delivered`] or [`Cursor::failed`]) is made again.
    ///
    /// # Errors
    /// When history cannot be read.
    pub(crate) fn next(
        &mut self,
        waiting: u64,
        most: usize,
        mut put: impl FnMut(&mut Vec<u8>, &Record<'_>),
    ) -> io::Result<Option<Frame>> {
        let end = self.channel.ordinal()?;
        self.state.next = self.state.next.min(end);
        if let Some(frame) = self.again(&mut put)? {
            return Ok(Some(frame));
        }
        let missed = (end - self.state.next).saturating_sub(waiting.max(1));
        self.drop_lines(missed);
        let frame = self.read(most, u32::MAX, &mut put)?;
        if frame.is_none() && self.state.next < end {
            // They were dropped from history while nobody read them, for example with the segment that held them.
            self.drop_lines(end - self.state.next);
        }
        Ok(frame)
    }

    /// The frame that was under way, if all of its lines are still there.
    fn again(&mut self, put: &mut impl FnMut(&mut Vec<u8>, &Record<'_>)) -> io::Result<Option<Frame>> {
        let lines = self.state.under_way;
        if lines == 0 {
            return Ok(None);
        }
        let from = self.state.next;
        let frame = self.read(usize::MAX, lines, put)?;
        let whole = frame.filter(|frame| frame.lines == lines && frame.before.next == from);
        if whole.is_none() {
            self.state.under_way = 0;
        }
        Ok(whole)
    }

    fn drop_lines(&mut self, lines: u64) {
        if lines == 0 {
            return;
        }
        if self.state.dropped == 0 {
            self.state.since = self.state.last_at;
        }
        self.state.dropped += lines;
        self.state.next += lines;
        self.state.dropped_at = clock::now();
        self.state.under_way = 0;
    }

    fn read(
        &mut self,
        most_bytes: usize,
        most_lines: u32,
        put: &mut impl FnMut(&mut Vec<u8>, &Record<'_>),
    ) -> io::Result<Option<Frame>> {
        let (mut bytes, mut lines, mut last_at) = (Vec::new(), 0, self.state.last_at);
        let (mut first, mut next) = (None, self.state.next);
        self.channel.read(&mut self.place, self.state.next, |ordinal, record| {
            if first.is_none() {
                first = Some(ordinal);
                next = ordinal;
            }
            if ordinal != next {
                return false; // lines are missing here: another frame's matter
            }
            put(&mut bytes, record);
            (lines, next, last_at) = (lines + 1, next + 1, record.at);
            bytes.len() < most_bytes && lines < most_lines
        })?;
        let Some(first) = first else { return Ok(None) };
        if first > self.state.next {
            self.drop_lines(first - self.state.next);
        }
        let before = self.state;
        if before.dropped > 0 {
            // Seldom, so it may move the other messages.
            let mut notice = Vec::new();
            let text = overflow(&before);
            let process = b"logplex";
            put(&mut notice, &Record { at: before.dropped_at, source: Source::Heroku, process, text: text.as_bytes() });
            bytes.splice(..0, notice);
        }
        let after = State { next, dropped: 0, under_way: 0, last_at, ..before };
        let id = self.frame_id(&before, lines);
        let messages = lines + u32::from(before.dropped > 0);
        Ok(Some(Frame { bytes, messages, id, before, after, lines }))
    }

    fn frame_id(&self, before: &State, lines: u32) -> String {
        let mut of = self.id.0.as_bytes().to_vec();
        of.extend_from_slice(&before.next.to_le_bytes());
        of.extend_from_slice(&before.dropped.to_le_bytes());
        of.extend_from_slice(&lines.to_le_bytes());
        HEXLOWER.encode(&digest(&SHA256, &of).as_ref()[..16])
    }

    /// Notes that a frame is about to be sent to a receiver that acknowledges it.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn begin(&mut self, frame: &Frame) -> io::Result<()> {
        if self.state.under_way != frame.lines {
            self.state.under_way = frame.lines;
            self.keep(self.state)?;
        }
        Ok(())
    }

    /// A frame has been delivered.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn delivered(&mut self, frame: &Frame) -> io::Result<()> {
        self.state = frame.after;
        self.keep(self.state)
    }

    /// A frame has been sent to a receiver that acknowledges nothing; see [`Cursor::keep_from`].
    pub(crate) fn passed(&mut self, frame: &Frame) {
        self.state = frame.after;
    }

    /// Keeps the position before the first frame that may not have arrived; without one, where the drain stands.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn keep_from(&mut self, unconfirmed: Option<State>) -> io::Result<()> {
        self.keep(unconfirmed.unwrap_or(self.state))
    }

    /// A frame has been delivered, and the receiver says of so many of its lines that it did not take them.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn delivered_but(&mut self, frame: &Frame, rejected: u64) -> io::Result<()> {
        let dropped = rejected.min(u64::from(frame.lines));
        self.state = State { dropped, since: frame.before.last_at, dropped_at: clock::now(), ..frame.after };
        self.keep(self.state)
    }

    /// A frame has been given up: its lines are dropped.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn failed(&mut self, frame: &Frame) -> io::Result<()> {
        self.drop_lines(u64::from(frame.lines));
        self.state.last_at = frame.after.last_at;
        self.keep(self.state)
    }

    /// Goes back to an earlier position: what was sent since then did not arrive.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn rewind(&mut self, to: State) -> io::Result<()> {
        self.state = to;
        self.place = Bookmark::default();
        self.keep(self.state)
    }

    fn keep(&mut self, state: State) -> io::Result<()> {
        if self.kept == Some(state) {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file,
            None => {
                if let Some(directory) = self.path.parent() {
                    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                }
                let options =
                    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
                self.file.insert(options)
            }
        };
        file.write_all_at(&state.encode(), 0)?;
        self.kept = Some(state);
        Ok(())
    }

    /// Closes the file; it is opened again when needed.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }
}

/// Where a drain's position is kept.
pub(crate) fn path(channel: &Channel, id: DrainId) -> PathBuf {
    channel.directory().join(format!("drain-{id}"))
}

fn overflow(state: &State) -> String {
    let (code, since) = (Code::L10, clock::rfc3339_micros(state.since));
    format!("Error {code} ({}): {} messages dropped since {since}.", code.description(), state.dropped)
}
