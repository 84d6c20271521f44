//! What a dyno printed and nobody has stored yet: raw bytes by their offset since the dyno's start, with the times at
//! which they were read.
//!
//! The memory is reserved but not touched until it is needed and given back when all is stored, so an idle dyno's
//! backlog costs nothing. When it is full the oldest bytes go; readers see that as a gap in the offsets and are told
//! how many went ([`Piece::dropped`]).

use std::{collections::VecDeque, io, ptr::NonNull};

use dozen_api::clock::Micros;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Bytes read within one millisecond of each other share a time.
const SAME_TIME: Micros = 1_000;
/// At most this many times are kept; beyond it bytes take the time of those before.
const TIMES: usize = 4_096;
/// More touched memory than this is given back when the backlog is empty.
const KEEP: usize = 64 << 10;

/// Memory from the kernel, given back at the end.
struct Region {
    start: NonNull<u8>,
    length: usize,
}

impl Region {
    fn new(length: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a fresh anonymous mapping that nothing else knows.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, protection, flags) }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is that long, zeroed at first, and lives as long as self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    fn release(&mut self) {
        // SAFETY: the mapping is anonymous: its contents become zero, which the ring does not look at.
        let _ = unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.length, Advice::LinuxDontNeed) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and goes with self.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The backlog.
pub(super) struct Ring {
    region: Region,
    /// Offset whose byte is at the region's start.
    base: u64,
    /// Offset of the first byte held.
    start: u64,
    /// Offset after the last byte held.
    end: u64,
    /// Up to where the bytes were stored by somebody else.
    stored: u64,
    /// Ends of the runs of bytes that were read at one time.
    times: VecDeque<(u64, Micros)>,
    touched: usize,
}

/// Some bytes of the backlog.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Offset of the first.
    pub(super) offset: u64,
    /// When they were read.
    pub(super) at: Micros,
    /// How many were dropped, unstored, before them.
    pub(super) dropped: u64,
    /// The bytes.
    pub(super) bytes: &'a [u8],
}

