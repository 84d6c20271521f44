//! One log session: what history has of the wanted lines, then new ones until the reader goes.

use std::{collections::VecDeque, io};

use dozen_api::{
    clock::{self, Stamp},
    frame,
    logs::{Place, Sent, Session, Source},
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
    block::Block,
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
    let tail = session.tail.then(|| Tail::new(filter.clone(), &role.options.limits));
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
                let place = Place { sequence: 0, ordinal: None };
                out.add(&Sent::Line { place, text: about_itself(Code::L15, "") })?;
            }
        }
        out.add(&Sent::Caught { end: subscription.end })?;
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

/// What a session is told about itself: that history cannot be read, or what it has no longer.
fn about_itself(code: Code, what: &str) -> String {
    let text = format!("Error {code} ({}){what}", code.description());
    Record { at: clock::now(), source: Source::Heroku, process: b"logplex", text: text.as_bytes() }
        .line(&mut Stamp::default())
}

/// Which lines of history are wanted.
struct Wanted<'a> {
    filter: &'a Filter,
    after: Option<Place>,
    oldest: clock::Micros,
}

impl Wanted<'_> {
    fn is_after(&self, number: u64) -> bool {
        self.after.is_none_or(|after| number > after.sequence)
    }

    fn matches(&self, number: u64, record: &Record<'_>) -> bool {
        self.is_after(number) && record.at >= self.oldest && self.filter.matches(record)
    }
}

/// A block's lines with their places.
fn lines(block: &Block) -> impl Iterator<Item = (Place, Record<'_>)> {
    let place = |n: u64| Place { sequence: block.head.sequence + n, ordinal: Some(block.head.ordinal + n + 1) };
    (0..).map(place).zip(records(block.records()))
}

/// How many lines of the app came after the one where the session goes on and are in the history no longer, because of
/// their number or of their age; and the place of the last of them. `None` when there are none.
fn missing(snapshot: &Snapshot, wanted: &Wanted<'_>) -> io::Result<Option<(u64, Place)>> {
    let Some(after) = wanted.after else { return Ok(None) };
    let (mut missed, mut last) = (0, None);
    for (n, block) in snapshot.blocks().enumerate() {
        let block = block?;
        let head = &block.head;
        if n == 0 && after.sequence < head.sequence {
            missed = after.ordinal.map_or(0, |ordinal| head.ordinal.saturating_sub(ordinal));
            last = Some(Place { sequence: head.sequence - 1, ordinal: Some(head.ordinal) });
        }
        for (place, record) in lines(&block).filter(|(place, _)| wanted.is_after(place.sequence)) {
            if record.at >= wanted.oldest {
                return Ok(last.filter(|_| missed > 0).map(|last| (missed, last)));
            }
            (missed, last) = (missed + 1, Some(place));
        }
    }
    Ok(last.filter(|_| missed > 0).map(|last| (missed, last)))
}

/// Sends the last `most` wanted lines of history.
async fn history(snapshot: &Snapshot, wanted: &Wanted<'_>, most: u64, out: &mut Out) -> io::Result<()> {
    if most == 0 {
        return Ok(());
    }
    if let Some((missed, place)) = missing(snapshot, wanted)? {
        let what = format!(" -> {missed} messages since this session's last one are no longer in the history");
        out.add(&Sent::Line { place, text: about_itself(Code::L11, &what) })?;
    }
    let mut skip = 0;
    if most < u64::MAX {
        let mut total: u64 = 0;
        for block in snapshot.blocks() {
            let block = block?;
            total += lines(&block).filter(|(place, record)| wanted.matches(place.sequence, record)).count() as u64;
        }
        skip = total.saturating_sub(most);
    }
    let mut stamp = Stamp::default();
    for block in snapshot.blocks() {
        let block = block?;
        for (place, record) in lines(&block) {
            if !wanted.matches(place.sequence, &record) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            out.add(&Sent::Line { place, text: record.line(&mut stamp) })?;
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
        for (place, text) in lines {
            out.add(&Sent::Line { place, text: text.to_string() })?;
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
