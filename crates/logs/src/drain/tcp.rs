//! A drain to a syslog server over TCP or TLS.
//!
//! Messages go out as fast as the server takes them. What its kernel has not confirmed when a connection breaks is sent
//! again over the next one: a message may then arrive twice, but none is lost on the way without being told.

use std::{collections::VecDeque, io, time::Duration};

use dozen_api::drains::Address;
use dozen_domain::limits::{millis, seconds};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Task,
    cursor::{Frame, State},
    link::Link,
    syslog::Writer,
};

/// Bytes that are made and written at a time.
const CHUNK: usize = 64 << 10;
/// Bytes of a chunk that have to be taken within the limit.
const PIECE: usize = 16 << 10;

/// Serves the drain for ever.
///
/// # Errors
/// When history cannot be read or the position not be kept.
pub(super) async fn run(task: &mut Task, address: &Address) -> io::Result<()> {
    let mut writer = Writer::server(&task.drain.token);
    loop {
        task.cursor.close();
        task.cursor.behind().await?;
        task.cursor.lag(task.health.is_good());
        let limits = &task.shared.limits;
        let tls = task.shared.tls(address);
        let opened = Link::open(&address.host, &task.shared.reach, tls, millis(limits.drain_connect_ms)).await;
        let mut link = match opened {
            Ok(link) => link,
            Err(error) => {
                task.failed(&error, &address.to_string()).await;
                continue;
            }
        };
        let mut sent = Sent::default();
        let ended = serve(task, &mut link, &mut writer, &mut sent).await?;
        if let Some(first) = sent.first_unconfirmed(&link) {
            task.cursor.rewind(first)?;
        }
        if let Err(error) = ended {
            task.failed(&error, &address.to_string()).await;
        }
    }
}

/// Chunks that were written, until they are confirmed.
#[derive(Default)]
struct Sent {
    chunks: VecDeque<(u64, State)>, // bytes sent with it, the position before it
}

impl Sent {
    fn note(&mut self, link: &Link, frame: &Frame) {
        if self.chunks.len() >= 64 {
            self.forget_confirmed(link);
        }
        self.chunks.push_back((link.sent(), frame.before()));
    }

    fn forget_confirmed(&mut self, link: &Link) {
        let confirmed = link.sent().saturating_sub(link.unconfirmed());
        while self.chunks.front().is_some_and(|(end, _)| *end <= confirmed) {
            self.chunks.pop_front();
        }
    }

    fn first_unconfirmed(&mut self, link: &Link) -> Option<State> {
        self.forget_confirmed(link);
        self.chunks.front().map(|(_, before)| *before)
    }
}

/// Sends until the connection ends: in order when the server closed it or it was idle, else by an error.
async fn serve(
    task: &mut Task,
    link: &mut Link,
    writer: &mut Writer,
    sent: &mut Sent,
) -> io::Result<Result<(), io::Error>> {
    let limits = task.shared.limits.clone();
    let (send, idle) = (millis(limits.drain_send_ms), seconds(limits.drain_idle_seconds));
    let mut ignored = [0; 512];
    loop {
        let frame = task.next(CHUNK, |to, record| writer.put(to, record))?;
        if let Some(frame) = frame {
            if let Err(error) = write(link, &frame.bytes, send).await {
                // The part of it that is out may have arrived; the whole of it is sent again.
                sent.chunks.push_back((u64::MAX, frame.before()));
                return Ok(Err(error));
            }
            sent.note(link, &frame);
            task.cursor.delivered(&frame)?;
            task.health.good();
            continue;
        }
        // Nothing is due. A server that closes meanwhile is seen before lines are given to it.
        let next = async {
            tokio::select! {
                behind = task.cursor.behind() => Some(behind),
                read = link.stream.read(&mut ignored) => match read {
                    Ok(0) | Err(_) => None,
                    Ok(_) => Some(Ok(())),
                },
            }
        };
        match timeout(idle, next).await {
            Ok(Some(behind)) => behind?,
            Ok(None) => return Ok(Ok(())),
            Err(_) => {
                // Told by TLS, and by TCP, that this is the end; what was written is on its way.
                drop(timeout(send, link.stream.shutdown()).await);
                return Ok(Ok(()));
            }
        }
    }
}

async fn write(link: &mut Link, bytes: &[u8], limit: Duration) -> io::Result<()> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the server does not take what is sent");
    for piece in bytes.chunks(PIECE) {
        timeout(limit, link.stream.write_all(piece)).await.map_err(late)??;
    }
    timeout(limit, link.stream.flush()).await.map_err(late)?
}
