//! The router's side of one dyno: addresses, kept connections, quarantine.
//!
//! An [`Upstream`] lives as long as the dyno, across updates of the table, and takes its kept connections with it when
//! it goes: a dyno that later gets the same address starts with none. A connection is checked out for one request and
//! checked in when the response has ended, never earlier.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use dozen_api::routes;
use dozen_domain::{
    ids::DynoId,
    limits::{Limits, millis},
};
use futures_util::FutureExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    body::Upload,
    error::{Error, Kind, Retry},
};

/// A dyno as the router knows it.
pub(crate) struct Upstream {
    pub(crate) id: DynoId,
    /// `web.1`.
    pub(crate) label: Box<str>,
    pub(crate) addresses: Vec<SocketAddr>,
    idle: Mutex<Vec<Idle>>,
    born: Instant,
    quarantined_until_ms: AtomicU64, // since `born`
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to a dyno that carries one request at a time.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Upload>,
    pub(crate) meter: Arc<Meter>,
    /// It has carried a request before.
    pub(crate) kept: bool,
}

impl Upstream {
    pub(crate) fn new(dyno: &routes::Dyno) -> Self {
        Self {
            id: dyno.id,
            label: dyno.name.to_string().into(),
            addresses: dyno.addresses.clone(),
            idle: Mutex::default(),
            born: Instant::now(),
            quarantined_until_ms: AtomicU64::new(0),
        }
    }

    /// Until when this dyno is passed over, if it is.
    pub(crate) fn quarantined(&self, now: Instant) -> Option<Instant> {
        let until = self.quarantined_until_ms.load(Ordering::Relaxed);
        let until = self.born + Duration::from_millis(until);
        (until > now).then_some(until)
    }

    /// Passes this dyno over for a while.
    pub(crate) fn quarantine(&self, length: Duration) {
        let until = (Instant::now() + length).saturating_duration_since(self.born);
        self.quarantined_until_ms.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// Takes the connection that was kept last, if it is still open and was idle for less than `fresh`.
    pub(crate) fn checkout(&self, fresh: Duration) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle();
        let mut busy = Vec::new();
        let found = loop {
            match idle.pop() {
                Some(last) if now.duration_since(last.since) >= fresh => {
                    idle.push(last); // all others are older
                    break None;
                }
                Some(mut last) => match last.connection.sender.ready().now_or_never() {
                    Some(Ok(())) => break Some(last.connection),
                    Some(Err(_closed)) => {}
                    // Its task has not noticed the end of the last response yet.
                    None => busy.push(last),
                },
                None => break None,
            }
        };
        idle.extend(busy.into_iter().rev());
        found
    }

    /// Keeps a connection for the next request.
    pub(crate) fn checkin(&self, mut connection: Connection, limits: &Limits) {
        if connection.sender.is_closed() {
            return;
        }
        connection.kept = true;
        let mut idle = self.idle();
        if (idle.len() as u64) < limits.router_upstream_idle_connections {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes connections that were idle for `length` and those that the dyno has closed.
    pub(crate) fn reap(&self, length: Duration) {
        let now = Instant::now();
        self.idle().retain(|idle| now.duration_since(idle.since) < length && !idle.connection.sender.is_closed());
    }

    /// Opens a connection to the first address that takes it.
    ///
    /// # Errors
    /// When all refuse, none answers in time, or this machine has run out of something.
    pub(crate) async fn connect(&self, limits: &Limits, budget: Instant) -> Result<Connection, Error> {
        let deadline = budget.min(Instant::now() + millis(limits.router_connect_ms));
        let refused = Error::dyno(Kind::Refused).retry(Retry::OtherDyno);
        let mut failure = refused;
        for address in &self.addresses {
            let stream = match timeout_at(deadline, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) if is_ours(&error) => {
                    tracing::error!(%error, %address, "cannot open a connection to a dyno");
                    return Err(Error::router(Kind::Internal));
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, %address, "a dyno refused a connection");
                    failure = refused;
                    continue;
                }
                Err(_elapsed) => {
                    failure = Error::dyno(Kind::ConnectTimeout).retry(Retry::OtherDyno);
                    break;
                }
            };
            return handshake(stream, limits).await;
        }
        Err(failure)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether a failed connect is this machine's doing: out of descriptors, ports or memory.
fn is_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, OutOfMemory, PermissionDenied};
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), AddrNotAvailable | OutOfMemory | PermissionDenied)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

async fn handshake(stream: TcpStream, limits: &Limits) -> Result<Connection, Error> {
    // Small writes must not wait for acknowledgements; a failure costs speed alone.
    let _ = stream.set_nodelay(true);
    let meter = Arc::new(Meter::default());
    let io = TokioIo::new(Metered { stream, meter: meter.clone() });
    // A head must fit the read buffer, which thus is the limit of a header line; bodies pass through in pieces.
    let buffer = (limits.router_response_header_bytes as usize + 8_192).max(8_192);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(buffer).max_headers(limits.router_headers as usize);
    let (sender, connection) = builder.handshake(io).await.map_err(|_closed| Error::dyno(Kind::ClosedEarly))?;
    tokio::spawn(async move {
        // What went wrong is told to the request that the connection carried.
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "a connection to a dyno ended");
        }
    });
    Ok(Connection { sender, meter, kept: false })
}

/// What came from the dyno since the current request was sent.
#[derive(Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    separator: AtomicU8,
}

/// Index of the byte after `HTTP/1.1 200`.
const SEPARATOR: u64 = 12;

impl Meter {
    /// Starts over for the next request.
    pub(crate) fn reset(&self) {
        self.separator.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Release);
    }

    /// Bytes that came.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Says whether the status code was followed by the space that comes before the reason phrase.
    pub(crate) fn has_reason(&self) -> bool {
        self.separator.load(Ordering::Relaxed) == b' '
    }

    fn add(&self, read: &[u8]) {
        let before = self.bytes.load(Ordering::Relaxed);
        if let Some(byte) = SEPARATOR.checked_sub(before).and_then(|index| read.get(index as usize)) {
            self.separator.store(*byte, Ordering::Relaxed);
        }
        self.bytes.store(before + read.len() as u64, Ordering::Release);
    }
}

/// A dyno's socket that counts what is read from it.
struct Metered {
    stream: TcpStream,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(read) = buffer.filled().get(before..).filter(|read| !read.is_empty()) {
            self.meter.add(read);
        }
        result
    }
}

impl AsyncWrite for Metered {
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
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_finds_the_separator_however_the_bytes_arrive() {
        for (pieces, expected) in [
            (vec!["HTTP/1.1 200 OK\r\n"], true),
            (vec!["HTTP/1.1 20", "0", " \r\n"], true),
            (vec!["HTTP/1.1 200\r\n"], false),
            (vec!["HTTP/1.1 200", "\r\n\r\n"], false),
        ] {
            let meter = Meter::default();
            pieces.iter().for_each(|piece| meter.add(piece.as_bytes()));
            assert_eq!(meter.has_reason(), expected, "{pieces:?}");
        }
    }
}
