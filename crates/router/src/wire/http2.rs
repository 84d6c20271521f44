//! One stream of an HTTP/2 connection, in both roles, and the way between its heads and those of HTTP/1.
//!
//! Heads that come are written down as the text of HTTP/1 and read by the same strict reader, so that no rule is kept
//! twice. Flow control is the library's; a body's memory is given back to the sender as the other side takes it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request, response};

use super::{
    Fail, Side,
    head::Head,
    http1::{push_number, put},
    names::Name,
};

/// Most bytes that are handed to the library at once.
const PIECE: usize = 16 << 10;

/// A stream whose heads have been exchanged, at least the ones that come.
pub(crate) struct Http2 {
    incoming: Option<RecvStream>,
    current: Bytes,
    trailers: Option<Box<Head>>,
    pub(crate) outgoing: Option<SendStream<Bytes>>,
    /// Bytes that the body has yet to have, where that was announced.
    pub(crate) left: Option<u64>,
    ended: bool,
    /// The stream ended in a way that was not the other end's wish.
    pub(crate) broken: bool,
}

impl Http2 {
    pub(crate) fn new(incoming: Option<RecvStream>, outgoing: Option<SendStream<Bytes>>) -> Self {
        Self { incoming, current: Bytes::new(), trailers: None, outgoing, left: None, ended: false, broken: false }
    }

    /// Says whether no byte of a body comes.
    pub(crate) fn is_read(&self) -> bool {
        self.current.is_empty() && self.incoming.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// Takes the body that comes, once its head is there.
    pub(crate) fn receive(&mut self, incoming: RecvStream) {
        self.incoming = Some(incoming);
    }

    /// Notes that the last piece of the body went with its head.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Ready once the other end has given the stream up.
    pub(crate) fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.outgoing {
            Some(outgoing) if !self.ended => {
                let reset = ready!(outgoing.poll_reset(context));
                self.broken |= is_broken(&reset);
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }

    /// Breaks the stream off.
    pub(crate) fn reset(&mut self, reason: Reason) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.send_reset(reason);
        }
    }
}

/// Says whether a stream ended by other means than the other end's leaving or its lack of interest.
pub(crate) fn is_broken(end: &Result<Reason, h2::Error>) -> bool {
    let (reason, lost) = match end {
        Ok(reason) => (Some(*reason), false),
        Err(error) => (error.reason(), error.is_io()),
    };
    !lost && !matches!(reason, None | Some(Reason::NO_ERROR | Reason::CANCEL))
}

fn gone(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl Side for Http2 {
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Fail>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(Ok(false)) };
        while self.current.is_empty() {
            match ready!(incoming.poll_data(context)) {
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(reset)) => {
                    self.broken |= is_broken(&Err(reset));
                    return Poll::Ready(Err(Fail::Gone));
                }
                None => {
                    let trailers = ready!(incoming.poll_trailers(context)).map_err(|reset| {
                        self.broken |= is_broken(&Err(reset));
                        Fail::Gone
                    })?;
                    if let Some(trailers) = trailers {
                        self.trailers = Some(Box::new(written_trailers(&trailers).ok_or(Fail::Broken)?));
                    }
                    self.incoming = None;
                    return Poll::Ready(Ok(false));
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    fn bytes(&self) -> &[u8] {
        &self.current
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.current.len());
        self.current.advance(count);
        if let Some(incoming) = &mut self.incoming {
            // Fails only when more is given back than was taken.
            let _ = incoming.flow_control().release_capacity(count);
        }
    }

    fn trailers(&mut self) -> Option<Box<Head>> {
        self.trailers.take()
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let Some(outgoing) = self.outgoing.as_mut().filter(|_| left > 0 && !self.ended) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        let most = bytes.len().min(PIECE).min(left);
        outgoing.reserve_capacity(most);
        let mut capacity = outgoing.capacity();
        while capacity == 0 {
            match ready!(outgoing.poll_capacity(context)) {
                Some(Ok(granted)) => capacity = granted,
                Some(Err(error)) => {
                    let error = Err(error);
                    self.broken |= is_broken(&error);
                    return Poll::Ready(error.map(|_reason| 0).map_err(gone));
                }
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let count = most.min(capacity);
        self.left = self.left.map(|left| left - count as u64);
        self.ended = self.left == Some(0);
        outgoing.send_data(Bytes::copy_from_slice(&bytes[..count]), self.ended).map_err(gone)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the connection's own task writes
    }

    fn poll_end(&mut self, _context: &mut Context<'_>, trailers: Option<Box<Head>>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(Ok(()));
        }
        let Some(outgoing) = &mut self.outgoing else { return Poll::Ready(Ok(())) };
        let sent = match trailers {
            Some(trailers) => {
                let mut fields = HeaderMap::new();
                for field in trailers.fields().filter(|field| field.known == Name::Other) {
                    fields.put(field.name, field.value);
                }
                outgoing.send_trailers(fields)
            }
            None => outgoing.send_data(Bytes::new(), true),
        };
        Poll::Ready(sent.map_err(gone))
    }
}

/// Where fields of a head are written.
pub(crate) trait Fields {
    /// Adds a field behind all others.
    fn put(&mut self, name: &[u8], value: &[u8]);
}

impl Fields for Vec<u8> {
    fn put(&mut self, name: &[u8], value: &[u8]) {
        put(self, name, value);
    }
}

impl Fields for HeaderMap {
    fn put(&mut self, name: &[u8], value: &[u8]) {
        // Both were read by the strict reader, whose fields all fit.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.append(name, value);
        }
    }
}

/// A request's head as text; the host comes from `:authority`, and a `host` field beside it must say the same.
pub(crate) fn write_request(parts: &request::Parts, output: &mut Vec<u8>) {
    output.extend_from_slice(parts.method.as_str().as_bytes());
    output.push(b' ');
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    output.extend_from_slice(path.as_bytes());
    output.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        put(output, b"host", authority);
    }
    // HTTP/2 may split a cookie field into several; HTTP/1 may not.
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        if name == http::header::COOKIE {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value.as_bytes());
        } else if name != http::header::HOST || authority != Some(value.as_bytes()) {
            put(output, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !cookies.is_empty() {
        put(output, b"cookie", &cookies);
    }
    output.extend_from_slice(b"\r\n");
}

/// A response's head as text.
pub(crate) fn write_response(parts: &response::Parts, output: &mut Vec<u8>) {
    output.extend_from_slice(b"HTTP/1.1 ");
    push_number(output, u64::from(parts.status.as_u16()));
    output.push(b' ');
    output.extend_from_slice(reason(parts.status.as_u16()).as_bytes());
    output.extend_from_slice(b"\r\n");
    for (name, value) in &parts.headers {
        put(output, name.as_str().as_bytes(), value.as_bytes());
    }
    output.extend_from_slice(b"\r\n");
}

fn written_trailers(trailers: &HeaderMap) -> Option<Head> {
    let mut text = Vec::new();
    for (name, value) in trailers {
        put(&mut text, name.as_str().as_bytes(), value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    let mut head = Head::default();
    head.trailers(&text).ok().map(|()| head)
}

/// The words that usually go with a status.
pub(crate) fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}
