//! Output of builds and release commands: written to a file as it comes, followed by any number of readers.
//!
//! A reader gets everything from the beginning and then what is added, until the writer is gone; it is the same for the
//! pusher's terminal, for `output_stream_url` and for a file whose writer ended long ago. Files are in the app's
//! directory and go with it.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task,
};

use bytes::Bytes;
use dozen_api::clock::Micros;
use dozen_domain::ids::AppId;
use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::watch,
};
use uuid::Uuid;

use super::{Error, Result};
use crate::{Context, origin};

/// Bytes of a line that are held back for its end. The log cuts lines itself; this only bounds memory.
const ECHO_LINE: usize = 64 << 10;
/// Bytes that a reader gets at once.
const PIECE: usize = 64 << 10;

/// Whose output it is: the directory of its files in the app's, and a part of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A build's.
    Build,
    /// A release command's.
    Release,
    /// A timed job's.
    Cron,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Build => "builds",
            Self::Release => "releases",
            Self::Cron => "cron",
        }
    }

    /// What an address's tag stands for.
    fn content(self, app: AppId, id: Uuid, ends: Micros) -> String {
        format!("output {} {app} {id} {ends}", self.as_str())
    }
}

/// Where an output's file is.
pub fn path(context: &Context, kind: Kind, app: AppId, id: Uuid) -> PathBuf {
    directory(context, kind, app).join(format!("{id}.log"))
}

fn directory(context: &Context, kind: Kind, app: AppId) -> PathBuf {
    context.settings.data_dir.join("apps").join(app.to_string()).join(kind.as_str())
}

/// Where clients read an output, without credentials: the address carries its own secret and its end.
///
/// The end is that of the time after the present one, so that the same is answered for a while and clients that ask
/// whether something has changed hear that nothing has.
pub fn url(context: &Context, kind: Kind, app: AppId, id: Uuid) -> String {
    let life = Micros::try_from(context.limits().output_url_seconds).unwrap_or(Micros::MAX);
    let life = life.saturating_mul(1_000_000).max(1);
    let now = context.now();
    let ends = (now - now.rem_euclid(life)).saturating_add(life).saturating_add(life);
    let tag = context.keys.ticket.tag(&kind.content(app, id, ends));
    format!("{}/streams/{}/{app}/{id}/{ends}-{tag}", origin::url(&context.settings), kind.as_str())
}

/// The file behind an address.
///
/// # Errors
/// [`Error::NotFound`] when the address is none of ours, [`Error::Gone`] when it has ended.
pub fn path_of(context: &Context, kind: &str, app: AppId, id: Uuid, secret: &str) -> Result<PathBuf> {
    const UNKNOWN: Error = Error::NotFound("output");
    let kind =
        [Kind::Build, Kind::Release, Kind::Cron].into_iter().find(|known| known.as_str() == kind).ok_or(UNKNOWN)?;
    let (ends, tag) = secret.split_once('-').ok_or(UNKNOWN)?;
    let ends: Micros = ends.parse().map_err(|_| UNKNOWN)?;
    if !context.keys.ticket.is_tag(tag, &kind.content(app, id, ends)) {
        return Err(UNKNOWN);
    }
    if ends <= context.now() {
        return Err(Error::Gone("This address has expired. Ask for the build, release or run again.".to_owned()));
    }
    Ok(path(context, kind, app, id))
}

/// Removes an app's outputs of a kind but for these and those that are being written.
///
/// # Errors
/// When the disk refuses.
pub fn retain(context: &Context, kind: Kind, app: AppId, keep: &HashSet<Uuid>) -> io::Result<usize> {
    let directory = directory(context, kind, app);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry?.path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<Uuid>().ok());
        if id.is_some_and(|id| !keep.contains(&id)) && !context.outputs.is_written(&path) {
            fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// How far a file has been written.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    length: u64,
    ended: bool,
}

/// The files being written, by path.
#[derive(Debug, Clone, Default)]
pub struct Outputs(Arc<Mutex<HashMap<PathBuf, watch::Receiver<Progress>>>>);

/// Writes one output.
pub struct Writer {
    outputs: Outputs,
    path: PathBuf,
    file: File,
    progress: watch::Sender<Progress>,
    most: u64,
    last: u8,
    echo: Option<Echo>,
}

/// Hears each line of an output as well, but for empty ones.
struct Echo {
    /// What there is of the line that is being written; a longer one than [`ECHO_LINE`] is told in pieces.
    line: Vec<u8>,
    tell: Box<dyn FnMut(String) + Send + Sync>,
}

