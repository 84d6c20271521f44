//! One app's stream: numbers each line, stores it, then shows it to the app's tails, all under one lock.
//!
//! That lock is what makes order: history and tail of a session meet without gap or repeat, because a session takes
//! its snapshot and hangs its tail under it. When the disk does not take lines, they are shown to tails all the same,
//! counted, and the count is told in the stream (L15) as the first thing that is stored again.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use dozen_api::{
    clock::{self, Micros},
    logs::{Place, Source},
    shim::Lost,
};
use dozen_domain::{
    codes::Code,
    ids::{AppId, DynoId},
    limits::millis,
};
use tokio::sync::{Notify, futures::Notified};

use crate::{
    Options,
    batch::{Batch, Producer, Record},
    buffer::{Bookmark, Buffer, Recent, Snapshot},
    tail::{self, Tail},
    turns::{Turn, Turns},
};

/// A file to which nothing was written for this long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// All streams that somebody uses.
pub(crate) struct Channels {
    logs_dir: PathBuf,
    dynos_dir: Arc<Path>,
    keep: u64,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<AppId, Arc<Channel>>,
    removed: HashSet<AppId>,
}

impl Channels {
    /// No stream yet.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            logs_dir: options.logs_dir.clone(),
            dynos_dir: options.run_dir.join("dynos").into(),
            keep: options.limits.log_history_lines,
            patience: millis(options.limits.drain_patience_ms),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of an app. That of a removed app swallows what it is given.
    pub(crate) fn channel(&self, app: AppId) -> Arc<Channel> {
        let mut state = self.state();
        let removed = state.removed.contains(&app);
        let open = || {
            let directory = self.logs_dir.join(app.to_string());
            Arc::new(Channel::new(app, directory, self.dynos_dir.clone(), self.keep, self.patience, removed))
        };
        state.open.entry(app).or_insert_with(open).clone()
    }

    /// Removes an app's history, ends its sessions and takes no more lines for it.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub(crate) fn remove(&self, app: AppId) -> io::Result<()> {
        let channel = self.channel(app);
        self.state().removed.insert(app);
        channel.remove()
    }

    /// Writes what was stored since the last call to the disk itself. It takes its time, and nobody waits for it: lines
    /// of the last seconds are lost with the machine's power, no others.
    pub(crate) async fn sync(&self) {
        let channels: Vec<Arc<Channel>> = self.state().open.values().cloned().collect();
        let paths: Vec<PathBuf> = channels.iter().flat_map(|channel| channel.unsynced()).collect();
        drop(channels);
        let written = tokio::task::spawn_blocking(move || {
            for path in paths {
                // One that has gone meanwhile needs it no more.
                let synced = fs::File::open(&path).and_then(|file| file.sync_data());
                if let Err(error) = synced
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "cannot write log lines to the disk itself");
                }
            }
        });
        drop(written.await);
    }

    /// Removes lines that are older than `age`, of all apps.
    pub(crate) fn expire(&self, age: Duration) {
        let Some(before) = SystemTime::now().checked_sub(age) else { return };
        for app in self.with_files_from_before(before) {
            let expired = self.channel(app).expire(before);
            if let Err(error) = expired {
                tracing::warn!(%app, %error, "cannot remove log lines that have expired");
            }
        }
    }

    fn with_files_from_before(&self, before: SystemTime) -> Vec<AppId> {
        let Ok(entries) = fs::read_dir(&self.logs_dir) else { return Vec::new() };
        let is_old = |path: &Path| {
            let modified = path.metadata().and_then(|data| data.modified());
            path.extension().is_some_and(|extension| extension == "log") && modified.is_ok_and(|at| at < before)
        };
        let has_old = |directory: PathBuf| {
            fs::read_dir(directory).is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| is_old(&file.path()))))
        };
        let apps =
            entries.flatten().filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
        apps.filter(|(_, directory): &(AppId, PathBuf)| has_old(directory.clone())).map(|(app, _)| app).collect()
    }

    /// Does what time brings: closes idle files, tries failed writes again, lets go of streams that nobody uses.
    pub(crate) fn sweep(&self) {
        let channels: Vec<Arc<Channel>> = self.state().open.values().cloned().collect();
        channels.iter().for_each(|channel| channel.sweep());
        drop(channels);
        let mut state = self.state();
        state.open.retain(|_, channel| Arc::strong_count(channel) > 1 || channel.is_busy());
        state.open.shrink_to_fit();
    }
}

/// One app's stream.
pub(crate) struct Channel {
    app: AppId,
    directory: PathBuf,
    dynos_dir: Arc<Path>,
    keep: u64,
    inner: Mutex<Inner>,
    stored: Notify,
    drains: AtomicUsize,
    turns: Turns,
}

struct Inner {
    buffer: Option<Buffer>,
    next: u64, // number of the next line
    tails: Vec<Arc<Tail>>,
    recent: Option<Recent>, // of a stream with drains that is in use
    unstored: u64,
    unstored_since: Micros,
    used: Instant,
    removed: bool,
}

