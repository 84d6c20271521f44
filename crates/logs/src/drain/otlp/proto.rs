//! The few messages of OTLP that are written, in protocol buffers' wire format.
//!
//! Field numbers are those of opentelemetry-proto v1 (`collector/{logs,metrics}/v1`, `logs/v1`, `metrics/v1`,
//! `common/v1`, `resource/v1`); the tests read what is written with the official definitions. A message inside another
//! is written after room for its length, which is filled in behind it: lengths take five bytes, as every reader accepts.

/// Appends fields to a message.
#[derive(Debug, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
/// Bytes of a length that is filled in later.
const ROOM: usize = 5;

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    /// An integer or enum.
    pub(crate) fn number(&mut self, field: u64, number: u64) {
        self.key(field, VARINT);
        self.varint(number);
    }

    /// A `fixed64`.
    pub(crate) fn fixed(&mut self, field: u64, number: u64) {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A `double`.
    pub(crate) fn double(&mut self, field: u64, number: f64) {
        self.fixed(field, number.to_bits());
    }

    /// Text or bytes.
    pub(crate) fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message.
    pub(crate) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.key(field, BYTES);
        let room = self.0.len();
        self.0.extend_from_slice(&[0; ROOM]);
        write(self);
        let length = self.0.len() - room - ROOM;
        for at in 0..ROOM {
            let more = if at + 1 < ROOM { 0x80 } else { 0 };
            self.0[room + at] = (length >> (7 * at)) as u8 & 0x7f | more;
        }
    }

    /// A `KeyValue` with text.
    pub(crate) fn attribute(&mut self, field: u64, key: &str, value: &[u8]) {
        self.message(field, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.message(2, |any| any.bytes(1, value));
        });
    }

    /// Packed `fixed64` or `double` values, as their bits.
    pub(crate) fn packed(&mut self, field: u64, values: impl ExactSizeIterator<Item = u64>) {
        self.key(field, BYTES);
        self.varint(values.len() as u64 * 8);
        values.for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
    }
}

/// Reads fields of an answer: number, and either a number or bytes. Ends at what makes no sense.
pub(crate) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    fn varint(from: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = from.split_first()?;
            *from = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
    fn take<'a>(from: &mut &'a [u8], n: u64) -> Option<&'a [u8]> {
        let (head, rest) = from.split_at_checked(usize::try_from(n).ok()?)?;
        *from = rest;
        Some(head)
    }
    std::iter::from_fn(move || {
        let from = &mut bytes;
        let key = varint(from)?;
        let value = match key & 7 {
            VARINT => Value::Number(varint(from)?),
            FIXED64 => Value::Bytes(take(from, 8)?),
            BYTES => {
                let length = varint(from)?;
                Value::Bytes(take(from, length)?)
            }
            5 => Value::Bytes(take(from, 4)?),
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut message = Message::default();
        message.number(2, 300);
        message.message(5, |inner| inner.bytes(1, &[b'x'; 200]));
        message.fixed(11, 7);
        let read: Vec<_> = fields(&message.0).collect();
        assert_eq!(read[0], (2, Value::Number(300)));
        let Value::Bytes(inner) = read[1].1 else { panic!("bytes") };
        assert_eq!((read[1].0, fields(inner).next()), (5, Some((1, Value::Bytes(&[b'x'; 200])))));
        assert_eq!(read[2], (11, Value::Bytes(&7_u64.to_le_bytes())));
        assert_eq!(read.len(), 3);
        assert_eq!(fields(&[0x08]).count(), 0, "a number that is cut off");
        assert_eq!(fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]).count(), 0, "a length that is not there");
    }
}