impl Echo {
    fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= ECHO_LINE {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
        if !line.is_empty() {
            (self.tell)(line);
        }
    }
}

impl Outputs {
    /// Begins an output at `path`, in place of what was there, of at most `most` bytes.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(&self, path: &Path, most: u64) -> io::Result<Writer> {
        self.open(path, most, true)
    }

    /// Goes on with an output that a role before this one began; answers what it holds already as well.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn resume(&self, path: &Path, most: u64) -> io::Result<(Writer, Vec<u8>)> {
        let held = fs::read(path)?;
        Ok((self.open(path, most, false)?, held))
    }

    /// Whether an output has a writer.
    fn is_written(&self, path: &Path) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(path)
    }

    fn open(&self, path: &Path, most: u64, fresh: bool) -> io::Result<Writer> {
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        if fresh {
            file.set_len(0)?;
        }
        let (progress, follow) = watch::channel(Progress { length: file.metadata()?.len(), ended: false });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), follow);
        let path = path.to_owned();
        Ok(Writer { outputs: self.clone(), path, file, progress, most, last: b'\n', echo: None })
    }

    /// Reads an output from its beginning to its end, waiting for what is still to come.
    ///
    /// # Errors
    /// When there is no such output (yet).
    pub fn follow(&self, path: &Path) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
        let follow = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let file = Arc::new(File::open(path)?);
        Ok(futures_util::stream::try_unfold((file, follow, 0), |(file, mut follow, at)| async move {
            loop {
                // Looked at before the read: what is written in between is seen in the next round.
                let ended = follow.as_mut().is_none_or(|follow| follow.borrow_and_update().ended);
                let reading = file.clone();
                let piece =
                    tokio::task::spawn_blocking(move || read(&reading, at)).await.map_err(io::Error::other)??;
                if !piece.is_empty() {
                    let next = at + piece.len() as u64;
                    return Ok(Some((piece, (file, follow, next))));
                }
                if ended {
                    return Ok(None);
                }
                if let Some(changes) = &mut follow
                    && changes.changed().await.is_err()
                {
                    follow = None;
                }
            }
        }))
    }
}

fn read(file: &File, at: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; PIECE];
    let n = file.read_at(&mut piece, at)?;
    piece.truncate(n);
    Ok(piece.into())
}

impl Writer {
    /// Tells each further line to somebody else too.
    #[must_use]
    pub fn echoed(mut self, tell: impl FnMut(String) + Send + Sync + 'static) -> Self {
        self.echo = Some(Echo { line: Vec::new(), tell: Box::new(tell) });
        self
    }

    /// Adds text.
    pub fn say(&mut self, text: &str) {
        self.say_bytes(text.as_bytes());
    }

