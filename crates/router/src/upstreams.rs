//! The router's side of one dyno: addresses, kept connections, quarantine.
//!
//! An [`Upstream`] lives as long as the dyno, across updates of the table, and takes its kept connections with it when
//! it goes: a dyno that later gets the same address starts with none. A connection is checked out for one request and
//! checked in when the response has ended, never earlier. A connection of HTTP/2 carries many requests at once and is
//! shared by all of them.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dozen_api::routes;
use dozen_domain::{
    ids::DynoId,
    limits::{Limits, millis},
};
use h2::client::SendRequest;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    error::{Error, Kind, Retry},
    link::{Kept, Link},
    wire::{buffer::Buffer, http1::Http1},
};

/// Bytes of a body that one request to a dyno over HTTP/2 may have on the way.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all requests of one connection together.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// How an app's dynos are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, over connections that are kept or not.
    Http1 { keep: bool },
    /// HTTP/2 in clear text, known beforehand.
    Http2,
}

impl Protocol {
    /// What the app's owner wants. Another protocol is agreed on over HTTP/1.1 alone.
    pub(crate) fn of(app: &routes::App, upgrade: bool) -> Self {
        let routes::Dialogue { keep_alive: keep, http2, .. } = app.dialogue;
        if http2 && !upgrade { Self::Http2 } else { Self::Http1 { keep } }
    }
}

/// A dyno as the router knows it.
pub(crate) struct Upstream {
    pub(crate) id: DynoId,
    /// `web.1`.
    pub(crate) label: Box<str>,
    pub(crate) addresses: Vec<SocketAddr>,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<SendRequest<Bytes>>>,
    born: Instant,
    quarantined_until_ms: AtomicU64, // since `born`
    /// Quarantines since it last took a connection.
    refusals: AtomicU32,
}

struct Idle {
    wire: Box<Http1<TcpStream>>,
    since: Instant,
}

impl Upstream {
    pub(crate) fn new(dyno: &routes::Dyno) -> Self {
        Self {
            id: dyno.id,
            label: dyno.name.to_string().into(),
            addresses: dyno.addresses.clone(),
            idle: Mutex::default(),
            shared: Mutex::default(),
            born: Instant::now(),
            quarantined_until_ms: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
        }
    }

    /// Until when this dyno is passed over, if it is.
    pub(crate) fn quarantined(&self, now: Instant) -> Option<Instant> {
        let until = self.quarantined_until_ms.load(Ordering::Relaxed);
        let until = self.born + Duration::from_millis(until);
        (until > now).then_some(until)
    }

    /// Passes this dyno over for a while, which is the longer the more often it has refused.
    pub(crate) fn quarantine(&self, limits: &Limits) {
        let now = Instant::now();
        if self.quarantined(now).is_some() {
            // Others have tried it at the same time.
            return;
        }
        let doublings = self.refusals.fetch_add(1, Ordering::Relaxed).min(32);
        let length = limits.router_quarantine_first_ms.saturating_mul(1 << doublings).min(limits.router_quarantine_ms);
        let until = (now + millis(length)).saturating_duration_since(self.born);
        self.quarantined_until_ms.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// Takes the connection that was kept last, if it is still open and was idle for less than `fresh`; the shared
    /// one, where the protocol has such.
    ///
    /// # Errors
    /// When the shared one has no room for another request until the deadline.
    pub(crate) async fn checkout(
        &self,
        protocol: Protocol,
        fresh: Duration,
        deadline: Instant,
    ) -> Result<Option<Link>, Error> {
        match protocol {
            Protocol::Http1 { keep: false } => Ok(None),
            Protocol::Http1 { keep: true } => {
                let now = Instant::now();
                loop {
                    let mut last = {
                        let mut idle = self.idle();
                        // All others are older.
                        match idle.pop_if(|last| now.duration_since(last.since) < fresh) {
                            Some(last) => last,
                            None => return Ok(None),
                        }
                    };
                    if !last.wire.is_stale() {
                        return Ok(Some(Link::Http1(Kept { wire: last.wire, kept: true, last: false })));
                    }
                }
            }
            Protocol::Http2 => {
                let Some(sender) = self.shared().clone() else { return Ok(None) };
                match timeout_at(deadline, sender.ready()).await {
                    Ok(Ok(sender)) => Ok(Some(Link::multiplexed(sender))),
                    Ok(Err(_closed)) => {
                        *self.shared() = None;
                        Ok(None)
                    }
                    Err(_elapsed) => Err(Error::dyno(Kind::ConnectTimeout)),
                }
            }
        }
    }

    /// Keeps a connection for the next request, if it can carry another.
    pub(crate) fn checkin(&self, link: Link, limits: &Limits) {
        let Link::Http1(Kept { mut wire, last: false, .. }) = link else { return };
        if !wire.is_read() || wire.is_stale() {
            return;
        }
        wire.rest();
        let mut idle = self.idle();
        if (idle.len() as u64) < limits.router_upstream_idle_connections {
            idle.push(Idle { wire, since: Instant::now() });
        }
    }

    /// Closes connections that were idle for `length` and those that the dyno has closed.
    pub(crate) fn reap(&self, length: Duration) {
        let now = Instant::now();
        self.idle().retain_mut(|idle| now.duration_since(idle.since) < length && !idle.wire.is_stale());
    }

    /// Opens a connection to the first address that takes it.
    ///
    /// # Errors
    /// When all refuse, none answers in time, or this machine has run out of something.
    pub(crate) async fn connect(&self, protocol: Protocol, limits: &Limits, budget: Instant) -> Result<Link, Error> {
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
            self.refusals.store(0, Ordering::Relaxed);
            return self.open(stream, protocol, limits, deadline).await;
        }
        Err(failure)
    }

    async fn open(
        &self,
        stream: TcpStream,
        protocol: Protocol,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Link, Error> {
        // Small writes must not wait for acknowledgements; a failure costs speed alone.
        let _ = stream.set_nodelay(true);
        match protocol {
            Protocol::Http1 { keep } => {
                let wire = Box::new(Http1::new(stream, Buffer::default()));
                Ok(Link::Http1(Kept { wire, kept: false, last: !keep }))
            }
            Protocol::Http2 => {
                let most = limits.router_response_header_bytes.saturating_mul(2);
                let handshake = h2::client::Builder::new()
                    .max_header_list_size(u32::try_from(most).unwrap_or(u32::MAX))
                    .initial_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .enable_push(false)
                    .handshake(stream);
                let closed = Error::dyno(Kind::ClosedEarly);
                let (sender, connection) = timeout_at(deadline, handshake)
                    .await
                    .map_err(|_elapsed| Error::dyno(Kind::ConnectTimeout).retry(Retry::OtherDyno))?
                    .map_err(|_closed| closed)?;
                tokio::spawn(async move {
                    // What went wrong is told to the requests that the connection carried.
                    if let Err(error) = connection.await {
                        tracing::trace!(%error, "a connection to a dyno ended");
                    }
                });
                let sender = sender.ready().await.map_err(|_closed| closed)?;
                *self.shared() = Some(sender.clone());
                Ok(Link::multiplexed(sender))
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
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
