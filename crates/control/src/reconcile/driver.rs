//! Runs tasks on their period and on nudges, one run of a task at a time, and remembers how each went.
//!
//! A nudge says which app to look at and nothing else; nudges that arrive during a run are joined into the next one. A
//! task does not retry: the next run is the retry, soon after a failure and then more and more rarely.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::clock::Micros;
use dozen_domain::ids::AppId;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::Nudges;
use crate::{Context, ops};

/// First pause before a failed run is repeated; it doubles up to the task's period.
const RETRY: Duration = Duration::from_millis(500);

/// Which apps a run is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// These.
    Apps(BTreeSet<AppId>),
}

impl Scope {
    fn nothing() -> Self {
        Self::Apps(BTreeSet::new())
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Apps(apps) if apps.is_empty())
    }

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Apps(mine), Self::Apps(more)) => mine.extend(more),
        }
    }
}

/// Something that makes what is equal to what is wanted.
#[async_trait]
pub trait Task: Send + Sync + 'static {
    /// Its name in the log and in [`Statuses`].
    fn name(&self) -> &'static str;

    /// Time between full runs without a nudge.
    fn period(&self) -> Duration;

    /// Looks, compares, acts. Doing it twice changes nothing. Answers what was done, in a few words.
    ///
    /// # Errors
    /// When something is left undone; the same scope is then looked at again soon.
    async fn run(&self, scope: &Scope) -> ops::Result<String>;
}

/// How a task's last run went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// How often it has run.
    pub runs: u64,
    /// When the last run ended.
    pub ended_at: Micros,
    /// What it did, or why it failed.
    pub outcome: Result<String, String>,
}

/// The last status of every task, by name.
#[derive(Debug, Default)]
pub struct Statuses(Mutex<BTreeMap<&'static str, Status>>);

impl Statuses {
    /// All of them.
    pub fn all(&self) -> BTreeMap<&'static str, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ended(&self, task: &'static str, ended_at: Micros, outcome: Result<String, String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = all.get(task).map_or(0, |status| status.runs) + 1;
        all.insert(task, Status { runs, ended_at, outcome });
    }
}

/// One task's inbox.
struct Inbox {
    waiting: Mutex<Scope>,
    notify: Notify,
}

impl Inbox {
    fn put(&self, scope: Scope) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).add(scope);
        self.notify.notify_one();
    }

    fn take(&self) -> Scope {
        std::mem::replace(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner), Scope::nothing())
    }
}

/// Runs tasks until cancelled. Each looks at everything first.
pub async fn drive(context: Context, tasks: Vec<Arc<dyn Task>>, mut nudges: Nudges, statuses: Arc<Statuses>) {
    let mut running = tokio::task::JoinSet::new();
    let mut inboxes = Vec::new();
    for task in tasks {
        let inbox = Arc::new(Inbox { waiting: Mutex::new(Scope::All), notify: Notify::new() });
        running.spawn(run(context.clone(), task, inbox.clone(), statuses.clone()));
        inboxes.push(inbox);
    }
    while let Some(app) = nudges.recv().await {
        for inbox in &inboxes {
            inbox.put(Scope::Apps(BTreeSet::from([app])));
        }
    }
    // Every sender is gone with the role's last request; the period goes on until the role is cancelled.
    while running.join_next().await.is_some() {}
}

async fn run(context: Context, task: Arc<dyn Task>, inbox: Arc<Inbox>, statuses: Arc<Statuses>) {
    let mut full = Instant::now();
    let mut pause = RETRY;
    loop {
        if full <= Instant::now() {
            inbox.put(Scope::All);
        }
        let scope = inbox.take();
        if scope.is_nothing() {
            tokio::select! {
                () = inbox.notify.notified() => {}
                () = sleep_until(full) => {}
            }
            continue;
        }
        if scope == Scope::All {
            full = Instant::now() + task.period();
        }
        let outcome = task.run(&scope).await;
        match &outcome {
            Ok(_) => pause = RETRY,
            Err(error) => {
                tracing::warn!(task = task.name(), error = %chain(error), "left undone; trying again");
                let (inbox, again) = (inbox.clone(), pause);
                tokio::spawn(async move {
                    tokio::time::sleep(again).await;
                    inbox.put(scope);
                });
                pause = (pause * 2).min(task.period());
            }
        }
        statuses.ended(task.name(), context.now(), outcome.map_err(|error| chain(&error)));
    }
}

/// An error with all its causes, for the platform's own log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
