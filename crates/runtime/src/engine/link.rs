//! Connections to shims: control's own, one for each dyno, and those for attached clients and readers of output.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use dozen_api::{
    engine::Attached,
    frame,
    shim::{Command, Event, Hello, Output},
    socket,
};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::host;

/// A shim tells its present state at once; silence of this length is the end of that.
const SETTLE: Duration = Duration::from_millis(30);
/// How long a shim that took a connection may take to be given the processor and begin. Its dyno is killed after that,
/// so it is long.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a shim whose connection broke is given to take another.
const RETRY: Duration = Duration::from_millis(200);
/// Commands that wait for a shim at most; there are three kinds and each is sent once or twice.
const COMMANDS: usize = 16;
/// Bytes of output on the way to a reader.
const PIPE: usize = 64 << 10;

/// What comes from a shim.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Something happened to its dyno.
    Event(Event),
    /// The shim is gone.
    Lost,
}

/// A connection on which the present state has been read.
pub(crate) struct Found {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// What has happened so far, oldest first.
    pub(crate) events: Vec<Event>,
}

async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let mut stream = socket::connect(&host::socket(directory)).await?;
    frame::write(&mut stream, &Hello::Control).await?;
    Ok(stream)
}

/// Connects to a shim that was running before this process, and reads its present state.
pub(crate) async fn find(directory: &Path) -> io::Result<Found> {
    let (reader, writer) = connect(directory).await?.into_split();
    let mut found = Found { reader: BufReader::new(reader), writer, events: Vec::new() };
    let mut patience = PATIENCE;
    while let Ok(buffered) = tokio::time::timeout(patience, found.reader.fill_buf()).await {
        if buffered?.is_empty() {
            break;
        }
        let event = frame::read(&mut found.reader).await?;
        found.events.extend(event);
        patience = SETTLE;
    }
    if found.events.is_empty() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the shim says nothing of its dyno"));
    }
    Ok(found)
}

/// Keeps a connection to a dyno's shim; what comes is given to `deliver`, which says whether anybody still listens. Ends
/// when the shim is gone, nobody listens, or the sender returned is dropped.
pub(crate) fn keep<F, D>(directory: PathBuf, found: Option<Found>, deliver: F) -> mpsc::Sender<Command>
where
    F: Fn(Heard) -> D + Send + Sync + 'static,
    D: Future<Output = bool> + Send,
{
    let (commands, mut wanted) = mpsc::channel(COMMANDS);
    tokio::spawn(async move {
        let mut halves = found.map(|found| (found.reader, found.writer));
        loop {
            let Some((mut reader, mut writer)) = (match halves.take() {
                Some(halves) => Some(halves),
                None => connect_again(&directory).await,
            }) else {
                deliver(Heard::Lost).await;
                return;
            };
            let read = async {
                while let Ok(Some(event)) = frame::read(&mut reader).await {
                    if !deliver(Heard::Event(event)).await {
                        return false;
                    }
                }
                true
            };
            tokio::pin!(read);
            loop {
                tokio::select! {
                    listened = &mut read => if listened { break } else { return },
                    command = wanted.recv() => {
                        let Some(command) = command else { return };
                        if frame::write(&mut writer, &command).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
    });
    commands
}

/// Delivers into a channel.
pub(crate) fn into(to: mpsc::Sender<Heard>) -> impl Fn(Heard) -> BoxFuture<'static, bool> + Send + Sync + 'static {
    move |heard| {
        let to = to.clone();
        Box::pin(async move { to.send(heard).await.is_ok() })
    }
}

async fn connect_again(directory: &Path) -> Option<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let split = |stream: UnixStream| {
        let (reader, writer) = stream.into_split();
        (BufReader::new(reader), writer)
    };
    if let Ok(stream) = connect(directory).await {
        return Some(split(stream));
    }
    tokio::time::sleep(RETRY).await;
    connect(directory).await.ok().map(split)
}

/// Opens both directions of a dyno; `None` when it has or had its client.
pub(crate) async fn attach(directory: &Path) -> io::Result<Option<Attached>> {
    let mut stream = socket::connect(&host::socket(directory)).await?;
    frame::write(&mut stream, &Hello::Attach).await?;
    if frame::read::<_, bool>(&mut stream).await? != Some(true) {
        return Ok(None);
    }
    let (output, input) = stream.into_split();
    Ok(Some(Attached { input: Box::new(input), output: Box::new(output) }))
}

/// Reads frames of output, from the beginning.
pub(crate) struct Reading {
    stream: UnixStream,
    ack: bool,
}

impl Reading {
    /// `ack`: this reader stores what it reads, the shim need not keep it.
    pub(crate) async fn open(directory: &Path, ack: bool) -> io::Result<Self> {
        let mut stream = socket::connect(&host::socket(directory)).await?;
        frame::write(&mut stream, &Hello::Output { from: 0, ack }).await?;
        Ok(Self { stream, ack })
    }

    /// The next piece; `None` at the end of the dyno or its shim.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Output>> {
        let Some(bytes) = frame::read_bytes(&mut self.stream).await? else { return Ok(None) };
        let piece = Output::decode(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        if self.ack {
            let stored = piece.offset + piece.bytes.len() as u64;
            // A shim that is gone does not mind that nobody thanks it.
            let _ = frame::write(&mut self.stream, &stored).await;
        }
        Ok(if piece.bytes.is_empty() { None } else { Some(piece) })
    }
}

/// A dyno's output as plain bytes.
pub(crate) async fn output(directory: &Path) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    let mut reading = Reading::open(directory, false).await?;
    let (mut ours, theirs) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        while let Ok(Some(piece)) = reading.next().await {
            if ours.write_all(&piece.bytes).await.is_err() {
                return;
            }
        }
    });
    Ok(Box::new(theirs))
}
