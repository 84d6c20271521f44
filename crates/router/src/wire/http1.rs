//! HTTP/1 over one connection: heads found in what is read, bodies framed and unframed, in both roles.
//!
//! The same type is a client's connection and a dyno's. It keeps no opinion about messages: who uses it says how long
//! the body is that comes ([`Http1::expect`]) and how the one is framed that goes ([`Http1::begin`]).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

pub(crate) use dozen_api::decimal::push as push_number;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Fail, Side,
    buffer::{Buffer, SMALL},
    chunks::{Chunks, Step},
    head::{Head, Length, Scan, scan},
    names::Name,
};

/// Pieces of a body up to this are copied behind what waits to be written, so that one write carries both.
const COPY: usize = 16 << 10;
/// Memory for what is written that a waiting connection keeps.
const KEPT_OUTPUT: usize = 1 << 10;

/// How the body is framed that comes.
#[derive(Debug)]
enum Reading {
    Length(u64),
    Chunks(Box<Chunks>),
    /// Until the connection ends.
    Raw,
}

/// How the body is framed that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Length(u64),
    /// This many bytes of the chunk that was begun are missing.
    Chunks(usize),
    Raw,
    Ended,
}

/// How a body is framed that is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunks,
    /// Until the connection ends, which the end of the body brings about.
    Raw,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHead {
    /// The connection ended, in the middle of one or not.
    Gone { partial: bool },
    /// What came cannot become one, or not within the bounds.
    Hopeless,
    /// Its end did not come in time.
    Slow,
}

/// A connection that speaks HTTP/1.
#[derive(Debug)]
pub(crate) struct Http1<S> {
    stream: S,
    input: Buffer,
    scanned: usize,
    reading: Reading,
    output: Vec<u8>,
    written: usize,
    writing: Writing,
    /// What was written stays in `output`, so that another connection can be given it.
    pub(crate) repeatable: bool,
    /// Something of the current message was written.
    pub(crate) touched: bool,
    /// The other end sends nothing any more.
    pub(crate) ended: bool,
    /// The other end waits for `100 Continue` before it sends the body.
    pub(crate) expects: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(crate) fn new(stream: S, input: Buffer) -> Self {
        Self {
            stream,
            input,
            scanned: 0,
            reading: Reading::Length(0),
            output: Vec::new(),
            written: 0,
            writing: Writing::Ended,
            repeatable: false,
            touched: false,
            ended: false,
            expects: false,
        }
    }

    /// What was read and not used.
    pub(crate) fn unused(&self) -> &[u8] {
        self.input.bytes()
    }

    /// Says whether a head has begun to arrive.
    pub(crate) fn has_begun(&self) -> bool {
        !self.input.is_empty()
    }

    /// Gives back the memory that a waiting connection does not need.
    pub(crate) fn rest(&mut self) {
        self.input.release();
        if self.output.capacity() > KEPT_OUTPUT {
            self.output = Vec::new();
        }
    }

