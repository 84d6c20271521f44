//! One log session: what history has of the wanted lines, then new ones until the reader goes.

use std::{collections::VecDeque, io};

use dozen_api::{
    clock, frame,
    logs::{Sent, Session, Source},
};
use dozen_domain::codes::Code;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    Role,
    batch::{Record, records},
    buffer::Snapshot,
    tail::{Filter, Tail},
};

const CHUNK: usize = 64 << 10; // bytes gathered for one write to the reader

/// Serves a session until its end or its reader's.
///
/// # Errors
/// When the reader goes while something is written to it, or history cannot be read to its end.
pub(crate) async fn serve(role: &Role, connection: UnixStream, session: Session) -> io::Result<()> {
    let channel = role.channels.channel(session.app);
    let filter = Filter::new(&session);
    let tail = session.tail.then(|| Tail::new(filter.clone(), role.options.limits.log_tail_buffer_lines));
    let subscription = channel.subscribe(tail);
    let (reader, writer) = connection.into_split();
    let mut out = Out { writer, bytes: Vec::new() };
    let served = async {
        let most = match session.after {
            Some(_) => u64::MAX,
            None => session.lines.min(role.options.limits.log_history_lines),
        };
        match subscription.history {
            Ok(stored) => {
                let age = i64::try_from(role.options.limits.log_history_seconds).unwrap_or(i64::MAX);
                let oldest = clock::now().saturating_sub(age.saturating_mul(1_000_000));
                let wanted = Wanted { filter: &filter, after: session.after, oldest };
                history(&stored, &wanted, most, &mut out).await?;
            }
            Err(error) => {
                tracing::warn!(app = %session.app, %error, "cannot read an app's log history");
                out.add(&Sent::Line { sequence: 0, text: unavailable() })?;
            }
        }
        out.add(&Sent::Caught)?;
        out.flush().await?;
        if let Some(tail) = &subscription.tail {
            follow(tail, reader, &mut out).await?;
        }
        out.end().await
    };
    let served = served.await;
    if let Some(tail) = &subscription.tail {
        channel.unsubscribe(tail);
    }
    served
}

/// What a session is told in place of history that cannot be read.
fn unavailable() -> String {
    let code = Code::L15;
    let text = format!("Error {code} ({})", code.description());
    Record { at: clock::now(), source: Source::Heroku, process: b"logplex", text: text.as_bytes() }.line()
}

/// Which lines of history are wanted.
struct Wanted<'a> {
    filter: &'a Filter,
    after: Option<u64>,
    oldest: clock::Micros,
}

impl Wanted<'_> {
    fn matches(&self, number: u64, record: &Record<'_>) -> bool {
        self.after.is_none_or(|after| number > after) && record.at >= self.oldest && self.filter.matches(record)
    }
}

/// Sends the last `most` wanted lines of history.
async fn history(snapshot: &Snapshot, wanted: &Wanted<'_>, most: u64, out: &mut Out) -> io::Result<()> {
    if most == 0 {
        return Ok(());
    }
    let mut skip = 0;
    if most < u64::MAX {
        let mut total: u64 = 0;
        for block in snapshot.blocks() {
            let block = block?;
            let lines = (block.head.sequence..).zip(records(block.records()));
            total += lines.filter(|(number, record)| wanted.matches(*number, record)).count() as u64;
        }
        skip = total.saturating_sub(most);
    }
    for block in snapshot.blocks() {
        let block = block?;
        for (sequence, record) in (block.head.sequence..).zip(records(block.records())) {
            if !wanted.matches(sequence, &record) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            out.add(&Sent::Line { sequence, text: record.line() })?;
        }
        out.flush_full().await?;
    }
    Ok(())
}

/// Sends new lines until the stream ends or the reader goes.
async fn follow(tail: &Tail, mut reader: OwnedReadHalf, out: &mut Out) -> io::Result<()> {
    let mut gone = [0];
    loop {
        let lines: VecDeque<_> = tokio::select! {
            lines = tail.next() => match lines {
                Some(lines) => lines,
                None => return Ok(()),
            },
            _ = reader.read(&mut gone) => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        for (sequence, text) in lines {
            out.add(&Sent::Line { sequence, text: text.to_string() })?;
            out.flush_full().await?;
        }
        out.flush().await?;
    }
}

/// Frames for the reader, gathered into few writes.
struct Out {
    writer: OwnedWriteHalf,
    bytes: Vec<u8>,
}

impl Out {
    fn add(&mut self, sent: &Sent) -> io::Result<()> {
        self.bytes.extend_from_slice(&frame::encode(sent)?);
        Ok(())
    }

    async fn flush_full(&mut self) -> io::Result<()> {
        if self.bytes.len() >= CHUNK { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.writer.write_all(&bytes).await
    }

    /// Writes the empty frame that tells a proper end from a broken connection.
    async fn end(mut self) -> io::Result<()> {
        self.flush().await?;
        self.writer.write_all(&[0; 4]).await
    }
}
