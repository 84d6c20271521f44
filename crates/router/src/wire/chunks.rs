//! The chunked transfer coding, taken apart byte by byte (RFC 9112, 7.1).
//!
//! Extensions are dropped, sizes are plain hexadecimal digits, lines end in CRLF. Chunks are written anew on the other
//! side, so that nothing that could be read in two ways passes through.

use super::{
    buffer::Buffer,
    head::{Head, Scan, scan},
};

/// Longest line with a chunk's size and its extensions.
const SIZE_LINE: usize = 1 << 10;
/// Longest line among the trailers.
const TRAILER_LINE: usize = 8 << 10;
/// Trailers in all.
const TRAILERS: usize = 16 << 10;
/// Digits of a size: more could not be counted.
const DIGITS: usize = 15;

/// Where a chunked body is.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    /// The fields after the last chunk.
    pub(crate) trailers: Option<Box<Head>>,
}

#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers(usize),
    End,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More must be read.
    More,
    /// This many bytes of the body are at the front of the buffer.
    Data(usize),
    /// The body has ended.
    End,
}

/// The coding is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Chunks {
    pub(crate) fn new() -> Self {
        Self { state: State::Size, trailers: None }
    }

    /// Goes on as far as the bytes in the buffer allow.
    ///
    /// # Errors
    /// When they break the coding.
    pub(crate) fn step(&mut self, input: &mut Buffer) -> Result<Step, Broken> {
        loop {
            match self.state {
                State::Size => {
                    let Some((size, length)) = size(input.bytes())? else { return Ok(Step::More) };
                    input.consume(length);
                    self.state = if size == 0 { State::Trailers(0) } else { State::Data(size) };
                }
                State::Data(left) if input.is_empty() && left > 0 => return Ok(Step::More),
                State::Data(left) => {
                    return Ok(Step::Data(usize::try_from(left).unwrap_or(usize::MAX).min(input.bytes().len())));
                }
                State::DataEnd => match input.bytes() {
                    [b'\r', b'\n', ..] => {
                        input.consume(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(Broken),
                },
                State::Trailers(mut from) => {
                    let bytes = input.bytes();
                    let found = scan(bytes, &mut from, TRAILER_LINE);
                    self.state = State::Trailers(from);
                    match found {
                        Scan::Whole(length) if length <= TRAILERS => {
                            if length > 2 {
                                let mut head = Box::<Head>::default();
                                head.trailers(&bytes[..length]).map_err(|_flaw| Broken)?;
                                self.trailers = Some(head);
                            }
                            input.consume(length);
                            self.state = State::End;
                        }
                        Scan::More if bytes.len() < TRAILERS => return Ok(Step::More),
                        _ => return Err(Broken),
                    }
                }
                State::End => return Ok(Step::End),
            }
        }
    }

    /// Notes that bytes of the body were used.
    pub(crate) fn consume(&mut self, count: usize) {
        if let State::Data(left) = &mut self.state {
            *left = left.saturating_sub(count as u64);
            if *left == 0 {
                self.state = State::DataEnd;
            }
        }
    }

    /// How many bytes of the current chunk are still to be used.
    pub(crate) fn data(&self) -> usize {
        match self.state {
            State::Data(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => 0,
        }
    }

    /// Says whether the end was reached.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }
}

/// Reads the line with a chunk's size; returns the size and the line's length.
fn size(bytes: &[u8]) -> Result<Option<(u64, usize)>, Broken> {
    let digits = bytes.iter().take(DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > DIGITS {
        return Err(Broken);
    }
    match bytes.get(digits) {
        None => return Ok(None),
        Some(b'\r' | b';') if digits > 0 => {}
        Some(_) => return Err(Broken),
    }
    let rest = &bytes[digits..bytes.len().min(SIZE_LINE)];
    let Some(end) = rest.iter().position(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) else {
        return if bytes.len() >= SIZE_LINE { Err(Broken) } else { Ok(None) };
    };
    match rest[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if bytes.len() < SIZE_LINE => return Ok(None),
        _ => return Err(Broken),
    }
    let text = std::str::from_utf8(&bytes[..digits]).map_err(|_| Broken)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| Broken)?;
    Ok(Some((size, digits + end + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &[u8], piece: usize) -> Result<(Vec<u8>, bool, Option<usize>), Broken> {
        crate::fuzzing::decode(text.chunks(piece))
    }

    #[test]
    fn bodies_are_the_same_however_their_bytes_arrive() {
        let text = b"5\r\nhello\r\n1;a=\"b\"\r\n \r\n00000A\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        for piece in 1..text.len() {
            assert_eq!(decode(text, piece), Ok((b"hello 0123456789".to_vec(), true, Some(1))), "{piece}");
        }
        for cut in 0..text.len() {
            assert!(matches!(decode(&text[..cut], 7), Ok((_, false, None))), "{cut}");
        }
    }

    #[test]
    fn whatever_is_not_plain_is_broken() {
        for text in [
            "\r\nhello",
            "5\nhello\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "-5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "g\r\n",
            ";\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloXX",
            "5;a\nb\r\nhello\r\n",
            "5;a\rb\r\nhello\r\n",
            "1234567890123456\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\nno field\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
        ] {
            for piece in [1, 3, 100] {
                assert_eq!(decode(text.as_bytes(), piece), Err(Broken), "{text:?}");
            }
        }
    }

    #[test]
    fn endless_extensions_and_trailers_are_broken() {
        let extension = format!("5;{}", "a".repeat(2_000));
        assert_eq!(decode(extension.as_bytes(), 100), Err(Broken));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(5_000));
        assert_eq!(decode(trailers.as_bytes(), 100), Err(Broken));
    }
}