impl Ring {
    /// An empty backlog of at most this many bytes.
    pub(super) fn new(capacity: u64) -> io::Result<Self> {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX).clamp(4096, 1 << 30);
        let region = Region::new(capacity)?;
        Ok(Self { region, base: 0, start: 0, end: 0, stored: 0, times: VecDeque::new(), touched: 0 })
    }

    /// Offset of the first byte held.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Up to where bytes were stored.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// How many bytes it can hold.
    pub(super) fn capacity(&self) -> usize {
        self.region.length
    }

    /// How many more bytes it can hold without losing any.
    pub(super) fn free(&self) -> usize {
        self.region.length - (self.end - self.start) as usize
    }

    fn position(&self, offset: u64) -> usize {
        ((offset - self.base) % self.region.length as u64) as usize
    }

    /// Where the next bytes go; as long as there is room without a break.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.base = self.end;
        }
        let (from, free) = (self.position(self.end), self.free());
        let to = self.region.length.min(from + free);
        &mut self.region.bytes_mut()[from..to]
    }

    /// Takes the first bytes of [`Ring::room`] in.
    pub(super) fn filled(&mut self, length: usize, at: Micros) {
        self.touched = self.touched.max(self.position(self.end) + length);
        self.end += length as u64;
        let full = self.times.len() >= TIMES;
        match self.times.back_mut() {
            Some(last) if full || at - last.1 < SAME_TIME => last.0 = self.end,
            _ => self.times.push_back((self.end, at)),
        }
    }

    /// Drops the oldest bytes until this many have room, but none from `keep_from` on.
    pub(super) fn make_room(&mut self, length: usize, keep_from: u64) {
        let missing = length.min(self.region.length).saturating_sub(self.free()) as u64;
        self.forget(self.start + missing.min(keep_from.saturating_sub(self.start)));
    }

    /// Bytes below this offset are stored elsewhere and need not be held.
    pub(super) fn store(&mut self, offset: u64) {
        self.stored = self.stored.max(offset.min(self.end));
        self.forget(self.stored.max(self.start));
    }

    /// Bytes below this offset are stored elsewhere; they are held all the same until their room is needed.
    pub(super) fn store_and_hold(&mut self, offset: u64) {
        self.stored = self.stored.max(offset.min(self.end));
    }

    fn forget(&mut self, offset: u64) {
        self.start = offset;
        while self.times.front().is_some_and(|(end, _)| *end <= offset) {
            self.times.pop_front();
        }
        if self.start == self.end && self.touched > KEEP {
            self.region.release();
            self.touched = 0;
            self.times.shrink_to(0);
        }
    }

    /// The bytes from an offset on, as far as they were read at one time and lie together; `None` when there are none
    /// yet. What is not held any more is skipped.
    pub(super) fn piece(&self, from: u64, most: usize) -> Option<Piece<'_>> {
        let offset = from.max(self.start);
        if offset >= self.end {
            return None;
        }
        let index = self.times.partition_point(|(end, _)| *end <= offset);
        let (end, at) = *self.times.get(index)?;
        let position = self.position(offset);
        let length = ((end - offset) as usize).min(most).min(self.region.length - position);
        let dropped = offset - from.max(self.stored).min(offset);
        Some(Piece { offset, at, dropped, bytes: &self.region.bytes()[position..position + length] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = usize::MAX;

    fn push(ring: &mut Ring, mut bytes: &[u8], at: Micros) {
        while !bytes.is_empty() {
            let length = bytes.len();
            ring.make_room(length, u64::MAX);
            let room = ring.room();
            let n = length.min(room.len());
            room[..n].copy_from_slice(&bytes[..n]);
            ring.filled(n, at);
            bytes = &bytes[n..];
        }
    }

    #[test]
    fn bytes_come_back_with_their_offsets_and_times() {
        let mut ring = Ring::new(4096).expect("memory");
        push(&mut ring, b"one\n", 5_000_000);
        push(&mut ring, b"more\n", 5_000_100);
        push(&mut ring, b"two\n", 6_000_000);
        let first = Piece { offset: 0, at: 5_000_000, dropped: 0, bytes: b"one\nmore\n" };
        assert_eq!(ring.piece(0, ALL), Some(first));
        assert_eq!(ring.piece(2, 3).expect("held").bytes, b"e\nm");
        assert_eq!(ring.piece(9, ALL), Some(Piece { offset: 9, at: 6_000_000, dropped: 0, bytes: b"two\n" }));
        assert_eq!(ring.piece(13, ALL), None);
    }

    #[test]
    fn stored_bytes_go_without_counting_as_dropped() {
        let mut ring = Ring::new(4096).expect("memory");
        push(&mut ring, b"stored, kept", 1);
        ring.store(8);
        assert_eq!(ring.piece(0, ALL), Some(Piece { offset: 8, at: 1, dropped: 0, bytes: b"kept" }));
        ring.store(4);
        assert_eq!(ring.stored(), 8);
        ring.store(100);
        assert_eq!((ring.stored(), ring.free()), (12, 4096));
    }

    #[test]
    fn held_bytes_are_there_for_a_later_reader_until_their_room_is_needed() {
        let mut ring = Ring::new(4096).expect("memory");
        push(&mut ring, b"migrating", 1);
        ring.store_and_hold(9);
        assert_eq!(ring.piece(0, 100).expect("held").bytes, b"migrating");
        assert_eq!(ring.stored(), 9);
        ring.make_room(ring.capacity(), u64::MAX);
        assert_eq!((ring.start(), ring.free()), (9, ring.capacity()));
    }

    #[test]
    fn the_oldest_go_when_it_is_full_and_are_counted() {
        let mut ring = Ring::new(4096).expect("memory");
        push(&mut ring, &[b'a'; 1000], 1);
        ring.store(1000);
        push(&mut ring, &[b'b'; 4096], 1);
        push(&mut ring, &[b'c'; 96], 2_000_000);
        assert_eq!((ring.start(), ring.end()), (1096, 5192));
        let piece = ring.piece(1000, ALL).expect("held");
        assert_eq!((piece.offset, piece.dropped), (1096, 96));
        // Across the end of the memory everything is still there, in order.
        let mut all = Vec::new();
        let mut from = 0;
        while let Some(piece) = ring.piece(from, ALL) {
            all.extend_from_slice(piece.bytes);
            from = piece.offset + piece.bytes.len() as u64;
        }
        assert_eq!(all, [vec![b'b'; 4000], vec![b'c'; 96]].concat());
    }

    #[test]
    fn what_a_reader_needs_is_not_dropped() {
        let mut ring = Ring::new(4096).expect("memory");
        push(&mut ring, &[b'a'; 4096], 1);
        ring.make_room(100, 40);
        assert_eq!((ring.start(), ring.free()), (40, 40));
    }

    #[test]
    fn many_tiny_writes_keep_few_times() {
        let mut ring = Ring::new(1 << 20).expect("memory");
        for n in 0..10_000 {
            push(&mut ring, b"x", n * 10_000);
        }
        assert!(ring.times.len() <= TIMES);
        assert_eq!(ring.piece(9_999, ALL).expect("held").bytes, b"x");
        ring.store(u64::MAX);
        assert!(ring.times.is_empty());
    }
}