/// What a session begins with.
pub(crate) struct Subscription {
    /// Lines up to now, or why they cannot be read.
    pub(crate) history: io::Result<Snapshot>,
    /// The last line of them, when they can be read.
    pub(crate) end: Option<Place>,
    /// Lines from now on, when they are wanted.
    pub(crate) tail: Option<Arc<Tail>>,
}

impl Channel {
    fn new(app: AppId, directory: PathBuf, dynos_dir: Arc<Path>, keep: u64, patience: Duration, removed: bool) -> Self {
        let inner = Inner {
            buffer: None,
            next: 0,
            tails: Vec::new(),
            recent: None,
            unstored: 0,
            unstored_since: 0,
            used: Instant::now(),
            removed,
        };
        Self {
            app,
            directory,
            dynos_dir,
            keep,
            inner: Mutex::new(inner),
            stored: Notify::new(),
            drains: AtomicUsize::new(0),
            turns: Turns::new(patience),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the history if it is not yet.
    fn buffer<'a>(&self, inner: &'a mut Inner) -> io::Result<&'a mut Buffer> {
        let buffer = match inner.buffer.take() {
            Some(buffer) => buffer,
            None => {
                let live = |producer: &Producer| match producer {
                    Producer::Dyno(dyno) => {
                        let directory = self.dynos_dir.join(DynoId(*dyno).to_string());
                        directory.exists() || directory.with_extension(Lost::EXTENSION).exists()
                    }
                    Producer::Sender(_) => true,
                };
                let buffer = Buffer::open(self.directory.clone(), self.keep, live)?;
                inner.next = number_after(inner.next.saturating_sub(1).max(buffer.last_sequence()));
                buffer
            }
        };
        Ok(inner.buffer.insert(buffer))
    }

    /// Up to where a producer's lines are stored.
    ///
    /// # Errors
    /// When history cannot be read, and so nobody knows.
    pub(crate) fn position(&self, producer: Producer) -> io::Result<u64> {
        let mut inner = self.inner();
        if inner.removed {
            return Ok(0);
        }
        Ok(self.buffer(&mut inner)?.position(&producer))
    }

    /// Forgets a producer that has delivered all and is gone.
    pub(crate) fn forget(&self, producer: Producer) {
        if let Some(buffer) = &mut self.inner().buffer {
            buffer.forget(&producer);
        }
    }

    /// Stores a batch and shows it to tails, unless its position says that it has been stored.
    pub(crate) fn append(&self, batch: &Batch) {
        let mut inner = self.inner();
        if inner.removed || batch.is_empty() {
            return;
        }
        let opened = self.buffer(&mut inner).map(|buffer| match batch.mark {
            Some(mark) => buffer.position(&mark.producer) >= mark.position && mark.position > 0,
            None => false,
        });
        match opened {
            Ok(true) => return,
            Err(error) => {
                inner.next = inner.next.max(number_after(0));
                return self.give_up(&mut inner, batch, &error);
            }
            Ok(false) => {}
        }
        let stored =
            if inner.unstored > 0 { self.store_again(&mut inner, batch) } else { self.store(&mut inner, batch) };
        if let Err(error) = stored {
            self.give_up(&mut inner, batch, &error);
        }
    }

    fn store(&self, inner: &mut Inner, batch: &Batch) -> io::Result<()> {
        self.buffer(inner)?;
        let (first, mut before) = (inner.next, None);
        if let Some(buffer) = &mut inner.buffer {
            before = Some(buffer.ordinal());
            buffer.append(first, batch)?;
        }
        let drained = self.drains.load(Ordering::Relaxed) > 0 && batch.lines > 0;
        inner.recent = before.filter(|_| drained).map(|first| Recent::new(first, &batch.records));
        inner.show(batch, before, 1);
        self.stored.notify_waiters();
        Ok(())
    }

    /// Shows lines that cannot be stored, and counts them.
    fn give_up(&self, inner: &mut Inner, batch: &Batch, error: &io::Error) {
        if inner.unstored == 0 {
            inner.unstored_since = clock::now();
            tracing::warn!(app = %self.app, directory = %self.directory.display(), %error, "cannot store log lines");
        }
        inner.unstored += u64::from(batch.lines);
        if let (Some(mark), Some(buffer)) = (batch.mark, &mut inner.buffer) {
            buffer.give_up(mark);
        }
        let before = inner.buffer.as_ref().map(Buffer::ordinal);
        inner.show(batch, before, 0);
    }

    /// Tells how many lines are missing from history, and stores a batch, together or not at all.
    fn store_again(&self, inner: &mut Inner, batch: &Batch) -> io::Result<()> {
        let (code, since) = (Code::L15, clock::rfc3339_micros(inner.unstored_since));
        let text = format!(
            "Error {code} ({}) -> {} messages are missing from the history since {since}",
            code.description(),
            inner.unstored
        );
        let mut told = Batch::default();
        told.push(clock::now(), Source::Heroku, "logplex", text.as_bytes());
        told.records.extend_from_slice(&batch.records);
        told.lines += batch.lines;
        told.mark = batch.mark;
        self.store(inner, &told)?;
        tracing::info!(app = %self.app, lines = inner.unstored, "log lines are stored again after some were not");
        inner.unstored = 0;
        Ok(())
    }

