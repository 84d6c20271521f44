//! Task `autoscale`: looks at how the requests of apps with autoscaling go, and changes their formation by one dyno.
//!
//! The rules are in `dozen_domain::autoscale`, the figures in [`crate::traffic`]. What is remembered between two looks is
//! lost with the role; then nothing is taken away for a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{clock::Micros, logs::Source};
use dozen_domain::{
    autoscale::{Seen, Step, Track},
    ids::MonitorId,
    limits::seconds,
};

use super::driver::{Scope, Task};
use crate::{
    Context, ops,
    store::{self, monitors::Monitor},
};

/// Figures that a step is taken by.
const MINUTE: Duration = Duration::from_secs(60);
/// A request that waited so shortly ago is taken for one that still does: routers tell every second.
const NOW: Duration = Duration::from_secs(5);

/// The task.
pub struct Autoscale {
    context: Context,
    tracks: Mutex<HashMap<MonitorId, Kept>>,
}

/// What is remembered of a monitor.
struct Kept {
    track: Track,
    told_at: Option<Micros>,
}

impl Autoscale {
    /// A task that has looked at nothing yet.
    pub fn new(context: Context) -> Self {
        Self { context, tracks: Mutex::default() }
    }

    fn seen(&self, monitor: &Monitor, now: Micros) -> Seen {
        let minute = self.context.traffic.summary(monitor.app, MINUTE, now);
        let waiting_now = self.context.traffic.summary(monitor.app, NOW, now).waiting;
        Seen { requests: minute.requests, p95_ms: minute.p95_ms, waiting: minute.waiting, waiting_now }
    }

    /// Looks at one; says whether it did something.
    async fn look(&self, monitor: &Monitor) -> ops::Result<bool> {
        let context = &self.context;
        let formation = store::formation::of_app(&mut *context.store.read().await?, monitor.app).await?;
        let Some(entry) = formation.into_iter().find(|entry| entry.process_type == monitor.process_type) else {
            return Ok(false);
        };
        let (now, quantity) = (context.now(), entry.quantity);
        let seen = self.seen(monitor, now);
        let (step, tell) = {
            let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = tracks.entry(monitor.id).or_insert_with(|| Kept { track: Track::new(now), told_at: None });
            let step = kept.track.look(&monitor.policy, quantity, &seen, now, context.limits());
            let full = quantity >= monitor.policy.max && monitor.policy.asks_for_more(quantity, &seen);
            let pause = i64::from(monitor.notification_minutes).saturating_mul(60_000_000);
            let tell = monitor.notifies && full && kept.told_at.is_none_or(|at| now - at >= pause || at > now);
            if tell {
                kept.told_at = Some(now);
            }
            (step, tell)
        };
        if tell {
            let text = format!(
                "{} needs more than the {} dynos that autoscaling may give it. Raise the most with \
                 heroku ps:autoscale:enable --max",
                monitor.process_type, monitor.policy.max
            );
            context.log(monitor.app, Source::Heroku, "autoscale", text);
        }
        let Some(step) = step else { return Ok(false) };
        let process = format!("{}.1", monitor.process_type);
        match step {
            Step::Sleep => context.log(monitor.app, Source::Heroku, &process, "Idling".to_owned()),
            Step::Wake(_) => context.log(monitor.app, Source::Heroku, &process, "Unidling".to_owned()),
            Step::Scale(_) => {}
        }
        ops::formation::autoscale(context, &entry, step.quantity()).await
    }
}

#[async_trait]
impl Task for Autoscale {
    fn name(&self) -> &'static str {
        "autoscale"
    }

    fn period(&self) -> Duration {
        seconds(self.context.limits().autoscale_look_seconds.max(1))
    }

    async fn run(&self, scope: &Scope) -> ops::Result<String> {
        let mut monitors = store::monitors::active(&mut *self.context.store.read().await?).await?;
        {
            let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
            tracks.retain(|id, _| monitors.iter().any(|monitor| monitor.id == *id));
        }
        if let Scope::Apps(apps) = scope {
            monitors.retain(|monitor| apps.contains(&monitor.app));
        }
        let (mut steps, mut failure) = (0_u32, None);
        for monitor in monitors {
            match self.look(&monitor).await {
                Ok(stepped) => steps += u32::from(stepped),
                // One app's trouble is not another's.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or_else(|| Ok(format!("{steps} steps")), Err)
    }
}
