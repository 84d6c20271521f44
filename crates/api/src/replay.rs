//! A stream of which some bytes were read to find out what it is, and which is then read from its beginning again; and
//! one whose bytes are looked at as they are read.
//!
//! Both sides that listen need the first: control tells HTTP from a rendezvous, the router HTTP/2 from HTTP/1. The
//! router's HTTP/2 needs the second, for what the library does not look at.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose first bytes were read already and come again.
#[derive(Debug)]
pub struct Replayed<S> {
    first: Bytes,
    stream: S,
}

impl<S> Replayed<S> {
    /// `first`, then what `stream` still holds.
    pub fn new(first: Bytes, stream: S) -> Self {
        Self { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..n]);
            self.first.advance(n);
            if self.first.is_empty() {
                // A connection may live long: its first bytes need no memory any more.
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// What is written goes to the stream within as it is.
macro_rules! write_through {
    ($type:ty where $stream:ident $($more:tt)*) => {
        impl<$stream: AsyncWrite + Unpin $($more)*> AsyncWrite for $type {
            fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write(context, bytes)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write_vectored(context, slices)
            }

            fn is_write_vectored(&self) -> bool {
                self.stream.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_flush(context)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_shutdown(context)
            }
        }
    };
}

write_through!(Replayed<S> where S);
write_through!(Watched<S, F> where S, F: Unpin);

/// A stream of which somebody looks at what is read, and may find that it is to end.
#[derive(Debug)]
pub struct Watched<S, F> {
    stream: S,
    look: F,
}

impl<S, F: FnMut(&[u8]) -> io::Result<()>> Watched<S, F> {
    /// Shows `look` every piece that is read from `stream`, before it is read; an error of its is one of the reading.
    pub fn new(stream: S, look: F) -> Self {
        Self { stream, look }
    }
}

impl<S: AsyncRead + Unpin, F: FnMut(&[u8]) -> io::Result<()> + Unpin> AsyncRead for Watched<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready((self.look)(&buffer.filled()[before..]))
    }
}
