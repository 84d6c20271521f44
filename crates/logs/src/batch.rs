//! Lines on their way to one app's stream, in the form in which they are stored.
//!
//! A record is `i64` microseconds, `u8` source (0 app, 1 heroku), `u8` length and process, `u32` length and text, all
//! little-endian. Encoding once is what makes the path fast: the same bytes are written to disk and read by tails.

use std::borrow::Cow;

use dozen_api::{
    clock::{Micros, Stamp},
    logs::Source,
};
use uuid::Uuid;

/// Bytes of a record that are not process or text.
const FIXED: usize = 14;

/// Who delivers lines: what a [`Mark`] belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Producer {
    /// A dyno; positions are byte offsets of its output.
    Dyno(Uuid),
    /// One run of another role; positions are batch numbers.
    Sender(Uuid),
}

/// Up to where a producer's lines are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) producer: Producer,
    pub(crate) position: u64,
}

/// Lines of one app and the position of the producer behind them, stored together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<u8>,
    pub(crate) lines: u32,
    pub(crate) mark: Option<Mark>,
}

impl Batch {
    /// Adds a line; bytes that are no UTF-8, and control characters that are no layout, become U+FFFD.
    pub(crate) fn push(&mut self, at: Micros, source: Source, process: &str, text: &[u8]) {
        let text = safe(text);
        let mut end = process.len().min(255);
        while !process.is_char_boundary(end) {
            end -= 1;
        }
        self.records.reserve(FIXED + end + text.len());
        self.records.extend_from_slice(&at.to_le_bytes());
        self.records.push(u8::from(source == Source::Heroku));
        self.records.push(end as u8);
        self.records.extend_from_slice(&process.as_bytes()[..end]);
        self.records.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.records.extend_from_slice(text.as_bytes());
        self.lines += 1;
    }

    /// Says whether there is nothing to store.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines == 0 && self.mark.is_none()
    }

    /// Empties it for the next use; `keep` bytes stay allocated at most.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.records.clear();
        self.records.shrink_to(keep);
        self.lines = 0;
        self.mark = None;
    }
}

/// Text that harms neither terminals nor programs written in C: tabulators, carriage returns and escape sequences (they
/// colour) stay.
fn safe(text: &[u8]) -> Cow<'_, str> {
    let harmful = |byte: u8| byte < b' ' && byte != b'\t' && byte != b'\r' && byte != 0x1b;
    // The check is many times faster than the repair.
    let text = std::str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed);
    // Not `any`: without an early end it is done on many bytes at a time.
    if !text.bytes().fold(false, |found, byte| found | harmful(byte)) {
        return text;
    }
    let replace = |c: char| if c.is_ascii() && harmful(c as u8) { char::REPLACEMENT_CHARACTER } else { c };
    Cow::Owned(text.chars().map(replace).collect())
}

/// One stored line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) at: Micros,
    pub(crate) source: Source,
    pub(crate) process: &'a [u8],
    pub(crate) text: &'a [u8],
}

impl Record<'_> {
    /// The line as people see it: `2024-01-01T00:00:00.000000+00:00 app[web.1]: text`. `stamp` is for many lines.
    pub(crate) fn line(&self, stamp: &mut Stamp) -> String {
        let mut line = String::with_capacity(self.process.len() + self.text.len() + 48);
        line.push_str(stamp.text(self.at));
        line.push(' ');
        line.push_str(self.source.as_str());
        line.push('[');
        push(&mut line, self.process);
        line.push_str("]: ");
        push(&mut line, self.text);
        line
    }

    /// Bytes of it as it is stored.
    pub(crate) fn size(&self) -> usize {
        FIXED + self.process.len() + self.text.len()
    }
}

fn push(line: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => line.push_str(text),
        Err(_) => line.push_str(&String::from_utf8_lossy(bytes)),
    }
}

/// The records of a batch or block, up to its end or the first that makes no sense.
pub(crate) fn records(mut bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (head, rest) = from.split_at_checked(n)?;
        *from = rest;
        Some(head)
    }
    std::iter::from_fn(move || {
        let from = &mut bytes;
        let at = i64::from_le_bytes(take(from, 8)?.try_into().ok()?);
        let source = if take(from, 1)? == [0] { Source::App } else { Source::Heroku };
        let length = usize::from(take(from, 1)?[0]);
        let process = take(from, length)?;
        let length = u32::from_le_bytes(take(from, 4)?.try_into().ok()?) as usize;
        Some(Record { at, source, process, text: take(from, length)? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_made_safe_and_layout_stays() {
        let mut batch = Batch::default();
        let junk = b"\x00\x07a\tb\r\x1b[1mc\x1b[0m \xff\xfe caf\xc3\xa9\x0b";
        batch.push(0, Source::App, "web.1", junk);
        let texts: Vec<_> = records(&batch.records).map(|record| record.text.to_vec()).collect();
        assert_eq!(
            String::from_utf8_lossy(&texts[0]),
            "\u{fffd}\u{fffd}a\tb\r\u{1b}[1mc\u{1b}[0m \u{fffd}\u{fffd} caf\u{e9}\u{fffd}"
        );
    }

    #[test]
    fn a_record_reads_back_and_prints_as_people_see_it() {
        let mut batch = Batch::default();
        batch.push(1_704_067_200_000_000, Source::App, "web.1", b"hello");
        batch.push(1_704_067_200_123_456, Source::Heroku, "router", b"caf\xc3\xa9 \xff!");
        let lines: Vec<String> = records(&batch.records).map(|record| record.line(&mut Stamp::default())).collect();
        assert_eq!(
            lines,
            [
                "2024-01-01T00:00:00.000000+00:00 app[web.1]: hello",
                "2024-01-01T00:00:00.123456+00:00 heroku[router]: caf\u{e9} \u{fffd}!",
            ]
        );
        assert_eq!(batch.lines, 2);
    }
}
