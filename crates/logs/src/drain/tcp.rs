//! A drain to a syslog server over TCP or TLS.
//!
//! Messages go out as fast as the server takes them. What its kernel has not confirmed when a connection breaks, or when
//! this role ends, however it does, is sent again over the next one: a message may then arrive twice, but none is lost
//! on the way without being told.

use std::{collections::VecDeque, io, time::Duration};

use dozen_api::drains::Address;
use dozen_domain::limits::{millis, seconds};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Task,
    cursor::{Frame, State},
    link::{self, Link},
    syslog::Writer,
};

/// Bytes that are made and written at a time.
const CHUNK: usize = 64 << 10;
/// Bytes of a chunk that have to be taken within the limit.
const PIECE: usize = 16 << 10;
/// How often is looked whether the last bytes are confirmed; a kernel may take 40 ms for that.
const LOOK: Duration = Duration::from_millis(50);

/// Serves the drain until it is stopped.
///
/// # Errors
/// When history cannot be read or the position not be kept.
pub(super) async fn run(task: &mut Task, address: &Address, stop: &CancellationToken) -> io::Result<()> {
    let mut writer = Writer::server(&task.drain.token);
    let to = address.to_string();
    loop {
        let opened = tokio::select! {
            opened = open(task, address) => opened?,
            () = stop.cancelled() => return Ok(()),
        };
        let failure: Option<Box<Failure>> = match opened {
            Ok(link) => {
                let mut sending = Sending { task, link, chunks: VecDeque::new() };
                let ended = tokio::select! {
                    ended = sending.serve(&mut writer) => ended?,
                    () = stop.cancelled() => {
                        sending.confirmed().await;
                        return Ok(());
                    }
                };
                sending.end()?;
                ended.err().map(Into::into)
            }
            Err(error) => Some(error.into()),
        };
        if let Some(error) = failure {
            tokio::select! {
                () = task.failed(&*error, &to) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}

/// Connects when there is something to send.
async fn open(task: &mut Task, address: &Address) -> io::Result<Result<Link, link::Error>> {
    task.cursor.close();
    task.cursor.behind().await?;
    task.cursor.lag(task.health.is_good());
    let limits = &task.shared.limits;
    let tls = task.shared.tls(address);
    Ok(Link::open(&address.host, &task.shared.reach, tls, millis(limits.drain_connect_ms)).await)
}

/// A connection and what was written to it. However it ends, what is not confirmed then is due again.
struct Sending<'a> {
    task: &'a mut Task,
    link: Link,
    chunks: VecDeque<(u64, State)>, // bytes sent with each that is not confirmed, the position before it
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(drain = %self.task.drain.id, %error, "cannot keep how far a drain has come");
        }
    }
}

impl Sending<'_> {
    /// Forgets the chunks that are confirmed; gives the position before the first that is not.
    fn unconfirmed(&mut self) -> Option<State> {
        let confirmed = self.link.sent().saturating_sub(self.link.unconfirmed());
        while self.chunks.front().is_some_and(|(end, _)| *end <= confirmed) {
            self.chunks.pop_front();
        }
        self.chunks.front().map(|(_, before)| *before)
    }

    /// Keeps how far it has come, as far as that is confirmed.
    fn settle(&mut self) -> io::Result<()> {
        let unconfirmed = self.unconfirmed();
        self.task.cursor.keep_from(unconfirmed)
    }

    /// Goes back to what is not confirmed.
    fn end(&mut self) -> io::Result<()> {
        match self.unconfirmed() {
            Some(first) => self.task.cursor.rewind(first),
            None => self.settle(),
        }
    }

    /// Waits until all that was written is confirmed.
    async fn confirmed(&mut self) {
        while self.unconfirmed().is_some() {
            sleep(LOOK).await;
        }
    }

    fn note(&mut self, frame: &Frame) -> io::Result<()> {
        self.chunks.push_back((self.link.sent(), frame.before()));
        self.task.cursor.passed(frame);
        self.settle()
    }

    /// Sends until the connection ends: in order when the server closed it or it was idle, else by an error.
    async fn serve(&mut self, writer: &mut Writer) -> io::Result<Result<(), io::Error>> {
        let limits = self.task.shared.limits.clone();
        let (send, idle) = (millis(limits.drain_send_ms), seconds(limits.drain_idle_seconds));
        let mut ignored = [0; 512];
        loop {
            let frame = self.task.next(CHUNK, |to, record| writer.put(to, record))?;
            if let Some(frame) = frame {
                // The part of it that is out when this fails may have arrived; the whole of it is sent again.
                if let Err(error) = write(&mut self.link, &frame.bytes, send).await {
                    return Ok(Err(error));
                }
                self.note(&frame)?;
                self.task.health.good();
                continue;
            }
            // Nothing is due. A server that closes meanwhile is seen before lines are given to it.
            self.settle()?;
            let next = async {
                tokio::select! {
                    behind = self.task.cursor.behind() => Some(behind),
                    read = self.link.stream.read(&mut ignored) => match read {
                        Ok(0) | Err(_) => None,
                        Ok(_) => Some(Ok(())),
                    },
                    () = sleep(LOOK), if !self.chunks.is_empty() => Some(Ok(())),
                }
            };
            match timeout(idle, next).await {
                Ok(Some(behind)) => behind?,
                Ok(None) => return Ok(Ok(())),
                Err(_) => {
                    // Told by TLS, and by TCP, that this is the end; what was written is on its way.
                    drop(timeout(send, self.link.stream.shutdown()).await);
                    return Ok(Ok(()));
                }
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
