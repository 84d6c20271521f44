//! A client's socket under the HTTP server, with three duties that the server does not have.
//!
//! * A client that does not read for `router_idle_ms` while there is something to write is given up.
//! * The server's own bare answers to what it cannot parse (400, 414, 431) become the router's page with status 400.
//! * Before a close after such an answer, or one whose request body was not read, what the client still sends is read
//!   and dropped for a moment: else the kernel would reset the connection and the client might lose the answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::{exchange::Client, pages::Page};

const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;
/// Longest head of the server's own answers, with room.
const BARE: usize = 256;

/// A client's connection.
pub(crate) struct Socket<S> {
    stream: S,
    client: Arc<Client>,
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// A page on its way in place of the server's answer, and how many bytes the server thinks it is.
    instead: Option<(Bytes, usize)>,
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Socket<S> {
    pub(crate) fn new(stream: S, client: Arc<Client>, stall: Duration) -> Self {
        Self { stream, client, stall, stalled: None, instead: None, lingering: None }
    }
}

/// Says whether bytes have the shape of the server's own answer: those of the router always have a `via`.
fn is_bare(bytes: &[u8]) -> bool {
    let is = bytes.len() < BARE && bytes.starts_with(b"HTTP/1.1 4") && bytes.ends_with(b"\r\n\r\n");
    is && !bytes.windows(6).any(|window| window.eq_ignore_ascii_case(b"\nvia: "))
}

fn bad_request() -> Bytes {
    let page = Page::BadRequest.html(None);
    let length = page.len().to_string();
    let head = "HTTP/1.1 400 Bad Request\r\nserver: Heroku\r\nvia: 1.1 heroku-router\r\nconnection: close\r\n\
                cache-control: no-cache, no-store\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: ";
    Bytes::from([head.as_bytes(), length.as_bytes(), b"\r\n\r\n", &page].concat())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Turns waiting for the client to read into an error when it takes too long.
    fn guard<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(stalled.as_mut().poll(context));
        self.client.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some((page, claimed)) = &mut self.instead {
            if !page.has_remaining() {
                let claimed = *claimed;
                self.instead = None;
                return Poll::Ready(Ok(claimed));
            }
            let written = Pin::new(&mut self.stream).poll_write(context, page);
            let written = ready!(self.guard(context, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some((page, _)) = &mut self.instead {
                page.advance(written);
            }
        }
        Poll::Ready(Ok(0))
    }

    /// Puts the page in the place of the server's own answer, if that is what is about to be written: while no
    /// answer of the router is on its way, nothing else is.
    fn watch(&mut self, bytes: &[u8]) {
        let idle = self.client.is_idle() && !self.client.unflushed.load(Ordering::Relaxed);
        if self.instead.is_some() || !idle || !is_bare(bytes) {
            return;
        }
        self.client.linger.store(true, Ordering::Relaxed);
        self.instead = Some((bad_request(), bytes.len()));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.watch(bytes);
        if this.instead.is_some() {
            return this.poll_instead(context);
        }
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.guard(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let [only] = slices {
            this.watch(only);
        }
        if this.instead.is_some() {
            return this.poll_instead(context);
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.guard(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.client.unflushed.store(false, Ordering::Relaxed);
        }
        self.guard(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let shut = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.guard(context, shut))?;
            if !this.client.linger.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let (until, left) = this.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut dropped = [0; 4 << 10];
        while *left > 0 && until.deadline() > Instant::now() && until.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut dropped);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_answers_are_bare() {
        assert!(is_bare(b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n"));
        assert!(!is_bare(b"HTTP/1.1 431 Request Header Fields Too Large\r\nvia: 1.1 heroku-router\r\n\r\n"));
        assert!(!is_bare(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    }
}
