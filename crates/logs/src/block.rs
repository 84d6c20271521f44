//! The unit in which history is written: a checked block of lines with the positions of their producers.
//!
//! A block is written by one system call and is valid as a whole or not at all: its checksum covers everything after
//! itself. Layout, little-endian: `u32` magic, `u32` CRC-32, `u32` body length, `u32` marks, `u32` lines, `u32` zero,
//! `u64` number of the first line, `u64` lines stored in this app's stream before; then the body: marks of `u8` kind
//! (0 dyno, 1 sender), 16 bytes id, `u64` position each, and records ([`crate::batch`]).

use std::{fs::File, io, os::unix::fs::FileExt};

use uuid::Uuid;

use crate::batch::{Mark, Producer};

const MAGIC: u32 = 0x4c47_5a44; // "DZGL" read backwards
const HEAD: usize = 40;
const MARK: usize = 25;
/// A longer body is taken for garbage: a batch holds at most what was read at once, and its lines' overhead.
const BODY_MAX: u32 = 256 << 20;

/// What a block says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    checksum: u32,
    body: u32,
    marks: u32,
    /// Lines in it.
    pub(crate) lines: u32,
    /// Number of its first line.
    pub(crate) sequence: u64,
    /// Lines stored in the app's stream before it.
    pub(crate) ordinal: u64,
}

impl Head {
    /// Bytes of the whole block.
    pub(crate) fn length(&self) -> u64 {
        HEAD as u64 + u64::from(self.body)
    }
}

/// A block that was read.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) head: Head,
    body: Vec<u8>,
}

impl Block {
    /// The lines.
    pub(crate) fn records(&self) -> &[u8] {
        self.body.get(self.head.marks as usize * MARK..).unwrap_or_default()
    }

    /// The positions of producers.
    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.body.chunks_exact(MARK).take(self.head.marks as usize).filter_map(|mark| {
            let id = Uuid::from_slice(&mark[1..17]).ok()?;
            let producer = if mark[0] == 0 { Producer::Dyno(id) } else { Producer::Sender(id) };
            Some(Mark { producer, position: u64::from_le_bytes(mark[17..].try_into().ok()?) })
        })
    }
}

/// The bytes of a block that come before its records.
pub(crate) fn encode(sequence: u64, ordinal: u64, lines: u32, marks: &[Mark], records: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + marks.len() * MARK);
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&((marks.len() * MARK + records.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&(marks.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&lines.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&ordinal.to_le_bytes());
    for mark in marks {
        let (kind, id) = match mark.producer {
            Producer::Dyno(id) => (0, id),
            Producer::Sender(id) => (1, id),
        };
        bytes.push(kind);
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&mark.position.to_le_bytes());
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&bytes[8..]);
    checksum.update(records);
    bytes[4..8].copy_from_slice(&checksum.finalize().to_le_bytes());
    bytes
}

fn head(bytes: &[u8; HEAD]) -> Option<Head> {
    let short = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let long = |at: usize| u64::from(short(at)) | u64::from(short(at + 4)) << 32;
    let head = Head {
        checksum: short(4),
        body: short(8),
        marks: short(12),
        lines: short(16),
        sequence: long(24),
        ordinal: long(32),
    };
    (short(0) == MAGIC && head.body <= BODY_MAX && u64::from(head.marks) * MARK as u64 <= u64::from(head.body))
        .then_some(head)
}

/// Reads what the block at `offset` of a file of `length` bytes says about itself, without checking it.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn peek(file: &File, offset: u64, length: u64) -> io::Result<Option<Head>> {
    let mut bytes = [0; HEAD];
    if offset + HEAD as u64 > length {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, offset)?;
    Ok(head(&bytes).filter(|head| offset + head.length() <= length))
}

/// Reads the valid block at `offset` of a file of `length` bytes; `None` when there is none.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn read(file: &File, offset: u64, length: u64) -> io::Result<Option<Block>> {
    let mut bytes = [0; HEAD];
    if offset + HEAD as u64 > length {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, offset)?;
    let Some(head) = head(&bytes).filter(|head| offset + head.length() <= length) else { return Ok(None) };
    let mut body = vec![0; head.body as usize];
    file.read_exact_at(&mut body, offset + HEAD as u64)?;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&bytes[8..]);
    checksum.update(&body);
    Ok((checksum.finalize() == head.checksum).then_some(Block { head, body }))
}
