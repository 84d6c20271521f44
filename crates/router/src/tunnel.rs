//! Bytes of another protocol (WebSocket mostly) in both directions, after a dyno has agreed to switch.
//!
//! The router does not look at them. It ends a tunnel that was silent for `router_idle_ms` (H15), and those that are
//! open when it stops (H24). A side that has sent all it wants may still receive.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dozen_domain::limits::millis;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep_until},
};

use crate::{
    error::{Error, Kind},
    exchange::Exchange,
};

const PIECE: usize = 8 << 10; // bytes read at once, the bound of what a tunnel buffers each way

/// What moved through a tunnel.
struct Traffic {
    born: Instant,
    moved_ms: AtomicU64, // since `born`
    to_client: AtomicU64,
}

impl Traffic {
    fn moved(&self) -> Instant {
        self.born + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }

    fn touch(&self) {
        self.moved_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// Joins the two connections until both sides have ended, one has failed, or nothing moves any more.
pub(crate) async fn run(mut exchange: Exchange, client: OnUpgrade, dyno: OnUpgrade) {
    let router = exchange.router.clone();
    let traffic = Arc::new(Traffic { born: Instant::now(), moved_ms: AtomicU64::new(0), to_client: AtomicU64::new(0) });
    let ended = tokio::select! {
        ended = join(&traffic, client, dyno) => Some(ended),
        () = silence(&traffic, millis(router.limits.router_idle_ms)) => Some(Err(Error::dyno(Kind::Idle))),
        () = router.cut.cancelled() => None,
    };
    exchange.bytes = traffic.to_client.load(Ordering::Relaxed);
    // One that is cut finishes when it is dropped.
    if let Some(ended) = ended {
        exchange.finish(ended.err().as_ref());
    }
}

async fn join(traffic: &Traffic, client: OnUpgrade, dyno: OnUpgrade) -> Result<(), Error> {
    let client = client.await.map_err(|_gone| Error::client(Kind::Closed))?;
    let dyno = dyno.await.map_err(|_gone| Error::dyno(Kind::Closed))?;
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_dyno, mut to_dyno) = split(TokioIo::new(dyno));
    let up = async { pump(&mut from_client, &mut to_dyno, traffic, None).await.map_err(|_error| None) };
    let down = async {
        match pump(&mut from_dyno, &mut to_client, traffic, Some(&traffic.to_client)).await {
            Ok(()) => Ok(()),
            Err(Side::Reading) => Err(Some(Error::dyno(Kind::Closed))),
            Err(Side::Writing) => Err(None),
        }
    };
    match tokio::try_join!(up, down) {
        Err(Some(error)) => Err(error),
        // A client that goes away is how most of these end.
        Ok(_) | Err(None) => Ok(()),
    }
}

enum Side {
    Reading,
    Writing,
}

async fn pump<R, W>(from: &mut R, to: &mut W, traffic: &Traffic, count: Option<&AtomicU64>) -> Result<(), Side>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let reading = |_: io::Error| Side::Reading;
    let writing = |_: io::Error| Side::Writing;
    let mut piece = vec![0; PIECE];
    loop {
        let n = from.read(&mut piece).await.map_err(reading)?;
        traffic.touch();
        if n == 0 {
            return to.shutdown().await.map_err(writing);
        }
        to.write_all(&piece[..n]).await.map_err(writing)?;
        to.flush().await.map_err(writing)?;
        traffic.touch();
        if let Some(count) = count {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

async fn silence(traffic: &Traffic, limit: Duration) {
    loop {
        let deadline = traffic.moved() + limit;
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}
