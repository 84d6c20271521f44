//! The client's end of an exchange: how it is answered over HTTP/1 and over HTTP/2.
//!
//! What is said in an answer is decided elsewhere; here it is put into the words of the client's protocol. HTTP/1.0
//! gets neither chunks nor interim answers, HTTP/2 no reason and no fields of one connection.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use h2::{Reason, server::SendResponse};
use http::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use bytes::Bytes;

use crate::{
    error::Kind,
    wire::{
        Fail, Side,
        head::{Head, Length, Version},
        http1::{Framing, Http1, push_number, put},
        http2::{Fields, Http2, is_broken, reason},
        names::Name,
    },
};

/// The body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// None, though a length may be said.
    Nothing(Option<u64>),
    Known(u64),
    /// Its end is not known before it comes.
    Open,
    /// The connection is no longer HTTP's.
    Switched,
}

/// The head of an answer without its fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) status: u16,
    /// The usual words when empty.
    pub(crate) reason: &'a [u8],
    pub(crate) content: Content,
}

/// A client, as far as one exchange sees it.
pub(crate) trait Downstream: Side {
    /// Where the fields of an answer are written.
    type Fields: Fields;

    /// Ready once the client has gone away.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// How the client was lost, once it is.
    fn lost(&self) -> Kind;

    /// The dyno is asked whether the client is to go on with its body, and not the router.
    fn defer(&mut self);

