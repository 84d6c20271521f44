//! Bodies on their way through: [`Upload`] from client to dyno, [`Reply`] from dyno (or the router) to client.
//!
//! Neither buffers: a frame goes on when the other side takes it. Both note when something last moved, so that silence
//! on both sides can be told from a slow one, and the end of a [`Download`] is where a dyno's connection is kept for
//! the next request and the access line is written.

use std::{
    error::Error as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use dozen_domain::limits::millis;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    error::{Error, Flaw, Kind},
    exchange::Exchange,
    upstreams::Connection,
};

/// How far a request's body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// The dyno's side has not asked for it yet.
    Untouched,
    /// It flows, and the dyno's side is behind.
    Flowing,
    /// More is awaited from the client.
    Awaited,
    /// All of it has been handed on, or the dyno wants no more.
    Done,
    /// The client went away in the middle.
    Gone,
    /// Its chunked encoding is broken.
    Broken,
}

/// The state of a request's body, seen from outside.
pub(crate) struct Progress {
    born: Instant,
    moved_us: AtomicU64, // since `born`
    stage: AtomicU8,
    changed: Notify,
}

impl Progress {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            moved_us: AtomicU64::new(0),
            stage: AtomicU8::new(Stage::Untouched as u8),
            changed: Notify::new(),
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        const STAGES: [Stage; 6] =
            [Stage::Untouched, Stage::Flowing, Stage::Awaited, Stage::Done, Stage::Gone, Stage::Broken];
        STAGES[usize::from(self.stage.load(Ordering::Acquire)).min(STAGES.len() - 1)]
    }

    /// When something last moved.
    pub(crate) fn moved(&self) -> Instant {
        self.born + Duration::from_micros(self.moved_us.load(Ordering::Relaxed))
    }

    /// Fires when the body is done or has failed.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// The failure of the client's side, if that is what happened.
    pub(crate) fn failure(&self) -> Option<Error> {
        match self.stage() {
            Stage::Gone => Some(Error::client(Kind::Closed)),
            Stage::Broken => Some(Error::client(Kind::BadRequest(Flaw::Chunk))),
            Stage::Untouched | Stage::Flowing | Stage::Awaited | Stage::Done => None,
        }
    }

    fn touch(&self) {
        self.moved_us.store(self.born.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
        if matches!(stage, Stage::Done | Stage::Gone | Stage::Broken) {
            self.touch();
            self.changed.notify_one();
        }
    }
}

/// A request's body, as the connection to the dyno reads it.
pub(crate) struct Upload {
    body: Option<(Incoming, Arc<Progress>)>,
}

impl Upload {
    /// Wraps a body; one that is empty from the start costs nothing.
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body: (!body.is_end_stream()).then(|| (body, Arc::new(Progress::new()))) }
    }

    /// A body without a byte.
    pub(crate) const fn empty() -> Self {
        Self { body: None }
    }

    /// The body's state; none when there is no body.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.body.as_ref().map(|(_, progress)| progress.clone())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some((body, progress)) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => {
                if progress.stage() != Stage::Awaited {
                    progress.enter(Stage::Awaited);
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                progress.touch();
                progress.enter(if body.is_end_stream() { Stage::Done } else { Stage::Flowing });
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                progress.enter(if is_broken(&error) { Stage::Broken } else { Stage::Gone });
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                progress.enter(Stage::Done);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some((_, progress)) = &self.body
            && progress.stage() as u8 <= Stage::Awaited as u8
        {
            progress.enter(Stage::Done);
        }
    }
}

/// Says whether a body failed because of its encoding, not because its connection ended.
fn is_broken(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        }
        source = error.source();
    }
    false
}

/// A response's body, as the client's connection reads it.
pub(crate) enum Reply {
    /// A page of the router's own, or nothing.
    Page(Option<Bytes>),
    /// What a dyno answers.
    Download(Box<Download>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Page(page) => Poll::Ready(page.take().map(|page| Ok(Frame::data(page)))),
            Self::Download(download) => download.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(page) => page.is_none(),
            Self::Download(download) => download.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64)),
            Self::Download(download) => download.body.size_hint(),
        }
    }
}

/// The body of a dyno's answer, with all that is to be done at its end.
pub(crate) struct Download {
    pub(crate) body: Incoming,
    pub(crate) exchange: Exchange,
    /// The connection it comes over, if that may carry another request.
    pub(crate) connection: Option<Connection>,
    /// State of the request's body, which may still be on its way.
    pub(crate) upload: Option<Arc<Progress>>,
    pub(crate) moved: Instant,
    pub(crate) silence: Option<Pin<Box<Sleep>>>,
}

impl Download {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.moved = Instant::now();
                self.exchange.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.body.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "a dyno broke off its response");
                let failure = self.upload.as_ref().and_then(|upload| upload.failure());
                Poll::Ready(Some(Err(self.fail(failure.unwrap_or(Error::dyno(Kind::Closed))))))
            }
            Poll::Pending => {
                let error = ready!(self.poll_silence(context));
                Poll::Ready(Some(Err(self.fail(error))))
            }
        }
    }

    /// Ready once neither side has moved for `router_idle_ms`, with the side that should have.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let limit = millis(self.exchange.router.limits.router_idle_ms);
        loop {
            let moved = self.upload.as_ref().map_or(self.moved, |upload| self.moved.max(upload.moved()));
            let deadline = moved + limit;
            let silence = self.silence.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            ready!(silence.as_mut().poll(context));
            if deadline <= Instant::now() {
                let awaited = self.upload.as_ref().is_some_and(|upload| upload.stage() == Stage::Awaited);
                return Poll::Ready(if awaited { Error::client(Kind::Idle) } else { Error::dyno(Kind::Idle) });
            }
            silence.as_mut().reset(deadline);
        }
    }

    fn complete(&mut self) {
        // A connection that still carries the request's body is of no use to the next request.
        let sent = self.upload.as_ref().is_none_or(|upload| upload.stage() == Stage::Done);
        if let (Some(connection), Some(dyno), true) = (self.connection.take(), &self.exchange.dyno, sent) {
            dyno.checkin(connection, &self.exchange.router.limits);
        }
        self.exchange.finish(None);
    }

    fn fail(&mut self, error: Error) -> Error {
        self.connection = None;
        self.exchange.finish(Some(&error));
        error
    }

    /// Ends a body that has no byte at all.
    pub(crate) fn complete_if_empty(&mut self) {
        if self.body.is_end_stream() {
            self.complete();
        }
    }
}