    /// Waits for a whole head; returns its length. It is at the front of [`Self::unused`], to be taken with
    /// [`Self::skip`].
    pub(crate) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        longest_line: usize,
        most: usize,
    ) -> Poll<Result<usize, NoHead>> {
        loop {
            let bytes = self.input.bytes();
            match scan(bytes, &mut self.scanned, longest_line) {
                Scan::Whole(length) if length <= most => {
                    self.scanned = 0;
                    return Poll::Ready(Ok(length));
                }
                Scan::More if bytes.len() < most => {}
                _ => return Poll::Ready(Err(NoHead::Hopeless)),
            }
            match ready!(self.input.poll_read(&mut self.stream, context)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    self.ended = true;
                    return Poll::Ready(Err(NoHead::Gone { partial: self.has_begun() }));
                }
            }
        }
    }

    /// Passes over bytes that were read.
    pub(crate) fn skip(&mut self, count: usize) {
        self.input.consume(count);
        self.scanned = 0;
    }

    /// Says how the body is framed that comes next.
    pub(crate) fn expect(&mut self, length: Length) {
        self.reading = match length {
            Length::Known(length) => Reading::Length(length),
            Length::Chunked => Reading::Chunks(Box::new(Chunks::new())),
            Length::Unsaid => Reading::Raw,
        };
    }

    /// Where a head is to be written; all of the former message must have been.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        &mut self.output
    }

    /// Says how the body is framed that goes next, after its head was written.
    pub(crate) fn begin(&mut self, framing: Framing) {
        self.writing = match framing {
            Framing::Length(length) => Writing::Length(length),
            Framing::Chunks => Writing::Chunks(0),
            Framing::Raw => Writing::Raw,
        };
    }

    /// Starts over with what another connection was to carry, which must be [`Self::repeatable`] or untouched.
    pub(crate) fn take_over(&mut self, former: &mut Self) {
        self.output = std::mem::take(&mut former.output);
        self.written = 0;
        self.writing = former.writing;
        self.repeatable = former.repeatable;
    }

    /// Says whether the other end has closed the connection or sent what nobody asked for.
    pub(crate) fn is_stale(&mut self) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        !self.input.is_empty() || self.input.poll_read(&mut self.stream, &mut context).is_ready()
    }

    /// Ready once the other end has closed its connection. What it sends meanwhile is kept, up to a bound.
    pub(crate) fn poll_gone(&mut self, context: &mut Context<'_>, half_close: bool) -> Poll<()> {
        while !self.ended && self.input.has_room() {
            match ready!(self.input.poll_read(&mut self.stream, context)) {
                Ok(1..) => {}
                Ok(0) => self.ended = true,
                Err(_) => return Poll::Ready(()),
            }
        }
        if self.ended && !half_close { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Says whether the body that came was used to its end.
    pub(crate) fn is_read(&self) -> bool {
        match &self.reading {
            Reading::Length(left) => *left == 0,
            Reading::Chunks(chunks) => chunks.is_end(),
            Reading::Raw => self.ended && self.input.is_empty(),
        }
    }

    /// Writes bytes out at once, as far as the system takes them.
    pub(crate) fn interject(&mut self, context: &mut Context<'_>, bytes: &[u8]) {
        self.head().extend_from_slice(bytes);
        // What is left goes out with what follows.
        let _ = self.poll_flush(context);
    }

    /// Ends the connection's sending side.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    /// Reads and drops what comes; returns how much, 0 at the end.
    pub(crate) fn poll_drop(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        self.input.consume(usize::MAX);
        let read = ready!(self.input.poll_read(&mut self.stream, context));
        Poll::Ready(read.unwrap_or(0))
    }

    /// Notes that bytes of the body were written or will be; a finished chunk gets its end.
    fn sent(&mut self, count: usize) {
        match &mut self.writing {
            Writing::Length(left) => *left = left.saturating_sub(count as u64),
            Writing::Chunks(left) => {
                *left -= count.min(*left);
                if *left == 0 {
                    self.output.extend_from_slice(b"\r\n");
                }
            }
            Writing::Raw | Writing::Ended => {}
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side for Http1<S> {
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Fail>> {
        loop {
            match &mut self.reading {
                Reading::Length(0) => return Poll::Ready(Ok(false)),
                Reading::Length(_) | Reading::Raw if !self.input.is_empty() => return Poll::Ready(Ok(true)),
                Reading::Raw if self.ended => return Poll::Ready(Ok(false)),
                Reading::Chunks(chunks) => match chunks.step(&mut self.input).map_err(|_broken| Fail::Broken)? {
                    Step::Data(_) => return Poll::Ready(Ok(true)),
                    Step::End => return Poll::Ready(Ok(false)),
                    Step::More => {}
                },
                Reading::Length(_) | Reading::Raw => {}
            }
            if std::mem::take(&mut self.expects) {
                self.interject(context, b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            match ready!(self.input.poll_read(&mut self.stream, context)) {
                Ok(1..) => {}
                Ok(0) if matches!(self.reading, Reading::Raw) => self.ended = true,
                Ok(0) | Err(_) => {
                    self.ended = true;
                    return Poll::Ready(Err(Fail::Gone));
                }
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        let bytes = self.input.bytes();
        let most = match &self.reading {
            Reading::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Reading::Chunks(chunks) => chunks.data(),
            Reading::Raw => usize::MAX,
        };
        &bytes[..bytes.len().min(most)]
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        match &mut self.reading {
            Reading::Length(left) => *left -= (count as u64).min(*left),
            Reading::Chunks(chunks) => chunks.consume(count),
            Reading::Raw => {}
        }
    }

    fn trailers(&mut self) -> Option<Box<Head>> {
        match &mut self.reading {
            Reading::Chunks(chunks) => chunks.trailers.take(),
            Reading::Length(_) | Reading::Raw => None,
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = match &mut self.writing {
            Writing::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len()),
            Writing::Chunks(left) => {
                if *left == 0 {
                    *left = bytes.len();
                    push_hex(&mut self.output, bytes.len());
                }
                (*left).min(bytes.len())
            }
            Writing::Raw => bytes.len(),
            Writing::Ended => 0,
        };
        if count == 0 {
            // More than was announced.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let bytes = &bytes[..count];
        let waiting = self.output.len() - self.written;
        if waiting > 0 && waiting + count <= COPY {
            self.output.extend_from_slice(bytes);
            self.sent(count);
            return Poll::Ready(Ok(count));
        }
        let stream = Pin::new(&mut self.stream);
        let written = if waiting == 0 {
            ready!(stream.poll_write(context, bytes))?
        } else {
            let slices = [io::IoSlice::new(&self.output[self.written..]), io::IoSlice::new(bytes)];
            ready!(stream.poll_write_vectored(context, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.touched = true;
        if written < waiting {
            self.written += written;
            // Tries again at once: the stream says when it takes no more.
            return self.poll_send(context, bytes);
        }
        self.output.clear();
        self.written = 0;
        let count = written - waiting;
        if count == 0 {
            return self.poll_send(context, bytes);
        }
        self.sent(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let waiting = &self.output[self.written..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.touched = true;
            self.written += written;
        }
        if !self.repeatable {
            self.output.clear();
            self.written = 0;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_end(&mut self, context: &mut Context<'_>, trailers: Option<Box<Head>>) -> Poll<io::Result<()>> {
        match self.writing {
            Writing::Length(1..) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Writing::Chunks(_) => {
                self.output.extend_from_slice(b"0\r\n");
                for field in trailers.iter().flat_map(|head| head.fields()).filter(|field| field.known == Name::Other) {
                    put(&mut self.output, field.name, field.value);
                }
                self.output.extend_from_slice(b"\r\n");
                self.writing = Writing::Ended;
            }
            Writing::Raw => {
                ready!(self.poll_flush(context))?;
                ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
                self.writing = Writing::Ended;
            }
            Writing::Length(0) => self.writing = Writing::Ended,
            Writing::Ended => {}
        }
        self.poll_flush(context)
    }
}

/// Writes a field's line.
pub(crate) fn put(output: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    output.reserve(name.len() + value.len() + 4);
    output.extend_from_slice(name);
    output.extend_from_slice(b": ");
    output.extend_from_slice(value);
    output.extend_from_slice(b"\r\n");
}

/// Writes the line with a chunk's size.
fn push_hex(output: &mut Vec<u8>, mut number: usize) {
    let (mut digits, mut at) = ([0; 16], 16);
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[number & 15];
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[at..]);
    output.extend_from_slice(b"\r\n");
}

/// The bound of what one connection reads ahead.
pub(crate) const READ_AHEAD: usize = SMALL;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn numbers_are_written_as_people_do() {
        for number in [0, 7, 10, 4_096, u64::MAX] {
            let mut output = Vec::new();
            push_number(&mut output, number);
            assert_eq!(output, number.to_string().into_bytes());
        }
        let mut output = Vec::new();
        push_hex(&mut output, 0xab0);
        assert_eq!(output, b"ab0\r\n");
    }

    #[tokio::test]
    async fn a_chunk_that_is_written_in_pieces_keeps_its_size() {
        const SIZE: usize = 100_000;
        let (near, mut far) = duplex(1_000);
        let body: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
        let expected = body.clone();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        });
        let mut writer = Http1::new(near, Buffer::default());
        writer.head().extend_from_slice(b"head\r\n\r\n");
        writer.begin(Framing::Chunks);
        let mut rest = &body[..];
        while !rest.is_empty() {
            let count = poll_fn(|context| writer.poll_send(context, rest)).await.expect("a reader");
            rest = &rest[count..];
        }
        poll_fn(|context| writer.poll_end(context, None)).await.expect("a reader");
        drop(writer);
        let all = reader.await.expect("no panic").expect("bytes");
        let (near, mut far) = duplex(SIZE * 2);
        far.write_all(&all[8..]).await.expect("room");
        let mut reader = Http1::new(near, Buffer::default());
        reader.expect(Length::Chunked);
        let mut read = Vec::new();
        while poll_fn(|context| reader.poll_fill(context)).await.expect("a whole body") {
            let count = reader.bytes().len();
            read.extend_from_slice(reader.bytes());
            reader.consume(count);
        }
        assert!(read == expected && reader.is_read() && reader.unused().is_empty());
    }
}
