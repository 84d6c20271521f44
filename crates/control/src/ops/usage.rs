//! Usage: dyno-seconds by app, process type and size, from the record of when each dyno's process was started and gone.
//!
//! The times are the shims' own, so they are the same whichever control process hears of them, and a shim stays until
//! its dyno's end is on disk: a platform that was away loses nothing. Only what dies without a witness (the machine
//! loses power, or a shim is killed while control is away) ends at the last time that control was there to see it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{
    clock::Micros,
    engine::{Meter, Run},
};
use dozen_domain::{
    ids::{AppId, DynoId},
    name::ProcessType,
    size::Size,
    usage::{Month, whole_seconds},
};

use super::{Error, Result};
use crate::{
    reconcile::driver::chain,
    state::Context,
    store::{self, accounts::Account, apps::App, usage::Span},
};

/// How often control notes that it is there.
const BEAT: Duration = Duration::from_secs(10);
/// First pause before a failed write is repeated; it doubles up to [`LONGEST`].
const RETRY: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Dyno-seconds of one process type and size of an app within a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which app.
    pub app: AppId,
    /// Its name, or the last one that it had.
    pub app_name: String,
    /// Process type.
    pub process_type: ProcessType,
    /// Dyno size.
    pub size: Size,
    /// Seconds, of all dynos together.
    pub dyno_seconds: i64,
    /// How many dynos.
    pub dynos: u64,
    /// Nobody saw the end of one of them: the seconds are those for which it was known to run.
    pub estimated: bool,
}

/// A month's usage of one app.
///
/// # Errors
/// When the database fails.
pub async fn of_app(context: &Context, app: &App, month: Option<Month>) -> Result<(Month, Vec<Entry>)> {
    let month = month.unwrap_or_else(|| Month::of(context.now()));
    let spans = store::usage::of_month(&mut *context.store.read().await?, month, Some(app.id)).await?;
    Ok((month, sum(&spans, month, context.now())))
}

/// A month's usage of all apps that an account may see, and of those it owned that are gone.
///
/// # Errors
/// When the database fails.
pub async fn of_account(context: &Context, account: &Account, month: Option<Month>) -> Result<(Month, Vec<Entry>)> {
    let month = month.unwrap_or_else(|| Month::of(context.now()));
    let mut db = context.store.read().await?;
    let seen: HashSet<AppId> = store::apps::of_account(&mut db, account.id).await?.iter().map(|app| app.id).collect();
    let present: HashSet<AppId> = store::apps::all(&mut db).await?.iter().map(|app| app.id).collect();
    let mut spans = store::usage::of_month(&mut db, month, None).await?;
    let owned = |span: &Span| span.owner == Some(account.id) && !present.contains(&span.app);
    spans.retain(|span| seen.contains(&span.app) || owned(span));
    Ok((month, sum(&spans, month, context.now())))
}

fn sum(spans: &[Span], month: Month, now: Micros) -> Vec<Entry> {
    let mut sums = BTreeMap::new();
    for span in spans {
        let entry = sums.entry((&span.app_name, span.app, &span.process_type, span.size)).or_insert_with(|| Entry {
            app: span.app,
            app_name: span.app_name.clone(),
            process_type: span.process_type.clone(),
            size: span.size,
            dyno_seconds: 0,
            dynos: 0,
            estimated: false,
        });
        entry.dyno_seconds += month.overlap(span.started_at, span.ended_at, now);
        entry.dynos += 1;
        entry.estimated |= !span.seen;
    }
    // Summed in microseconds and rounded once.
    let rounded = sums.into_values().map(|entry| Entry { dyno_seconds: whole_seconds(entry.dyno_seconds), ..entry });
    rounded.collect()
}