    /// Passes an interim answer on, to a client that knows such.
    fn interim(&mut self, context: &mut Context<'_>, head: &Head);

    /// Begins the answer.
    fn answer(&mut self, start: Start<'_>, fields: impl FnOnce(&mut Self::Fields)) -> io::Result<()>;

    /// The answer can not be brought to its end: the client must see that.
    fn abort(&mut self);

    /// The connection is not to be used for another request.
    fn close(&mut self);

    /// Bytes are other than HTTP's from here on.
    fn switch(&mut self);

    /// Says whether the client still owes a part of its request.
    fn owes(&self) -> bool;
}

/// Sends a whole body.
pub(crate) async fn send_all<D: Downstream>(client: &mut D, mut body: &[u8]) -> io::Result<()> {
    while !body.is_empty() {
        let count = poll_fn(|context| client.poll_send(context, body)).await?;
        body = &body[count..];
    }
    poll_fn(|context| client.poll_end(context, None)).await
}

/// A client's HTTP/1 connection.
pub(crate) struct Http1Client<S> {
    pub(crate) wire: Http1<S>,
    pub(crate) version: Version,
    /// Another request may follow.
    pub(crate) keep: bool,
    /// The client has said that this is its last request.
    last: bool,
    /// What it still sends is to be read before the connection is closed, so that it sees the answer.
    pub(crate) linger: bool,
    go_on: GoOn,
}

/// Who tells a client that wants to see `100 Continue` before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoOn {
    /// It does not want to.
    Nobody,
    /// The router, as soon as the body is wanted; or has already.
    Router,
    /// The dyno, who has not yet.
    Dyno,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Client<S> {
    pub(crate) fn new(wire: Http1<S>) -> Self {
        Self { wire, version: Version::Http11, keep: true, last: false, linger: false, go_on: GoOn::Nobody }
    }

    /// Takes in what a request's head says of the connection and the body.
    pub(crate) fn begin(&mut self, head: &Head) {
        self.version = head.version;
        self.last = match head.version {
            Version::Http10 => !head.lists(Name::Connection, b"keep-alive"),
            Version::Http11 | Version::Http2 => false,
        } || head.lists(Name::Connection, b"close");
        self.keep = !self.last && !head.doubtful;
        let length = if head.length == Length::Unsaid { Length::Known(0) } else { head.length };
        self.wire.expect(length);
        self.wire.expects = head.expects() && !self.wire.is_read();
        self.go_on = if self.wire.expects { GoOn::Router } else { GoOn::Nobody };
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Downstream for Http1Client<S> {
    type Fields = Vec<u8>;

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wire.poll_gone(context, self.last)
    }

    fn lost(&self) -> Kind {
        Kind::Closed
    }

    fn defer(&mut self) {
        self.wire.expects = false;
        self.go_on = GoOn::Dyno;
    }

    fn interim(&mut self, context: &mut Context<'_>, head: &Head) {
        if self.version != Version::Http11 {
            return;
        }
        if head.status == 100 {
            // Whoever the router tells has been told.
            if self.go_on != GoOn::Router {
                self.go_on = GoOn::Nobody;
                self.wire.interject(context, b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            return;
        }
        let mut text = Vec::with_capacity(256);
        status_line(&mut text, head.status, head.reason());
        for field in head.fields().filter(|field| field.known == Name::Other) {
            text.put(field.name, field.value);
        }
        text.extend_from_slice(b"\r\n");
        self.wire.interject(context, &text);
    }

    fn answer(&mut self, start: Start<'_>, fields: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        // A client that was not told to go on may or may not send its body.
        if (self.wire.expects || self.go_on == GoOn::Dyno) && start.content != Content::Switched {
            self.wire.expects = false;
            self.keep = false;
            self.linger = true;
        }
        let chunks = start.content == Content::Open && self.version == Version::Http11;
        if start.content == Content::Open && !chunks {
            self.keep = false;
        }
        let output = self.wire.head();
        output.reserve(512);
        status_line(output, start.status, start.reason);
        fields(output);
        let framing = match start.content {
            Content::Nothing(said) => {
                said.iter().for_each(|length| put_length(output, *length));
                Framing::Length(0)
            }
            Content::Known(length) => {
                put_length(output, length);
                Framing::Length(length)
            }
            Content::Open if chunks => {
                put(output, b"transfer-encoding", b"chunked");
                Framing::Chunks
            }
            Content::Open | Content::Switched => Framing::Raw,
        };
        match (start.content, self.keep, self.version) {
            (Content::Switched, ..) => put(output, b"connection", b"upgrade"),
            (_, false, _) => put(output, b"connection", b"close"),
            (_, true, Version::Http10) => put(output, b"connection", b"keep-alive"),
            (_, true, _) => {}
        }
        output.extend_from_slice(b"\r\n");
        self.wire.begin(framing);
        Ok(())
    }

    fn abort(&mut self) {
        self.keep = false;
        self.linger = false;
    }

    fn close(&mut self) {
        self.keep = false;
        self.linger = true;
    }

    fn switch(&mut self) {
        self.keep = false;
        self.wire.expects = false;
        self.wire.expect(Length::Unsaid);
    }

    fn owes(&self) -> bool {
        !self.wire.is_read()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side for Http1Client<S> {
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Fail>> {
        self.wire.poll_fill(context)
    }

    fn bytes(&self) -> &[u8] {
        self.wire.bytes()
    }

    fn consume(&mut self, count: usize) {
        self.wire.consume(count);
    }

    fn trailers(&mut self) -> Option<Box<Head>> {
        self.wire.trailers()
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.poll_send(context, bytes)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(context)
    }

    fn poll_end(&mut self, context: &mut Context<'_>, trailers: Option<Box<Head>>) -> Poll<io::Result<()>> {
        self.wire.poll_end(context, trailers)
    }
}

fn status_line(output: &mut Vec<u8>, status: u16, words: &[u8]) {
    output.extend_from_slice(b"HTTP/1.1 ");
    push_number(output, u64::from(status));
    output.push(b' ');
    output.extend_from_slice(if words.is_empty() { reason(status).as_bytes() } else { words });
    output.extend_from_slice(b"\r\n");
}

fn put_length(output: &mut Vec<u8>, length: u64) {
    output.extend_from_slice(b"content-length: ");
    push_number(output, length);
    output.extend_from_slice(b"\r\n");
}

/// One stream of a client's HTTP/2 connection.
pub(crate) struct Http2Client {
    respond: SendResponse<Bytes>,
    stream: Http2,
    go_on: GoOn,
    /// The client gave the request up before its answer began.
    pub(crate) given_up: bool,
}

impl Http2Client {
    /// A stream whose client may want to be told to go on.
    pub(crate) fn new(respond: SendResponse<Bytes>, stream: Http2, expects: bool) -> Self {
        let go_on = if expects && !stream.is_read() { GoOn::Router } else { GoOn::Nobody };
        Self { respond, stream, go_on, given_up: false }
    }

    fn tell_to_go_on(&mut self) {
        self.go_on = GoOn::Nobody;
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        // A client that is gone is noticed soon enough.
        let _ = self.respond.send_informational(interim);
    }
}

impl Downstream for Http2Client {
    type Fields = HeaderMap;

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.stream.outgoing.is_some() {
            return self.stream.poll_reset(context);
        }
        let reset = ready!(self.respond.poll_reset(context));
        self.stream.broken |= is_broken(&reset);
        self.given_up = true;
        Poll::Ready(())
    }

    fn lost(&self) -> Kind {
        if self.stream.broken { Kind::Broken } else { Kind::Closed }
    }

    fn defer(&mut self) {
        self.go_on = GoOn::Dyno;
    }

    fn interim(&mut self, _context: &mut Context<'_>, head: &Head) {
        if head.status == 100 {
            // Nobody else has asked.
            if self.go_on == GoOn::Dyno {
                self.tell_to_go_on();
            }
            return;
        }
        let mut interim = Response::new(());
        let Ok(status) = StatusCode::from_u16(head.status) else { return };
        *interim.status_mut() = status;
        for field in head.fields().filter(|field| field.known == Name::Other) {
            interim.headers_mut().put(field.name, field.value);
        }
        // A client that is gone is noticed soon enough.
        let _ = self.respond.send_informational(interim);
    }

    fn answer(&mut self, start: Start<'_>, fields: impl FnOnce(&mut HeaderMap)) -> io::Result<()> {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(start.status).map_err(io::Error::other)?;
        fields(answer.headers_mut());
        let said = match start.content {
            Content::Nothing(said) => said,
            Content::Known(length) => Some(length),
            Content::Open | Content::Switched => None,
        };
        if let Some(length) = said {
            let mut text = Vec::with_capacity(20);
            push_number(&mut text, length);
            answer.headers_mut().put(b"content-length", &text);
        }
        let empty = matches!(start.content, Content::Nothing(_) | Content::Known(0));
        let outgoing = self.respond.send_response(answer, empty).map_err(io::Error::other)?;
        self.stream.outgoing = Some(outgoing);
        self.stream.left = said.filter(|_| !empty);
        if empty {
            self.stream.end();
        }
        Ok(())
    }

    fn abort(&mut self) {
        match self.stream.outgoing {
            Some(_) => self.stream.reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn close(&mut self) {}

    fn switch(&mut self) {}

    fn owes(&self) -> bool {
        !self.stream.is_read()
    }
}

impl Side for Http2Client {
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Fail>> {
        if self.go_on == GoOn::Router {
            self.tell_to_go_on();
        }
        let filled = self.stream.poll_fill(context);
        self.given_up |= self.stream.outgoing.is_none() && matches!(filled, Poll::Ready(Err(Fail::Gone)));
        filled
    }

    fn bytes(&self) -> &[u8] {
        self.stream.bytes()
    }

    fn consume(&mut self, count: usize) {
        self.stream.consume(count);
    }

    fn trailers(&mut self) -> Option<Box<Head>> {
        self.stream.trailers()
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_send(context, bytes)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(context)
    }

    fn poll_end(&mut self, context: &mut Context<'_>, trailers: Option<Box<Head>>) -> Poll<io::Result<()>> {
        self.stream.poll_end(context, trailers)
    }
}
