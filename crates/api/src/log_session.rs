//! The asking side of the logs role: a session's lines as a stream, and the two one-shot requests.
//!
//! A stream from [`open_session`] outlives the logs role: when the connection breaks it connects again and goes on
//! after the last line it had. What it does not do: filter, count or format; that is the logs role's work.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use dozen_domain::ids::{AppId, DynoId};
use futures_util::{Stream, stream};
use tokio::{io::AsyncReadExt, net::UnixStream};

use crate::{
    frame,
    logs::{Hello, Sent, Session},
    socket,
};

/// How long a stream tries to reach the logs role before it gives up; the parent restarts a dead role in less.
const AWAY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const READ: usize = 16 << 10; // bytes asked of the socket at once

/// Opens a log session at `run/logs.sock`. Without `tail` the stream ends after [`Sent::Caught`]; with it, it ends
/// when the app's history is removed.
///
/// The stream yields an error, and then ends, when the logs role cannot be reached for ten seconds.
pub fn open_session(socket: PathBuf, session: Session) -> impl Stream<Item = io::Result<Sent>> + Send + 'static {
    let reader = Reader {
        socket,
        session,
        connection: None,
        buffer: Vec::new(),
        ready: VecDeque::new(),
        caught: false,
        ended: false,
    };
    stream::unfold(reader, |mut reader| async move {
        if reader.ended && reader.ready.is_empty() {
            return None;
        }
        match reader.next().await {
            Ok(Some(sent)) => Some((Ok(sent), reader)),
            Ok(None) => None,
            Err(error) => {
                reader.ended = true;
                reader.ready.clear();
                Some((Err(error), reader))
            }
        }
    })
}

/// Tells the logs role of a new dyno; returns when its shim is being read.
///
/// # Errors
/// When the logs role does not answer. Nothing is lost then: it finds the shim by itself when it is back.
pub async fn announce(socket: &Path, dyno: DynoId) -> io::Result<()> {
    ask(socket, &Hello::Dyno(dyno)).await
}

/// Removes an app's history and ends its sessions.
///
/// # Errors
/// When the logs role does not answer; ask again, it may be done twice.
pub async fn remove(socket: &Path, app: AppId) -> io::Result<()> {
    ask(socket, &Hello::Remove(app)).await
}

async fn ask(path: &Path, hello: &Hello) -> io::Result<()> {
    let mut connection = socket::connect(path).await?;
    frame::write(&mut connection, hello).await?;
    match frame::read_bytes(&mut connection).await? {
        Some(_) => Ok(()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

struct Reader {
    socket: PathBuf,
    session: Session,
    connection: Option<UnixStream>,
    buffer: Vec<u8>,
    ready: VecDeque<Sent>,
    caught: bool,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Sent>> {
        loop {
            while let Some(sent) = self.ready.pop_front() {
                match &sent {
                    // A line about the stream as a whole, before any of it, is no place to go on from.
                    Sent::Line { place, .. } if place.sequence > 0 => {
                        self.session.after = self.session.after.max(Some(*place));
                    }
                    Sent::Line { .. } => {}
                    Sent::Caught { end } => {
                        self.session.after = self.session.after.max(*end);
                        if std::mem::replace(&mut self.caught, true) {
                            continue;
                        }
                        self.ended |= !self.session.tail;
                    }
                }
                return Ok(Some(sent));
            }
            if self.ended {
                return Ok(None);
            }
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            self.buffer.reserve(READ);
            let read = connection.read_buf(&mut self.buffer).await;
            if matches!(read, Ok(n) if n > 0) {
                self.connection = Some(connection);
                self.parse()?;
            } else {
                self.buffer.clear();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn connect(&mut self) -> io::Result<UnixStream> {
        let deadline = tokio::time::Instant::now() + AWAY;
        loop {
            let opened = async {
                let mut connection = socket::connect(&self.socket).await?;
                frame::write(&mut connection, &Hello::Session(self.session.clone())).await?;
                Ok(connection)
            };
            match opened.await {
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
                Ok(connection) => return Ok(connection),
            }
        }
    }

    /// Takes the whole frames off the buffer.
    fn parse(&mut self) -> io::Result<()> {
        let mut at = 0;
        while let Some(head) = self.buffer.get(at..at + 4) {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if length > frame::MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a log session's frame is too long"));
            }
            let Some(body) = self.buffer.get(at + 4..at + 4 + length) else { break };
            if body.is_empty() {
                self.ended = true;
            } else {
                self.ready.push_back(serde_json::from_slice(body)?);
            }
            at += 4 + length;
        }
        self.buffer.drain(..at);
        Ok(())
    }
}