/// Records the ends of dynos that were stopped with the platform away.
///
/// # Errors
/// When the database fails.
pub async fn ended(context: &Context, ends: &[(DynoId, Micros)]) -> Result<()> {
    let mut db = context.store.write().await?;
    for (dyno, at) in ends {
        store::usage::end(&mut db, *dyno, *at, true).await?;
    }
    db.commit().await?;
    Ok(())
}

/// Writes the record.
pub struct Recorder {
    context: Context,
    alive: PathBuf,
    /// When control was last there before this process.
    last_seen: Micros,
}

impl Recorder {
    /// Reads when control was last there; from here on [`Recorder::beat`] notes that it is.
    pub fn new(context: Context) -> Self {
        let alive = context.settings.data_dir.join("run/alive");
        let noted = fs::read_to_string(&alive).ok().and_then(|text| text.trim().parse().ok());
        let last_seen = noted.unwrap_or_default();
        Self { context, alive, last_seen }
    }

    /// Notes for ever that control is there.
    pub async fn beat(&self) {
        let mut beats = tokio::time::interval(BEAT);
        loop {
            beats.tick().await;
            if let Err(error) = fs::write(&self.alive, self.context.now().to_string()) {
                tracing::warn!(%error, path = %self.alive.display(), "cannot note that control is there");
            }
        }
    }

    async fn write(&self, runs: &[Run]) -> Result<()> {
        let mut db = self.context.store.write().await?;
        for run in runs {
            let app = store::apps::by_id(&mut db, run.app).await?;
            store::usage::record(&mut db, run, app.as_ref()).await?;
        }
        db.commit().await?;
        Ok(())
    }

    async fn close(&self, present: &HashSet<DynoId>) -> Result<usize> {
        let mut db = self.context.store.write().await?;
        let open = store::usage::open(&mut db).await?;
        let gone: Vec<&DynoId> = open.iter().filter(|dyno| !present.contains(dyno)).collect();
        for dyno in &gone {
            store::usage::end(&mut db, **dyno, self.last_seen, false).await?;
        }
        db.commit().await?;
        Ok(gone.len())
    }
}

/// Tells of a failure and waits, longer each time: the disk may be full for a while.
async fn wait(error: &Error, pause: &mut Duration) {
    tracing::error!(error = %chain(error), "cannot record when dynos ran; trying again");
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST);
}

#[async_trait]
impl Meter for Recorder {
    async fn record(&self, runs: Vec<Run>) {
        let mut pause = RETRY;
        while let Err(error) = self.write(&runs).await {
            wait(&error, &mut pause).await;
        }
    }

    async fn adopted(&self, present: Vec<DynoId>) {
        let (present, mut pause) = (present.into_iter().collect(), RETRY);
        loop {
            match self.close(&present).await {
                Ok(0) => return,
                Ok(dynos) => {
                    tracing::warn!(dynos, "nobody saw the end of dynos; counting them until control last was there");
                    return;
                }
                Err(error) => wait(&error, &mut pause).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_summed_by_type_and_size_within_the_month() {
        let month: Month = "2026-11".parse().expect("a month");
        let (start, app) = (month.start(), AppId::random());
        let span = |name: &str, from: i64, to: Option<i64>, seen| Span {
            app,
            app_name: "shop".to_owned(),
            owner: None,
            process_type: name.parse().expect("a type"),
            size: Size::Basic,
            one_off: false,
            started_at: start + from,
            ended_at: to.map(|to| start + to),
            seen,
        };
        let spans = [
            span("web", -5_000_000, Some(1_400_000), true),
            span("web", 0, None, true),
            span("worker", 0, Some(600_000), false),
        ];
        let sums = sum(&spans, month, start + 2_000_000);
        let said: Vec<_> =
            sums.iter().map(|e| (e.process_type.as_str(), e.dyno_seconds, e.dynos, e.estimated)).collect();
        // 1.4 s and 2 s are 3.4 s: rounded once, at the end.
        assert_eq!(said, [("web", 3, 2, false), ("worker", 1, 1, true)]);
    }
}
