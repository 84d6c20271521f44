//! The memory that a connection reads into: taken when bytes come, given back when all are used.
//!
//! A connection that waits holds none, so that many idle ones cost little. Freed memory stays with the thread for the
//! next connection, up to a bound.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// What most reads get.
pub(crate) const SMALL: usize = 16 << 10;
/// What a read gets after one that filled [`SMALL`].
const LARGE: usize = 64 << 10;
/// Pieces of each size that a thread keeps.
const SPARE: usize = 64;

thread_local! {
    static SPARES: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

fn take(size: usize) -> Vec<u8> {
    let spare = SPARES.try_with(|spares| spares.borrow_mut()[usize::from(size == LARGE)].pop());
    spare.ok().flatten().unwrap_or_else(|| vec![0; size])
}

fn give(piece: Vec<u8>) {
    if piece.len() != SMALL && piece.len() != LARGE {
        return;
    }
    // At the thread's end there is nobody left to give it to.
    let _ = SPARES.try_with(|spares| {
        let spares = &mut spares.borrow_mut()[usize::from(piece.len() == LARGE)];
        if spares.len() < SPARE {
            spares.push(piece);
        }
    });
}

/// Bytes that were read and are not used yet.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    piece: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read filled what it was given.
    eager: bool,
}

impl Buffer {
    /// A buffer that holds these bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let mut piece = take(if bytes.len() > SMALL { LARGE } else { SMALL });
        piece.resize(piece.len().max(bytes.len()), 0);
        piece[..bytes.len()].copy_from_slice(bytes);
        Self { piece, start: 0, end: bytes.len(), eager: false }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.piece[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Notes that the first bytes were used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && !self.piece.is_empty() {
            give(std::mem::take(&mut self.piece));
        }
    }

    /// Says whether more fits in without growing.
    pub(crate) fn has_room(&self) -> bool {
        self.piece.is_empty() || self.end - self.start < self.piece.len()
    }

    /// Reads once; 0 bytes are the end. When nothing has come, an empty buffer holds no memory afterwards.
    ///
    /// Grows by doubling while there is no room, so the caller bounds what it leaves unused.
    pub(crate) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.piece.is_empty() || (self.eager && self.is_empty() && self.piece.len() < LARGE) {
            give(std::mem::take(&mut self.piece));
            self.piece = take(if self.eager { LARGE } else { SMALL });
        } else if self.end == self.piece.len() {
            if self.start > 0 {
                self.piece.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.piece.resize(self.piece.len() * 2, 0);
            }
        }
        let mut room = ReadBuf::new(&mut self.piece[self.end..]);
        let read = Pin::new(stream).poll_read(context, &mut room);
        let (count, full) = (room.filled().len(), room.remaining() == 0);
        if read.is_pending() {
            self.eager = false;
            self.release();
        }
        ready!(read)?;
        self.end += count;
        self.eager = full;
        Poll::Ready(Ok(count))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.piece));
    }
}