    /// History and, with a tail, what follows it.
    pub(crate) fn subscribe(&self, tail: Option<Tail>) -> Subscription {
        let mut inner = self.inner();
        let tail = tail.map(Arc::new);
        if inner.removed {
            if let Some(tail) = &tail {
                tail.end();
            }
            return Subscription { history: Ok(Snapshot::default()), end: None, tail };
        }
        let (history, end) = match self.buffer(&mut inner) {
            Ok(buffer) => {
                let end = Place { sequence: buffer.last_sequence(), ordinal: Some(buffer.ordinal()) };
                (buffer.snapshot(), Some(end))
            }
            Err(error) => (Err(error), None),
        };
        let end = end.filter(|_| history.is_ok());
        inner.tails.extend(tail.clone());
        Subscription { history, end, tail }
    }

    /// Resolves when lines were stored after it was made and first polled (or enabled).
    pub(crate) fn stored(&self) -> Notified<'_> {
        self.stored.notified()
    }

    /// How many lines were ever stored.
    ///
    /// # Errors
    /// When history cannot be read.
    pub(crate) fn ordinal(&self) -> io::Result<u64> {
        Ok(self.buffer(&mut self.inner())?.ordinal())
    }

    /// Gives stored lines by ordinal; see [`Buffer::read`].
    ///
    /// # Errors
    /// When history cannot be read.
    pub(crate) fn read(
        &self,
        place: &mut Bookmark,
        from: u64,
        mut each: impl FnMut(u64, &Record<'_>) -> bool,
    ) -> io::Result<()> {
        let mut inner = self.inner();
        if let Some(recent) = &inner.recent
            && recent.read(place, from, &mut each)
        {
            return Ok(());
        }
        self.buffer(&mut inner)?.read(place, from, each)
    }

    /// Writes a line of the platform about the stream itself into it.
    pub(crate) fn tell(&self, text: &str) {
        let mut told = Batch::default();
        told.push(clock::now(), Source::Heroku, "logplex", text.as_bytes());
        self.append(&told);
    }

    /// The directory of the stream's history, and of what belongs to it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// One drain more or less reads this stream.
    pub(crate) fn drained(&self, more: bool) {
        if more {
            self.drains.fetch_add(1, Ordering::Relaxed)
        } else {
            self.drains.fetch_sub(1, Ordering::Relaxed)
        };
    }

    /// Waits for the turn to store lines in this stream; `None` when no drain reads it, and nobody has to wait.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        if self.drains.load(Ordering::Relaxed) > 0 { Some(self.turns.next().await) } else { None }
    }

    /// Where drains say that they lag behind.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Takes a tail off the stream.
    pub(crate) fn unsubscribe(&self, tail: &Arc<Tail>) {
        let mut inner = self.inner();
        inner.tails.retain(|other| !Arc::ptr_eq(other, tail));
        inner.tails.shrink_to_fit();
    }

    fn unsynced(&self) -> Vec<PathBuf> {
        self.inner().buffer.as_mut().map(Buffer::unsynced).unwrap_or_default()
    }

    fn expire(&self, before: SystemTime) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.removed {
            return Ok(());
        }
        self.buffer(&mut inner)?.expire(before)?;
        inner.next = inner.next.max(inner.buffer.as_ref().map_or(0, Buffer::last_sequence) + 1);
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.removed = true;
        (inner.buffer, inner.recent) = (None, None);
        inner.unstored = 0;
        inner.tails.drain(..).for_each(|tail| tail.end());
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sweep(&self) {
        let mut inner = self.inner();
        if inner.unstored > 0
            && let Err(error) = self.store_again(&mut inner, &Batch::default())
        {
            tracing::debug!(app = %self.app, %error, "log lines can still not be stored");
        }
        if inner.used.elapsed() > IDLE
            && let Some(buffer) = &mut inner.buffer
        {
            buffer.close();
            inner.recent = None;
        }
    }

    fn is_busy(&self) -> bool {
        let inner = self.inner();
        inner.unstored > 0 || !inner.tails.is_empty()
    }
}

impl Inner {
    /// Shows a batch to tails under the next numbers. `before` lines were stored before it, and `each` of its own.
    fn show(&mut self, batch: &Batch, before: Option<u64>, each: u64) {
        let first = self.next;
        self.next += u64::from(batch.lines);
        self.used = Instant::now();
        let place = |n: u64| Place { sequence: first + n, ordinal: before.map(|before| before + each * (n + 1)) };
        tail::publish(&self.tails, (0..).map(place), batch);
    }
}

/// The number of the line after `last` when a stream is opened: the time in microseconds when that is ahead, so that
/// numbers which a lost write or an ended role had given out are not used again.
fn number_after(last: u64) -> u64 {
    (last + 1).max(clock::now().cast_unsigned())
}
