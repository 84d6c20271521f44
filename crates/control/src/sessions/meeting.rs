//! The rendezvous protocol, behind the TLS port (CLIENT-CONTRACT 5.2): the client says its secret, is greeted, and from
//! there on both sides are raw.
//!
//! The greeting is a record of its own: the official client throws away the first piece that it receives, whatever it
//! holds. A secret that is wrong, used, or too late gets no word at all.

use std::{io, time::Duration};

use async_trait::async_trait;
use dozen_api::replay::Replayed;
use dozen_domain::{dyno::Exit, ids::DynoId, limits::seconds};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    Account,
    relay::{Manner, relay},
    secret::{self, Grant},
    ssh,
};
use crate::{
    Context,
    listen::{Rendezvous, Stream},
    reconcile::driver::chain,
};

const GREETING: &[u8] = b"rendezvous\r\n";
/// Time for a secret and its line end; the connection is made for nothing else.
const SECRET: Duration = Duration::from_secs(30);
/// A client that sends no line end after its secret begins after this.
const LINE_END: Duration = Duration::from_millis(50);
/// Longest line: the secret and a query.
const LINE: usize = 1024;

/// Meets clients of one-off dynos and of commands inside dynos.
pub struct Meetings {
    /// The role's state.
    pub context: Context,
    /// Serves the exec family, unless the host has no key.
    pub exec_family: Option<ssh::Server>,
}

#[async_trait]
impl Rendezvous for Meetings {
    async fn meet(&self, mut stream: Box<dyn Stream>) {
        let line = timeout(SECRET, read_line(&mut stream)).await;
        let Ok(Ok(line)) = line else { return close(stream).await };
        match secret::redeem(&self.context.keys.ticket, line.secret()) {
            Some(grant) => self.serve(grant, line, stream).await,
            None => close(stream).await,
        }
    }

    async fn ssh(&self, stream: Box<dyn Stream>) {
        match &self.exec_family {
            Some(server) => server.serve(stream).await,
            None => close(stream).await,
        }
    }
}

impl Meetings {
    async fn serve(&self, grant: Grant, line: Line, mut stream: Box<dyn Stream>) {
        let exact = line.query().split(|byte| *byte == b'&').any(|part| part == b"eof=close");
        let mut manner = Manner::new(grant.terminal, grant.marked, self.context.limits());
        manner.exact = exact;
        let (streams, status, _account): ((Box<_>, Box<_>), BoxFuture<'static, Option<i32>>, _) = if grant.inside {
            let now = self.context.now();
            let Some(pending) = self.context.sessions.take(grant.id, now) else { return close(stream).await };
            // A one-off's shim sees to this by itself; a session in a dyno is nobody else's business.
            manner.idle = Some(seconds(self.context.limits().attach_idle_seconds));
            match self.context.engine.enter(pending.dyno, pending.inside).await {
                Ok(entered) => {
                    let account = Account::open(&self.context, pending.about);
                    // The process lives as long as this waits for its end.
                    let status = entered.exit.map(|exit| exit.ok().flatten().map(Exit::status));
                    ((entered.input, entered.output), status.boxed(), Some(account))
                }
                Err(error) => {
                    let text = format!("{}\r\n", chain(&error));
                    let refusal = async {
                        greet(&mut stream).await?;
                        stream.write_all(text.as_bytes()).await
                    };
                    let _ = refusal.await;
                    return close(stream).await;
                }
            }
        } else {
            let dyno = DynoId(grant.id);
            let context = self.context.clone();
            let status = async move { context.engine.wait(dyno).await.ok().map(Exit::status) };
            match self.context.engine.attach(dyno).await {
                Ok(attached) => ((attached.input, attached.output), status.boxed(), None),
                Err(error) => {
                    tracing::debug!(dyno = %grant.id, error = %chain(&error), "nobody attached");
                    return close(stream).await;
                }
            }
        };
        if greet(&mut stream).await.is_ok() {
            let stream: Box<dyn Stream> = Box::new(Replayed::new(line.rest, stream));
            let outcome = relay(stream, streams, status, manner).await;
            tracing::debug!(session = %grant.id, ?outcome, "a session ended");
        }
    }
}

/// Greets, in a record of its own.
async fn greet(stream: &mut Box<dyn Stream>) -> io::Result<()> {
    stream.write_all(GREETING).await?;
    stream.flush().await
}

async fn close(mut stream: Box<dyn Stream>) {
    let _ = stream.shutdown().await;
}

/// The first line and what came with it.
struct Line {
    text: Vec<u8>,
    rest: bytes::Bytes,
}

impl Line {
    fn secret(&self) -> &[u8] {
        &self.text[..self.text.len().min(secret::LENGTH)]
    }

    fn query(&self) -> &[u8] {
        self.text.get(secret::LENGTH..).and_then(|rest| rest.strip_prefix(b"?")).unwrap_or_default()
    }
}

async fn read_line(stream: &mut Box<dyn Stream>) -> io::Result<Line> {
    let mut text = Vec::with_capacity(LINE);
    loop {
        let count = if text.len() == secret::LENGTH {
            match timeout(LINE_END, stream.read_buf(&mut text)).await {
                Ok(count) => count?,
                Err(_) => return Ok(Line { text, rest: bytes::Bytes::new() }),
            }
        } else {
            stream.read_buf(&mut text).await?
        };
        if let Some(end) = memchr::memchr(b'\n', &text) {
            let rest = text.split_off(end + 1).into();
            text.truncate(end);
            while text.last() == Some(&b'\r') {
                text.pop();
            }
            return Ok(Line { text, rest });
        }
        // No line end: what follows a whole secret is input already, unless it is a query.
        if text.len() > secret::LENGTH && !matches!(text[secret::LENGTH], b'?' | b'\r') {
            let rest = text.split_off(secret::LENGTH).into();
            return Ok(Line { text, rest });
        }
        if count == 0 || text.len() > LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
