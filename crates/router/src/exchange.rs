//! One request and what became of it: the context that goes through all phases.
//!
//! An exchange always leaves exactly one access line. Phases end it with [`Exchange::finish`]; when it is dropped
//! before, the router itself is cutting open requests at the end of its stop, or the client has gone away.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dozen_api::{
    clock,
    logs::{Line, Source},
};
use dozen_domain::{
    ids::DynoId,
    limits::{Limits, millis},
};
use tokio::time::Instant;

use crate::{
    Router, access_log,
    error::{Error, Kind},
    table::{App, Open, Waiting},
    upstreams::Upstream,
    wire::head::Head,
};

/// The other end of a client connection, for all its requests.
pub(crate) struct Client {
    /// Its address.
    pub(crate) ip: IpAddr,
    /// The same as text.
    pub(crate) address: Box<str>,
    /// The port it connected to.
    pub(crate) port: Box<str>,
    /// It speaks TLS.
    pub(crate) tls: bool,
    /// The name that it asked for in the handshake, in lower case.
    pub(crate) server_name: Option<Box<str>>,
    /// It came when too many connections were open.
    pub(crate) excess: bool,
}

impl Client {
    pub(crate) fn new(address: IpAddr, port: u16, tls: bool, excess: bool) -> Self {
        Self {
            ip: address,
            address: address.to_canonical().to_string().into(),
            port: port.to_string().into(),
            tls,
            server_name: None,
            excess,
        }
    }

    /// How long its connection may be idle: one that is over a limit is there to be told so, and not for long.
    pub(crate) fn patience(&self, limits: &Limits) -> Duration {
        let most = if self.excess { limits.router_tls_handshake_ms } else { u64::MAX };
        millis(limits.router_keep_alive_ms.min(most))
    }
}

/// One request.
pub(crate) struct Exchange {
    pub(crate) router: Arc<Router>,
    pub(crate) client: Arc<Client>,
    pub(crate) started: Instant,
    /// The request's head.
    pub(crate) head: Head,
    /// Host in lower case without port.
    pub(crate) host: Box<str>,
    pub(crate) request_id: Box<str>,
    /// `X-Forwarded-For` as the dyno gets it.
    pub(crate) forwarded: Vec<u8>,
    pub(crate) app: Option<Arc<App>>,
    /// Counts as a request of the app to its end.
    pub(crate) open: Option<Open>,
    /// Counts towards the app's backlog until the response begins.
    pub(crate) waiting: Option<Waiting>,
    /// The client waits for the dyno's word before it sends its body (`http-end-to-end-continue`).
    pub(crate) expects: bool,
    /// The dyno that its cookie asks for.
    pub(crate) wanted: Option<DynoId>,
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
        let verdict = error.map(Error::verdict);
        let status = verdict.map_or(Some(self.status), |verdict| verdict.status);
        let code = verdict.and_then(|verdict| verdict.code);
        self.router.metrics.count(self.app.as_ref(), status, code, self.started.elapsed());
        let Some(app) = &self.app else { return };
        let text = access_log::line(self, verdict.as_ref());
        let process = "router".to_owned();
        self.router.logs.send(Line { app: app.id, at: clock::now(), source: Source::Heroku, process, text });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.logged {
            let cut = self.router.cutting.load(Ordering::Relaxed);
            let error = if cut { Error::router(Kind::Closed) } else { Error::client(Kind::Closed) };
            self.finish(Some(&error));
        }
    }
}
