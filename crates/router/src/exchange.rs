//! One request and what became of it: the context that goes through all phases.
//!
//! An exchange always leaves exactly one access line. Phases end it with [`Exchange::finish`]; when it is dropped
//! before, the client has gone away (the server drops the request's future), or the router itself is cutting open
//! requests at the end of its stop.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dozen_api::{
    clock,
    logs::{Line, Source},
};
use http::{HeaderValue, Method, uri::PathAndQuery};
use tokio::time::Instant;

use crate::{
    Router, access_log,
    error::{Error, Kind},
    table::{App, Waiting},
    upstreams::Upstream,
};

/// The other end of a client connection, for all its requests.
pub(crate) struct Client {
    /// Its address as text.
    pub(crate) address: Box<str>,
    /// The port it connected to.
    pub(crate) port: HeaderValue,
    /// It speaks TLS.
    pub(crate) tls: bool,
    /// The name that it asked for in the handshake, in lower case.
    pub(crate) server_name: Option<Box<str>>,
    /// It came when too many connections were open.
    pub(crate) excess: bool,
    /// It stopped reading for so long that the connection was given up.
    pub(crate) stalled: AtomicBool,
    /// Bytes that it still sends are to be read before the connection is closed, so that it sees the last answer.
    pub(crate) linger: AtomicBool,
    /// Requests that it has made.
    pub(crate) begun: AtomicU64,
    /// Those of them that have ended.
    pub(crate) ended: AtomicU64,
    /// An answer has ended, and a part of it may not be written yet.
    pub(crate) unflushed: AtomicBool,
}

impl Client {
    pub(crate) fn new(address: IpAddr, port: u16, tls: bool, excess: bool) -> Self {
        Self {
            address: address.to_canonical().to_string().into(),
            port: HeaderValue::from(port),
            tls,
            server_name: None,
            excess,
            stalled: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            unflushed: AtomicBool::new(false),
        }
    }

    /// Says whether no request of this client is being answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == self.ended.load(Ordering::Relaxed)
    }
}

/// One request.
pub(crate) struct Exchange {
    pub(crate) router: Arc<Router>,
    pub(crate) client: Arc<Client>,
    pub(crate) started: Instant,
    pub(crate) method: Method,
    /// Path and query; none for the request forms that have no path.
    pub(crate) target: Option<PathAndQuery>,
    /// Host in lower case without port.
    pub(crate) host: Box<str>,
    pub(crate) request_id: HeaderValue,
    /// `X-Forwarded-For` as the dyno gets it.
    pub(crate) forwarded: HeaderValue,
    /// What the client calls itself, where it asks for another host than its connection was opened for.
    pub(crate) agent: Option<HeaderValue>,
    pub(crate) app: Option<Arc<App>>,
    /// Counts towards the app's backlog until the response begins.
    pub(crate) waiting: Option<Waiting>,
    /// The dyno that was tried last.
    pub(crate) dyno: Option<Arc<Upstream>>,
    /// How long connecting to it took.
    pub(crate) connect: Option<Duration>,
    /// When the request was handed to it.
    pub(crate) dispatched: Option<Instant>,
    /// Status of the response.
    pub(crate) status: u16,
    /// Bytes of the response's body.
    pub(crate) bytes: u64,
    pub(crate) logged: bool,
}

impl Exchange {
    /// Ends the exchange: writes its access line.
    pub(crate) fn finish(&mut self, error: Option<&Error>) {
        self.waiting = None;
        if std::mem::replace(&mut self.logged, true) {
            return;
        }
        self.client.unflushed.store(true, Ordering::Relaxed);
        self.client.ended.fetch_add(1, Ordering::Relaxed);
        let Some(app) = &self.app else { return };
        let text = access_log::line(self, error.map(Error::verdict).as_ref());
        let process = "router".to_owned();
        self.router.logs.send(Line { app: app.id, at: clock::now(), source: Source::Heroku, process, text });
    }

    /// Why an exchange ended that nobody finished.
    fn abandoned(&self) -> Error {
        if self.router.cutting.load(Ordering::Relaxed) {
            Error::router(Kind::Closed)
        } else if self.client.stalled.load(Ordering::Relaxed) {
            Error::client(Kind::Idle)
        } else {
            Error::client(Kind::Closed)
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.logged {
            let error = self.abandoned();
            self.finish(Some(&error));
        }
    }
}
