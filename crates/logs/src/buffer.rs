//! One app's history on disk: a few segments of blocks, the last 1,500 lines and never much more.
//!
//! A segment is called by the number of its first line (or a little more), is only appended to, and begins with the positions of all
//! producers, so that older segments can go. Appending is one `writev`; what it leaves when it fails or is cut short
//! by a kill is cut off again, at once or at the next [`Buffer::open`].
//!
//! Survives a kill at any instant. Survives a power cut but for the last seconds ([`crate::channel::Channels::sync`]);
//! line numbers are not used again even then, because numbering goes on at the time in microseconds when that is ahead.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    batch::{Batch, Mark, Producer, Record, records},
    block::{self, Block},
};

/// A sender that was quiet this long will not send its last batch again.
const SENDER_KEPT: Duration = Duration::from_secs(600);
/// History is this many segments; the newest of them may be nearly empty.
const SEGMENTS: u64 = 3;

#[derive(Debug, Clone, Copy)]
struct Segment {
    name: u64,    // number of its first line
    ordinal: u64, // lines stored before it
}

#[derive(Debug, Clone, Copy)]
struct Position {
    mark: Mark,
    touched: Instant,
}

/// Where somebody who reads lines by ordinal is: a block of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bookmark {
    segment: u64,
    offset: u64,
    ordinal: u64,         // of the first line there
    recent: (u64, usize), // a line of [`Recent`], and where it begins
}

/// The lines that were stored last, in memory for the drains that want them now.
#[derive(Debug)]
pub(crate) struct Recent {
    first: u64, // ordinal
    records: Vec<u8>,
}

impl Recent {
    /// These records, of which the first has this ordinal.
    pub(crate) fn new(first: u64, records: &[u8]) -> Self {
        Self { first, records: records.to_vec() }
    }

    /// As [`Buffer::read`]; `false` when the first line wanted is not among these.
    pub(crate) fn read(&self, place: &mut Bookmark, from: u64, mut each: impl FnMut(u64, &Record<'_>) -> bool) -> bool {
        if from < self.first {
            return false;
        }
        let (mut ordinal, mut at) = place.recent;
        if ordinal < self.first || ordinal > from {
            (ordinal, at) = (self.first, 0);
        }
        for record in records(self.records.get(at..).unwrap_or_default()) {
            place.recent = (ordinal, at);
            if ordinal >= from && !each(ordinal, &record) {
                break;
            }
            (ordinal, at) = (ordinal + 1, at + record.size());
        }
        true
    }
}

/// The history of one app.
#[derive(Debug)]
pub(crate) struct Buffer {
    directory: PathBuf,
    keep: u64,
    segments: VecDeque<Segment>,
    file: Option<File>,
    length: u64,   // valid bytes of the last segment
    ordinal: u64,  // lines stored ever
    sequence: u64, // number of the last line stored
    positions: Vec<Position>,
    all_positions: bool, // the next block has to carry all of them
    rotate: bool,        // the last segment could not be repaired
    dirty: bool,         // lines were stored since `unsynced`
}

impl Buffer {
    /// Finds what is in `directory`, which need not exist, and cuts off a block that was not written to its end.
    /// `live` says whether a dyno may still have output to deliver.
    ///
    /// # Errors
    /// When the directory or a file cannot be read.
    pub(crate) fn open(directory: PathBuf, keep: u64, live: impl Fn(&Producer) -> bool) -> io::Result<Self> {
        let mut buffer = Self {
            directory,
            keep: keep.max(1),
            segments: VecDeque::new(),
            file: None,
            length: 0,
            ordinal: 0,
            sequence: 0,
            positions: Vec::new(),
            all_positions: false,
            rotate: false,
            dirty: false,
        };
        let mut names = segment_names(&buffer.directory)?;
        while let Some(name) = names.pop() {
            if buffer.recover(name, buffer.segments.is_empty())? {
                continue;
            }
            let path = buffer.path(name);
            tracing::warn!(path = %path.display(), "removing a log segment without a valid block");
            fs::remove_file(path)?;
        }
        buffer.positions.retain(|position| live(&position.mark.producer));
        Ok(buffer)
    }

