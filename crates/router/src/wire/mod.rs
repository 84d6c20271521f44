//! Messages on the wire: what a connection says in bytes, and what it means.
//!
//! A [`Side`] is one end of an exchange, the client's or the dyno's, over HTTP/1 ([`http1`]) or HTTP/2 ([`http2`]). It
//! gives the bytes of the body that comes from there and takes those of the body that goes there. [`pump`] moves bodies
//! from one side to the other without ever holding more than one buffer; nothing here knows routes, dynos or codes.

pub(crate) mod buffer;
pub(crate) mod chunks;
pub(crate) mod head;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod names;

use std::{
    io,
    task::{Context, Poll, ready},
};

use self::head::Head;

/// Why no more comes from a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    /// Its connection ended before the message did.
    Gone,
    /// The body's coding is broken.
    Broken,
}

/// One end of an exchange.
pub(crate) trait Side {
    /// Gets bytes of the body; `false` at its end.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Fail>>;

    /// The bytes that are there now.
    fn bytes(&self) -> &[u8];

    /// Notes that some of them were used.
    fn consume(&mut self, count: usize);

    /// The fields that came after the body.
    fn trailers(&mut self) -> Option<Box<Head>>;

    /// Takes bytes of the body that goes to this side; returns how many.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Writes out everything taken so far.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the body that goes to this side; called again until it is ready.
    fn poll_end(&mut self, context: &mut Context<'_>, trailers: Option<Box<Head>>) -> Poll<io::Result<()>>;
}

/// What one direction is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Bytes from its source.
    Awaited,
    /// Room at its destination.
    Blocked,
    /// Nothing: all is through.
    Done,
}

/// One direction of an exchange.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) stage: Stage,
    /// Bytes of the body that have gone through.
    pub(crate) bytes: u64,
    /// Something has moved since this was last cleared.
    pub(crate) moved: bool,
    ending: bool,
    trailers: Option<Box<Head>>,
}

/// The side that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Torn {
    Source(Fail),
    Destination,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Awaited, bytes: 0, moved: false, ending: false, trailers: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }
}

/// Moves as much of a body as both sides allow now.
pub(crate) fn pump<A: Side, B: Side>(
    flow: &mut Flow,
    from: &mut A,
    to: &mut B,
    context: &mut Context<'_>,
) -> Poll<Result<(), Torn>> {
    if flow.is_done() {
        return Poll::Ready(Ok(()));
    }
    loop {
        if flow.ending {
            flow.stage = Stage::Blocked;
            ready!(to.poll_end(context, flow.trailers.take())).map_err(|_gone| Torn::Destination)?;
            flow.stage = Stage::Done;
            flow.moved = true;
            return Poll::Ready(Ok(()));
        }
        match from.poll_fill(context) {
            Poll::Ready(Ok(true)) => {
                flow.stage = Stage::Blocked;
                let count = ready!(to.poll_send(context, from.bytes())).map_err(|_gone| Torn::Destination)?;
                from.consume(count);
                flow.bytes += count as u64;
                flow.moved = true;
            }
            Poll::Ready(Ok(false)) => {
                flow.trailers = from.trailers();
                flow.ending = true;
            }
            Poll::Ready(Err(fail)) => return Poll::Ready(Err(Torn::Source(fail))),
            Poll::Pending => {
                flow.stage = Stage::Blocked;
                ready!(to.poll_flush(context)).map_err(|_gone| Torn::Destination)?;
                flow.stage = Stage::Awaited;
                return Poll::Pending;
            }
        }
    }
}
