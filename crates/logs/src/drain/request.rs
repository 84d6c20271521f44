//! Requests to a receiver that speaks HTTP: one at a time, over a connection that is kept while it works.
//!
//! HTTP/1.1, or HTTP/2 for gRPC. Redirects are not followed: they could lead where the platform must not go. An answer
//! is read as far as its bound; a receiver that says more than that, or nothing, loses its connection.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use dozen_api::{drains::Address, outbound::Host};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Shared,
    link::{self, Link},
};

/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The connection broke, or what came was no HTTP.
    #[error("the exchange broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl Error {
    /// Says whether the request was on its way when it failed: then it counts as tried.
    pub(crate) fn was_sent(&self) -> bool {
        !matches!(self, Self::Link(_))
    }
}

/// An answer with its beginning of a body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// Where requests go.
pub(crate) struct Client {
    host: Host,
    tls: Option<Arc<ClientConfig>>,
    http2: bool,
    open: Option<(Sender, JoinHandle<()>, Instant)>,
}

impl Client {
    /// Nothing is connected yet.
    pub(crate) fn new(shared: &Shared, address: &Address, http2: bool) -> Self {
        let config = |tls: Arc<ClientConfig>| {
            let mut config = ClientConfig::clone(&tls);
            config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
            Arc::new(config)
        };
        Self { host: address.host.clone(), tls: shared.tls(address).map(config), http2, open: None }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When there is none. The connection is given up then.
    pub(crate) async fn send(
        &mut self,
        shared: &Shared,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Answer, Error> {
        self.connect(shared).await?;
        let exchanged = timeout(limit, self.exchange(request)).await.map_err(|_| Error::Late(limit));
        match exchanged.and_then(|exchanged| exchanged) {
            Ok(answer) => {
                if let Some((_, _, used)) = &mut self.open {
                    *used = Instant::now();
                }
                Ok(answer)
            }
            Err(error) => {
                self.close();
                Err(error)
            }
        }
    }

    /// Waits until the connection has been idle for `limit` and closes it; for ever without one.
    pub(crate) async fn idle(&mut self, limit: Duration) {
        match &mut self.open {
            Some((_, connection, used)) => {
                // It also ends when the other side closes it.
                let ended = timeout_at(*used + limit, connection).await;
                drop(ended);
                self.close();
            }
            None => std::future::pending().await,
        }
    }

    fn close(&mut self) {
        if let Some((_, connection, _)) = self.open.take() {
            connection.abort();
        }
    }

    async fn connect(&mut self, shared: &Shared) -> Result<(), Error> {
        let usable = match &mut self.open {
            Some((Sender::One(sender), ..)) => sender.ready().await.is_ok(),
            Some((Sender::Two(sender), ..)) => sender.ready().await.is_ok(),
            None => false,
        };
        if usable {
            return Ok(());
        }
        self.close();
        let limit = dozen_domain::limits::millis(shared.limits.drain_connect_ms);
        let link = Link::open(&self.host, &shared.reach, self.tls.clone(), limit).await?;
        let broken = |error: hyper::Error| Error::Broken(error.into());
        let stream = TokioIo::new(link.stream);
        let (sender, connection) = if self.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(broken)?;
            (Sender::Two(sender), tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
            (Sender::One(sender), tokio::spawn(async move { drop(connection.await) }))
        };
        self.open = Some((sender, connection, Instant::now()));
        Ok(())
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let broken = |error: hyper::Error| Error::Broken(error.into());
        let response: http::Response<Incoming> = match &mut self.open {
            Some((Sender::One(sender), ..)) => sender.send_request(request).await.map_err(broken)?,
            Some((Sender::Two(sender), ..)) => sender.send_request(request).await.map_err(broken)?,
            None => return Err(Error::Broken(io::Error::from(io::ErrorKind::NotConnected).into())),
        };
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, ANSWER).collect().await {
            Ok(body) => body,
            Err(error) => {
                // The status has been given; the rest is not wanted.
                tracing::debug!(%error, host = %self.host, "a drain's answer is not read to its end");
                self.close();
                return Ok(Answer {
                    status: parts.status,
                    headers: parts.headers,
                    body: Bytes::new(),
                    trailers: HeaderMap::new(),
                });
            }
        };
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}