    /// Takes a segment in, newest first; `false` when there is nothing valid in it.
    fn recover(&mut self, name: u64, newest: bool) -> io::Result<bool> {
        let path = self.path(name);
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        let Some(first) = block::read(&file, 0, length)? else { return Ok(false) };
        self.segments.push_front(Segment { name, ordinal: first.head.ordinal });
        if !newest {
            return Ok(true);
        }
        let mut next = Some(first);
        while let Some(block) = next {
            self.length += block.head.length();
            self.ordinal = block.head.ordinal + u64::from(block.head.lines);
            self.sequence = block.head.sequence + u64::from(block.head.lines).saturating_sub(1);
            block.marks().for_each(|mark| self.note(mark));
            next = block::read(&file, self.length, length)?;
        }
        if self.length < length {
            let torn = length - self.length;
            tracing::warn!(path = %path.display(), bytes = torn, "cutting off an incomplete block of log lines");
            OpenOptions::new().write(true).open(&path)?.set_len(self.length)?;
        }
        Ok(true)
    }

    /// Number of the newest line that is stored; 0 before the first.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.sequence
    }

    /// Up to where a producer's lines are stored (or were given up); 0 for a new one.
    pub(crate) fn position(&self, producer: &Producer) -> u64 {
        self.positions.iter().find(|known| known.mark.producer == *producer).map_or(0, |known| known.mark.position)
    }

    /// Remembers a position without storing it; the next block will carry it.
    pub(crate) fn give_up(&mut self, mark: Mark) {
        self.note(mark);
        self.all_positions = true;
    }

    /// Forgets a producer that is gone.
    pub(crate) fn forget(&mut self, producer: &Producer) {
        self.positions.retain(|known| known.mark.producer != *producer);
        self.positions.shrink_to_fit();
    }

    fn note(&mut self, mark: Mark) {
        let position = Position { mark, touched: Instant::now() };
        match self.positions.iter_mut().find(|known| known.mark.producer == mark.producer) {
            Some(known) => *known = position,
            None => self.positions.push(position),
        }
    }

    /// Stores a batch, its first line under number `sequence`.
    ///
    /// # Errors
    /// When it could not be stored; nothing of it is.
    pub(crate) fn append(&mut self, sequence: u64, batch: &Batch) -> io::Result<()> {
        let in_last = self.segments.back().map_or(0, |last| self.ordinal - last.ordinal);
        let rotate = self.rotate || self.segments.is_empty() || in_last >= (self.keep / SEGMENTS).max(1);
        let marks = self.marks(batch, rotate || self.all_positions);
        let head = block::encode(sequence, self.ordinal, batch.lines, &marks, &batch.records);
        if rotate {
            self.begin_segment(sequence, &head, &batch.records)?;
        } else {
            self.extend_segment(&head, &batch.records)?;
        }
        self.length += (head.len() + batch.records.len()) as u64;
        self.ordinal += u64::from(batch.lines);
        self.sequence = sequence + u64::from(batch.lines).saturating_sub(1);
        self.all_positions = false;
        self.dirty = true;
        if let Some(mark) = batch.mark {
            self.note(mark);
        }
        if rotate {
            self.drop_old();
        }
        Ok(())
    }

    fn marks(&mut self, batch: &Batch, all: bool) -> Vec<Mark> {
        let mut marks: Vec<Mark> = batch.mark.into_iter().collect();
        if all {
            let kept = |known: &Position| {
                matches!(known.mark.producer, Producer::Dyno(_)) || known.touched.elapsed() < SENDER_KEPT
            };
            self.positions.retain(kept);
            let others = self.positions.iter().map(|known| known.mark);
            marks.extend(others.filter(|mark| batch.mark.is_none_or(|new| new.producer != mark.producer)));
        }
        marks
    }

