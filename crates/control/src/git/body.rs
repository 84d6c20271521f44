//! The bytes of one exchange with git: the request into its standard input, its standard output into the answer.

use std::{
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, header};
use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    process::{ChildStdin, ChildStdout},
    task::AbortHandle,
};

use super::process::Running;

/// Bytes read from git at once.
const PIECE: usize = 64 << 10;
/// Packed bytes that are unpacked at once: gzip makes at most some thousand times as much of them.
const PACKED: usize = 4 << 10;
/// Bytes of a request that are thrown away after git has stopped reading, so that the client comes to read why.
const DRAIN: usize = 256 << 20;

/// How a request's body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    /// Reads `Content-Encoding`; `None` for one that is not understood.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
            None | Some(b"identity") => Some(Self::Plain),
            Some(b"gzip" | b"x-gzip") => Some(Self::Gzip),
            Some(_) => None,
        }
    }
}

/// Feeds git and answers with what it says, from its first word on.
///
/// Dropping the future or the body stops git: that is how a client that goes away ends its push.
pub(super) async fn exchange(
    sent: Body,
    encoding: Encoding,
    running: Running,
    input: ChildStdin,
    mut output: ChildStdout,
) -> io::Result<Body> {
    let feeding = tokio::spawn(feed(sent.into_data_stream(), encoding, input));
    let guard = Guard { feeding: feeding.abort_handle(), running };
    let mut first = BytesMut::with_capacity(PIECE);
    // The status line waits for git's first word, so that a git that cannot start is an error and not an empty answer.
    if output.read_buf(&mut first).await? == 0 {
        let mut guard = guard;
        let fed = feeding.await;
        let status = guard.running.wait().await?;
        return match fed {
            Ok(Ok(())) if status.success() => Ok(Body::empty()),
            Ok(Err(error)) => Err(error),
            _ => Err(io::Error::other(format!("git ended with {status}"))),
        };
    }
    Ok(Body::from_stream(Answer { first: Some(first.freeze()), output, guard: Some(guard), ending: None }))
}

/// Unpacks a piece into git; an error of the inner kind is git's that has stopped reading.
async fn unpack(
    decoder: &mut MultiGzDecoder<Vec<u8>>,
    piece: &[u8],
    input: &mut ChildStdin,
) -> io::Result<io::Result<()>> {
    for part in piece.chunks(PACKED) {
        decoder.write_all(part)?;
        decoder.flush()?;
        let bytes = std::mem::take(decoder.get_mut());
        if let Err(error) = input.write_all(&bytes).await {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Copies a request's body to git. A client that breaks off leaves git with a torn pack, which it throws away.
async fn feed(mut sent: BodyDataStream, encoding: Encoding, mut input: ChildStdin) -> io::Result<()> {
    let mut unpacked = match encoding {
        Encoding::Plain => None,
        Encoding::Gzip => Some(MultiGzDecoder::new(Vec::new())),
    };
    while let Some(piece) = sent.next().await {
        let piece = piece.map_err(io::Error::other)?;
        let written = match &mut unpacked {
            None => input.write_all(&piece).await,
            Some(decoder) => unpack(decoder, &piece, &mut input).await?,
        };
        if written.is_err() {
            // Git has heard enough and says why in its answer.
            let mut left = DRAIN;
            while let Some(Ok(piece)) = sent.next().await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    break;
                }
            }
            return Ok(());
        }
    }
    if let Some(decoder) = unpacked {
        input.write_all(&decoder.finish()?).await?;
    }
    input.shutdown().await
}

/// Stops everything of an exchange that ends early.
struct Guard {
    feeding: AbortHandle,
    running: Running,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.feeding.abort();
    }
}

/// Git's standard output as an answer's body; it ends when git has ended.
struct Answer {
    first: Option<Bytes>,
    output: ChildStdout,
    guard: Option<Guard>,
    ending: Option<tokio::task::JoinHandle<()>>,
}

impl Stream for Answer {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(ending) = &mut self.ending {
            return Pin::new(ending).poll(context).map(|_| None);
        }
        let mut piece = BytesMut::zeroed(PIECE);
        let mut buffer = ReadBuf::new(&mut piece);
        let read = std::task::ready!(Pin::new(&mut self.output).poll_read(context, &mut buffer));
        let n = buffer.filled().len();
        match read {
            Err(error) => Poll::Ready(Some(Err(error))),
            Ok(()) if n > 0 => {
                piece.truncate(n);
                Poll::Ready(Some(Ok(piece.freeze())))
            }
            Ok(()) => {
                let Some(mut guard) = self.guard.take() else { return Poll::Ready(None) };
                self.ending = Some(tokio::spawn(async move {
                    match guard.running.wait().await {
                        Ok(status) if status.success() => {}
                        Ok(status) => tracing::debug!(%status, "git ended"),
                        Err(error) => tracing::warn!(%error, "wait for git"),
                    }
                }));
                self.poll_next(context)
            }
        }
    }
}
