//! The dyno's end of an exchange: one request and its response, over HTTP/1.1 or, where the app wants it, HTTP/2.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use dozen_domain::limits::Limits;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Method, Request, Uri, uri::PathAndQuery};
use tokio::net::TcpStream;

use crate::{
    error::Kind,
    exchange::Exchange,
    headers,
    wire::{
        Fail, Side,
        head::{Head, Length, Version},
        http1::{Framing, Http1, NoHead, READ_AHEAD},
        http2::{Http2, write_response},
    },
};

/// A dyno's connection while it carries one request.
pub(crate) enum Link {
    Http1(Kept),
    Http2(Box<Multiplexed>),
}

/// An HTTP/1 connection to a dyno.
pub(crate) struct Kept {
    pub(crate) wire: Box<Http1<TcpStream>>,
    /// It has carried a request before.
    pub(crate) kept: bool,
    /// It is to be closed after this request.
    pub(crate) last: bool,
}

/// One stream of an HTTP/2 connection to a dyno.
pub(crate) struct Multiplexed {
    sender: SendRequest<Bytes>,
    stream: Http2,
    response: Option<ResponseFuture>,
}

/// What becomes of a request that is to be sent again.
pub(crate) type Unsent = Box<Http1<TcpStream>>;

impl Link {
    pub(crate) fn multiplexed(sender: SendRequest<Bytes>) -> Self {
        Self::Http2(Box::new(Multiplexed { sender, stream: Http2::new(None, None), response: None }))
    }

    /// Begins the request: writes its head, and says how its body follows.
    pub(crate) fn begin(&mut self, exchange: &Exchange, upgrade: bool) -> Result<(), Kind> {
        let head = &exchange.head;
        match self {
            Self::Http1(link) => {
                let last = link.last && !upgrade;
                let output = link.wire.head();
                output.reserve(768);
                output.extend_from_slice(head.method());
                output.extend_from_slice(if head.lacks_slash() { b" /" } else { b" " });
                output.extend_from_slice(head.path());
                output.extend_from_slice(b" HTTP/1.1\r\n");
                headers::to_dyno(exchange, upgrade, last, output);
                output.extend_from_slice(b"\r\n");
                let framing = match head.length {
                    Length::Known(length) => Framing::Length(length),
                    Length::Chunked => Framing::Chunks,
                    Length::Unsaid => Framing::Length(0),
                };
                link.wire.begin(framing);
                link.wire.touched = false;
                link.wire.repeatable = framing == Framing::Length(0) && link.kept;
            }
            Self::Http2(link) => {
                let mut request = Request::new(());
                *request.method_mut() = Method::from_bytes(head.method()).map_err(|_| Kind::Internal)?;
                let slash: &[u8] = if head.lacks_slash() { b"/" } else { b"" };
                let path = PathAndQuery::try_from(&[slash, head.path()].concat()[..]);
                *request.uri_mut() = Uri::builder()
                    .scheme("http")
                    .authority(&*exchange.host)
                    .path_and_query(path.map_err(|_| Kind::Internal)?)
                    .build()
                    .map_err(|_| Kind::Internal)?;
                let mut fields = HeaderMap::new();
                headers::to_dyno(exchange, false, false, &mut fields);
                // What HTTP/2 says in another way.
                for name in [http::header::TRANSFER_ENCODING, http::header::CONNECTION, http::header::HOST] {
                    fields.remove(name);
                }
                *request.headers_mut() = fields;
                let empty = matches!(head.length, Length::Unsaid | Length::Known(0));
                let (response, outgoing) =
                    link.sender.send_request(request, empty).map_err(|_gone| Kind::ClosedEarly)?;
                link.response = Some(response);
                link.stream.outgoing = Some(outgoing);
                if empty {
                    link.stream.end();
                }
            }
        }
        Ok(())
    }