    /// Adds a program's own output.
    pub fn say_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.add(bytes) {
            tracing::warn!(path = %self.path.display(), %error, "cannot store output");
        }
    }

    /// Adds a line end unless the output is at the beginning of a line.
    pub fn end_line(&mut self) {
        if self.last != b'\n' {
            self.say("\n");
        }
    }

    /// Adds a line in the way of a build's complaints: ` !     text`.
    pub fn complain(&mut self, text: &str) {
        self.end_line();
        self.say(&format!(" !     {text}\n"));
    }

    /// Adds what a program prints until its end or that of its connection, without what is `held` of it from before.
    pub async fn copy(&mut self, said: &mut (impl AsyncRead + Unpin), held: &[u8]) {
        let mut piece = vec![0; 16 << 10];
        let mut known = None;
        while let Ok(n @ 1..) = said.read(&mut piece).await {
            let known = known.get_or_insert_with(|| overlap(held, &piece[..n]));
            let skipped = n.min(*known);
            *known -= skipped;
            self.say_bytes(&piece[skipped..n]);
        }
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(&last) = bytes.last() else { return Ok(()) };
        let length = self.progress.borrow().length;
        if length >= self.most {
            return Ok(());
        }
        let room = usize::try_from(self.most - length).unwrap_or(usize::MAX);
        let fits = &bytes[..bytes.len().min(room)];
        self.file.write_all(fits)?;
        if let Some(echo) = &mut self.echo {
            echo.add(fits);
        }
        let mut added = fits.len() as u64;
        if fits.len() < bytes.len() {
            let note = format!("\n !     Output is cut off after {} bytes.\n", self.most);
            self.file.write_all(note.as_bytes())?;
            added += note.len() as u64;
        }
        self.last = last;
        self.progress.send_modify(|progress| progress.length += added);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(echo) = &mut self.echo {
            echo.end_line();
        }
        self.progress.send_modify(|progress| progress.ended = true);
        let mut all = self.outputs.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A newer writer of the same file has its own entry.
        if all.get(&self.path).is_some_and(|follow| follow.same_channel(&self.progress.subscribe())) {
            all.remove(&self.path);
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut task::Context<'_>, bytes: &[u8]) -> task::Poll<io::Result<usize>> {
        task::Poll::Ready(self.add(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }
}

/// How much of a piece is in `held` already, when the piece is the first of an output that was followed before and is
/// given again, from its beginning or from somewhere before the end of what is held.
fn overlap(held: &[u8], piece: &[u8]) -> usize {
    if held.starts_with(piece) || piece.starts_with(held) {
        return held.len();
    }
    let most = held.len().min(piece.len());
    (0..=most).rev().find(|&n| held.ends_with(&piece[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    async fn all(outputs: &Outputs, path: &Path) -> String {
        let pieces: Vec<Bytes> = outputs.follow(path).expect("an output").try_collect().await.expect("pieces");
        String::from_utf8(pieces.concat()).expect("text")
    }

    #[tokio::test]
    async fn readers_get_everything_whenever_they_come() {
        let directory = tempfile::tempdir().expect("a directory");
        let (outputs, path) = (Outputs::default(), directory.path().join("a/b.log"));
        assert!(outputs.follow(&path).is_err());
        let mut writer = outputs.create(&path, 1000).expect("a writer");
        writer.say("one\n");
        let reading = tokio::spawn({
            let (outputs, path) = (outputs.clone(), path.clone());
            async move { all(&outputs, &path).await }
        });
        tokio::task::yield_now().await;
        writer.say("two");
        writer.complain("three");
        drop(writer);
        let text = "one\ntwo\n !     three\n";
        assert_eq!(reading.await.expect("a reader"), text);
        assert_eq!(all(&outputs, &path).await, text);
    }

    #[test]
    fn what_is_given_again_is_known_by_its_overlap() {
        assert_eq!(overlap(b"one\ntwo\n", b"one\n"), 8);
        assert_eq!(overlap(b"one\n", b"one\ntwo\n"), 4);
        assert_eq!(overlap(b"one\ntwo\n", b"two\nthree\n"), 4);
        assert_eq!(overlap(b"one\n", b"two\n"), 0);
        assert_eq!(overlap(b"", b"two\n"), 0);
    }

    #[tokio::test]
    async fn an_output_goes_on_after_its_first_writer() {
        let directory = tempfile::tempdir().expect("a directory");
        let (outputs, path) = (Outputs::default(), directory.path().join("b.log"));
        outputs.create(&path, 100).expect("a writer").say("one\n");
        let (mut writer, held) = outputs.resume(&path, 100).expect("a writer");
        assert_eq!(held, b"one\n");
        writer.say("two\n");
        drop(writer);
        assert_eq!(all(&outputs, &path).await, "one\ntwo\n");
    }

    #[tokio::test]
    async fn lines_are_told_elsewhere_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let (outputs, path) = (Outputs::default(), directory.path().join("b.log"));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = heard.clone();
        let writer = outputs.create(&path, 100).expect("a writer");
        let mut writer = writer.echoed(move |line| tell.lock().expect("not poisoned").push(line));
        writer.say("-----> a");
        writer.say(" b\r\n\n       c\nend");
        drop(writer);
        assert_eq!(*heard.lock().expect("not poisoned"), ["-----> a b", "       c", "end"]);
        assert_eq!(all(&outputs, &path).await, "-----> a b\r\n\n       c\nend");
    }

    #[test]
    fn a_line_without_an_end_is_told_in_pieces() {
        let directory = tempfile::tempdir().expect("a directory");
        let (outputs, path) = (Outputs::default(), directory.path().join("b.log"));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = heard.clone();
        let writer = outputs.create(&path, 1 << 20).expect("a writer");
        let mut writer = writer.echoed(move |line| tell.lock().expect("not poisoned").push(line.len()));
        for _ in 0..5 {
            writer.say(&"x".repeat(ECHO_LINE / 2));
        }
        drop(writer);
        assert_eq!(*heard.lock().expect("not poisoned"), [ECHO_LINE, ECHO_LINE, ECHO_LINE / 2]);
    }

    #[tokio::test]
    async fn output_is_bounded_and_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let (outputs, path) = (Outputs::default(), directory.path().join("b.log"));
        let mut writer = outputs.create(&path, 8).expect("a writer");
        writer.say("0123456789");
        writer.say("more");
        drop(writer);
        assert_eq!(all(&outputs, &path).await, "01234567\n !     Output is cut off after 8 bytes.\n");
    }
}