    fn begin_segment(&mut self, sequence: u64, head: &[u8], records: &[u8]) -> io::Result<()> {
        if self.segments.is_empty() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        }
        let name = self.segments.back().map_or(sequence, |last| sequence.max(last.name + 1));
        let path = self.path(name);
        let mut file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
        if let Err(error) = write_whole(&mut file, head, records) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        self.segments.push_back(Segment { name, ordinal: self.ordinal });
        self.file = Some(file);
        self.length = 0;
        self.rotate = false;
        Ok(())
    }

    fn extend_segment(&mut self, head: &[u8], records: &[u8]) -> io::Result<()> {
        let Some(last) = self.segments.back() else { return Err(io::ErrorKind::NotFound.into()) };
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed
                .insert(OpenOptions::new().read(true).append(true).open(self.directory.join(file_name(last.name)))?),
        };
        if let Err(error) = write_whole(file, head, records) {
            self.rotate = file.set_len(self.length).is_err();
            self.file = None;
            return Err(error);
        }
        Ok(())
    }

    /// Removes segments that the last lines to keep do not need.
    fn drop_old(&mut self) {
        while let Some(second) = self.segments.get(1)
            && self.ordinal - second.ordinal >= self.keep
        {
            let Some(old) = self.segments.pop_front() else { return };
            if let Err(error) = fs::remove_file(self.path(old.name)) {
                tracing::warn!(path = %self.path(old.name).display(), %error, "cannot remove old log lines");
            }
        }
    }

    /// How many lines were ever stored: the ordinal of the line that comes next.
    pub(crate) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Gives stored lines by ordinal, from `from` on, until `each` wants no more. Lines that are no longer there are
    /// passed over. `place` is where the last call ended; it makes this one short.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub(crate) fn read(
        &self,
        place: &mut Bookmark,
        from: u64,
        mut each: impl FnMut(u64, &Record<'_>) -> bool,
    ) -> io::Result<()> {
        let known = self.segments.iter().position(|segment| segment.name == place.segment && place.ordinal <= from);
        let begin = known.unwrap_or_else(|| {
            *place = Bookmark::default();
            self.segments.iter().rposition(|segment| segment.ordinal <= from).unwrap_or(0)
        });
        for (index, segment) in self.segments.iter().enumerate().skip(begin) {
            if index > begin || place.segment != segment.name {
                *place = Bookmark { segment: segment.name, offset: 0, ordinal: segment.ordinal, ..*place };
            }
            let opened;
            let (file, length) = match &self.file {
                Some(file) if index + 1 == self.segments.len() => (file, self.length),
                _ => {
                    opened = File::open(self.path(segment.name))?;
                    let whole = opened.metadata()?.len();
                    (&opened, if index + 1 == self.segments.len() { self.length } else { whole })
                }
            };
            while let Some(head) = block::peek(file, place.offset, length)? {
                if head.ordinal + u64::from(head.lines) > from {
                    let Some(block) = block::read(file, place.offset, length)? else { break };
                    for (ordinal, record) in (head.ordinal..).zip(records(block.records())) {
                        if ordinal >= from && !each(ordinal, &record) {
                            return Ok(());
                        }
                    }
                }
                place.offset += head.length();
                place.ordinal = head.ordinal + u64::from(head.lines);
            }
        }
        Ok(())
    }

    /// Removes lines of segments to which nothing was added since `before`; positions of producers stay.
    ///
    /// # Errors
    /// When that cannot be written or removed.
    pub(crate) fn expire(&mut self, before: SystemTime) -> io::Result<()> {
        let mut old = Vec::new();
        for segment in &self.segments {
            if fs::metadata(self.path(segment.name))?.modified()? >= before {
                break;
            }
            old.push(segment.name);
        }
        if !old.is_empty() && old.len() == self.segments.len() {
            if self.segments.back().is_some_and(|last| last.ordinal == self.ordinal) {
                old.pop(); // it holds nothing but positions
            } else {
                self.rotate = true;
                self.append(self.sequence + 1, &Batch::default())?;
            }
        }
        self.segments.retain(|segment| !old.contains(&segment.name));
        for name in old {
            match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The files that hold what was stored since the last call, to be written to the disk itself.
    pub(crate) fn unsynced(&mut self) -> Vec<PathBuf> {
        if !std::mem::take(&mut self.dirty) {
            return Vec::new();
        }
        let mut paths: Vec<PathBuf> = self.segments.iter().map(|segment| self.path(segment.name)).collect();
        paths.push(self.directory.clone()); // for segments that are new
        paths
    }

    /// Closes the file; it is opened again when lines come.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// What is stored now, readable also when it is dropped later.
    ///
    /// # Errors
    /// When a segment cannot be opened.
    pub(crate) fn snapshot(&self) -> io::Result<Snapshot> {
        let last = self.segments.len().saturating_sub(1);
        let files = self.segments.iter().enumerate().map(|(i, segment)| {
            let file = File::open(self.path(segment.name))?;
            let length = if i == last { self.length } else { file.metadata()?.len() };
            Ok((file, length))
        });
        Ok(Snapshot { files: files.collect::<io::Result<_>>()? })
    }

    fn path(&self, name: u64) -> PathBuf {
        self.directory.join(file_name(name))
    }
}

/// An app's history at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    files: Vec<(File, u64)>,
}