    /// Begins a request that another connection was to carry.
    pub(crate) fn resume(&mut self, mut unsent: Unsent) {
        if let Self::Http1(link) = self {
            link.wire.take_over(&mut unsent);
        }
    }

    /// Waits for the response's head. Interim ones come in the same way.
    pub(crate) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        limits: &Limits,
        head: &mut Head,
    ) -> Poll<Result<(), Kind>> {
        match self {
            Self::Http1(link) => {
                let line = limits.router_response_header_bytes as usize;
                let found = ready!(link.wire.poll_head(context, line.max(READ_AHEAD), line + (64 << 10)));
                let length = found.map_err(|none| match none {
                    NoHead::Gone { partial: false } => Kind::ClosedEarly,
                    NoHead::Gone { partial: true } => Kind::Closed,
                    NoHead::Hopeless | NoHead::Slow => hopeless(link.wire.unused(), limits),
                })?;
                let judged = head.response(&link.wire.unused()[..length], limits);
                link.wire.skip(length);
                Poll::Ready(judged)
            }
            Self::Http2(link) => {
                let Some(response) = &mut link.response else { return Poll::Ready(Err(Kind::Internal)) };
                let response = ready!(Pin::new(response).poll(context)).map_err(|_reset| Kind::ClosedEarly)?;
                link.response = None;
                let (parts, body) = response.into_parts();
                let mut text = Vec::with_capacity(512);
                write_response(&parts, &mut text);
                head.response(&text, limits)?;
                head.version = Version::Http2;
                link.stream.receive(body);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Says how the response's body comes.
    pub(crate) fn expect(&mut self, length: Length) {
        if let Self::Http1(link) = self {
            link.wire.expect(length);
        }
    }

    /// Bytes are other than HTTP's from here on.
    pub(crate) fn switch(&mut self) {
        if let Self::Http1(link) = self {
            link.wire.expect(Length::Unsaid);
            link.wire.begin(Framing::Raw);
        }
    }

    /// Says whether the connection had carried another request before.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Self::Http1(Kept { kept: true, .. }))
    }

    /// The request, if it may be sent again: nothing of it was written, or what was does no harm twice.
    pub(crate) fn unsent(self, harmless: bool) -> Option<Unsent> {
        match self {
            Self::Http1(link) if !link.wire.touched || (harmless && link.wire.repeatable) => Some(link.wire),
            _ => None,
        }
    }
}

/// What is wrong with a response whose head never ends.
fn hopeless(bytes: &[u8], limits: &Limits) -> Kind {
    use crate::error::Restriction;
    let line = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    if !bytes.starts_with(b"HTTP/1.") {
        Kind::Malformed
    } else if line as u64 > limits.router_status_line_bytes {
        Kind::Restricted(Restriction::StatusLine)
    } else if bytes.len() as u64 >= limits.router_response_header_bytes {
        Kind::Restricted(Restriction::Header)
    } else {
        Kind::Malformed
    }
}

impl Side for Link {
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Fail>> {
        match self {
            Self::Http1(link) => link.wire.poll_fill(context),
            Self::Http2(link) => link.stream.poll_fill(context),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Http1(link) => link.wire.bytes(),
            Self::Http2(link) => link.stream.bytes(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Http1(link) => link.wire.consume(count),
            Self::Http2(link) => link.stream.consume(count),
        }
    }

    fn trailers(&mut self) -> Option<Box<Head>> {
        match self {
            Self::Http1(link) => link.wire.trailers(),
            Self::Http2(link) => link.stream.trailers(),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(link) => link.wire.poll_send(context, bytes),
            Self::Http2(link) => link.stream.poll_send(context, bytes),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(link) => link.wire.poll_flush(context),
            Self::Http2(link) => link.stream.poll_flush(context),
        }
    }

    fn poll_end(&mut self, context: &mut Context<'_>, trailers: Option<Box<Head>>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(link) => link.wire.poll_end(context, trailers),
            Self::Http2(link) => link.stream.poll_end(context, trailers),
        }
    }
}