impl Snapshot {
    /// The blocks in order. A file that cannot be read on ends with the error, and the next one begins.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = io::Result<Block>> + '_ {
        self.files.iter().flat_map(|(file, length)| {
            let mut offset = Some(0);
            std::iter::from_fn(move || {
                let at = offset.take()?;
                let block = block::read(file, at, *length).transpose()?;
                if let Ok(block) = &block {
                    offset = Some(at + block.head.length());
                }
                Some(block)
            })
        })
    }
}

fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.log")
}

/// Names of the segments in a directory, oldest first.
fn segment_names(directory: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()));
    }
    names.sort_unstable();
    Ok(names)
}

/// Writes both by one system call; a short write is an error, because only the end of the disk makes one.
fn write_whole(file: &mut File, head: &[u8], records: &[u8]) -> io::Result<()> {
    let written = loop {
        match file.write_vectored(&[IoSlice::new(head), IoSlice::new(records)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            written => break written?,
        }
    };
    if written < head.len() + records.len() {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "only a part of the lines could be written"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dozen_api::logs::Source;
    use uuid::Uuid;

    use super::*;

    const DYNO: Producer = Producer::Dyno(Uuid::from_u128(7));

    fn open(directory: &Path) -> Buffer {
        Buffer::open(directory.join("app"), 30, |_| true).expect("a buffer")
    }

    #[test]
    fn what_was_stored_last_is_read_from_memory_by_ordinal() {
        let mut batch = Batch::default();
        for n in 10..20 {
            batch.push(0, Source::App, "web.1", n.to_string().as_bytes());
        }
        let recent = Recent::new(10, &batch.records);
        let mut place = Bookmark::default();
        let mut read = |from: u64, most: usize| {
            let mut got = Vec::new();
            let there = recent.read(&mut place, from, |ordinal, record| {
                assert_eq!(record.text, ordinal.to_string().as_bytes());
                got.push(ordinal);
                got.len() < most
            });
            there.then_some(got)
        };
        assert_eq!(read(9, 5), None, "it begins later");
        assert_eq!(read(10, 3), Some(vec![10, 11, 12]));
        assert_eq!(read(13, 3), Some(vec![13, 14, 15]));
        assert_eq!(read(12, 1), Some(vec![12]), "back again");
        assert_eq!(read(18, 9), Some(vec![18, 19]));
        assert_eq!(read(20, 9), Some(Vec::new()));
    }

    /// Stores lines `from..to`, one a batch, and the position after each.
    fn store(buffer: &mut Buffer, from: u64, to: u64) {
        for n in from..to {
            let mark = Some(Mark { producer: DYNO, position: n + 1 });
            let mut batch = Batch { mark, ..Batch::default() };
            batch.push(0, Source::App, "web.1", n.to_string().as_bytes());
            buffer.append(n + 1, &batch).expect("a write");
        }
    }

    fn texts(buffer: &Buffer) -> Vec<u64> {
        let snapshot = buffer.snapshot().expect("a snapshot");
        let mut texts = Vec::new();
        for block in snapshot.blocks() {
            let block = block.expect("a block");
            texts
                .extend(records(block.records()).filter_map(|r| std::str::from_utf8(r.text).ok()?.parse::<u64>().ok()));
        }
        texts
    }

    #[test]
    fn the_last_lines_are_kept_and_not_many_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut buffer = open(directory.path());
        for n in 0..200 {
            store(&mut buffer, n, n + 1);
            let texts = texts(&buffer);
            let first = texts[0];
            assert_eq!(texts, (first..=n).collect::<Vec<_>>());
            assert!(texts.len() as u64 >= 30.min(n + 1) && texts.len() <= 40, "{} lines after {n}", texts.len());
        }
    }

    #[test]
    fn positions_and_numbers_survive_reopening_and_rotation() {
        let directory = tempfile::tempdir().expect("a directory");
        let other = Mark { producer: Producer::Dyno(Uuid::from_u128(8)), position: 99 };
        for n in 0..100 {
            let mut buffer = open(directory.path());
            if n == 0 {
                buffer.append(0, &Batch { mark: Some(other), ..Batch::default() }).expect("a write");
            }
            store(&mut buffer, n, n + 1);
            let again = open(directory.path());
            assert_eq!((again.last_sequence(), again.position(&DYNO)), (n + 1, n + 1));
            assert_eq!(again.position(&other.producer), 99, "after {n}");
            assert_eq!(texts(&again), texts(&buffer));
        }
    }

    #[test]
    fn a_block_cut_anywhere_is_cut_off_and_its_position_is_the_one_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut buffer = open(directory.path());
        store(&mut buffer, 0, 5);
        let path = buffer.path(1);
        let whole = fs::read(&path).expect("a segment");
        let before = whole.len() / 5 * 4;
        for length in before..whole.len() {
            fs::write(&path, &whole[..length]).expect("a write");
            let mut torn = open(directory.path());
            assert_eq!((texts(&torn), torn.position(&DYNO)), (vec![0, 1, 2, 3], 4), "cut at {length}");
            store(&mut torn, 4, 5);
            assert_eq!(texts(&open(directory.path())), [0, 1, 2, 3, 4]);
        }
        let mut garbled = whole.clone();
        garbled[before + 60] ^= 1;
        fs::write(&path, &garbled).expect("a write");
        assert_eq!(texts(&open(directory.path())), [0, 1, 2, 3]);
    }

    #[test]
    fn a_segment_without_a_valid_block_is_removed_and_the_one_before_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut buffer = open(directory.path());
        store(&mut buffer, 0, 10);
        fs::write(buffer.path(11), b"DZGL").expect("a write");
        let mut again = open(directory.path());
        assert_eq!((again.last_sequence(), again.position(&DYNO)), (10, 10));
        store(&mut again, 10, 12);
        assert_eq!(texts(&open(directory.path())), (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_read_by_ordinal_from_wherever_somebody_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut buffer = open(directory.path());
        let (mut place, mut next, mut got) = (Bookmark::default(), 0, Vec::new());
        for n in 0..100 {
            store(&mut buffer, n * 3, n * 3 + 3);
            let most = if n % 2 == 0 { 1 } else { 9 };
            let mut taken = 0;
            let read = buffer.read(&mut place, next, |ordinal, record| {
                if taken < most {
                    got.push((ordinal, std::str::from_utf8(record.text).expect("text").to_owned()));
                    (taken, next) = (taken + 1, ordinal + 1);
                }
                taken < most
            });
            read.expect("a read");
        }
        let expected: Vec<_> = (0..got.len() as u64).map(|n| (n, n.to_string())).collect();
        assert!(got.len() > 250 && got == expected, "{got:?}");
        let mut again = Vec::new();
        let read = buffer.read(&mut place, next - 3, |ordinal, _| {
            again.push(ordinal);
            true
        });
        read.expect("a read");
        assert_eq!(again[..3], [next - 3, next - 2, next - 1], "going back works too");
        let mut first = None;
        let read = buffer.read(&mut Bookmark::default(), 0, |ordinal, _| {
            first = Some(ordinal);
            false
        });
        read.expect("a read");
        assert!(first.is_some_and(|first| (260..=270).contains(&first)), "{first:?}");
    }

    #[test]
    fn expired_lines_go_and_positions_and_numbers_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut buffer = open(directory.path());
        store(&mut buffer, 0, 25);
        let long_ago = SystemTime::now() - Duration::from_secs(3_600);
        let age = |name: u64, buffer: &Buffer| {
            let file = OpenOptions::new().append(true).open(buffer.path(name)).expect("a segment");
            file.set_modified(long_ago).expect("a change of time");
        };
        age(buffer.segments[0].name, &buffer);
        let before = SystemTime::now() - Duration::from_secs(60);
        buffer.expire(before).expect("a removal");
        assert_eq!(texts(&buffer), (10..25).collect::<Vec<_>>());
        let names: Vec<u64> = buffer.segments.iter().map(|segment| segment.name).collect();
        names.into_iter().for_each(|name| age(name, &buffer));
        for _ in 0..2 {
            buffer.expire(before).expect("a removal");
            let again = open(directory.path());
            assert_eq!((texts(&again), again.position(&DYNO), again.ordinal()), (vec![], 25, 25));
            assert!(again.last_sequence() >= 25 && again.segments.len() == 1);
        }
        store(&mut buffer, 25, 27);
        assert_eq!(texts(&open(directory.path())), [25, 26]);
    }

    #[test]
    fn a_snapshot_is_readable_after_its_segments_were_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut buffer = open(directory.path());
        store(&mut buffer, 0, 12);
        let snapshot = buffer.snapshot().expect("a snapshot");
        store(&mut buffer, 12, 200);
        let lines: u32 = snapshot.blocks().map(|block| block.expect("a block").head.lines).sum();
        assert_eq!(lines, 12);
    }
}
