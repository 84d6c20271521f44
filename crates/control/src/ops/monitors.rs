//! Autoscaling as people ask for it; what it then does is `reconcile/autoscale.rs`.
//!
//! The shape is that of the service that the official client talks to (`heroku ps:autoscale:enable`): a monitor of a
//! process type that acts by scaling. Ours beyond that: the measure `QUEUE_SCALE`, and a least quantity of zero.

use dozen_domain::{
    autoscale::{Measure, Policy},
    ids::MonitorId,
};
use serde::Deserialize;

use super::{Error, Result, formation};
use crate::{
    state::Context,
    store::{self, accounts::Account, apps::App, monitors::Monitor},
};

/// Name of a monitor by response time.
pub const LATENCY: &str = "LATENCY_SCALE";
/// Name of a monitor by the length of the queue.
pub const QUEUE: &str = "QUEUE_SCALE";
/// What monitors do.
pub const SCALE: &str = "scale";
/// How the measure is held against the wish.
pub const AT_LEAST: &str = "GREATER_OR_EQUAL";
/// Minutes that are looked at.
pub const PERIOD: u32 = 1;
/// To whom people are told of, as clients write it.
pub const TO_APP: &str = "app";

/// The 95th percentile that is wished for where nobody says one, in milliseconds: the official client's.
const USUAL_MS: u64 = 1_000;
/// Requests that may wait for each dyno where nobody says how many.
const USUAL_QUEUE: u64 = 10;
/// Minutes between two words to people where nobody says how many: a day.
const USUAL_MINUTES: u32 = 1_440;

/// What somebody wants of a monitor.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Change {
    /// [`LATENCY`] or [`QUEUE`].
    pub name: Option<String>,
    /// [`SCALE`].
    pub action_type: Option<String>,
    /// [`AT_LEAST`].
    pub op: Option<String>,
    /// [`PERIOD`].
    pub period: Option<u32>,
    /// Milliseconds, or requests that wait for each dyno.
    pub value: Option<u64>,
    /// Fewest dynos.
    pub min_quantity: Option<u32>,
    /// Most dynos.
    pub max_quantity: Option<u32>,
    /// Whether it acts.
    pub is_active: Option<bool>,
    /// [`TO_APP`] or nobody.
    pub notification_channels: Option<Vec<String>>,
    /// Least minutes between two words to people.
    pub notification_period: Option<u32>,
}

/// A monitor's name, as clients see it.
pub fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::ResponseTime(_) => LATENCY,
        Measure::Queue(_) => QUEUE,
    }
}

/// The monitors of one of an app's process types: none or one.
///
/// # Errors
/// When the app has no such process type or the database fails.
pub async fn list(context: &Context, app: &App, process_type: &str) -> Result<Vec<Monitor>> {
    let entry = formation::find(context, app, process_type).await?.formation;
    let all = store::monitors::of_app(&mut *context.store.read().await?, app.id).await?;
    Ok(all.into_iter().filter(|monitor| monitor.process_type == entry.process_type).collect())
}

/// One of them, by its id.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: &App, process_type: &str, id: &str) -> Result<Monitor> {
    let is = |monitor: &Monitor| monitor.id.to_string() == id;
    list(context, app, process_type).await?.into_iter().find(is).ok_or(Error::NotFound("monitor"))
}

/// Makes a monitor.
///
/// # Errors
/// When the process type is not one that gets requests or has a monitor, a value breaks a rule, or the database fails.
pub async fn create(
    context: &Context,
    app: &App,
    actor: &Account,
    process_type: &str,
    change: Change,
) -> Result<Monitor> {
    let process_type = formation::find(context, app, process_type).await?.formation.process_type;
    if !process_type.is_web() {
        return Err(Error::Invalid(format!(
            "Only web dynos get requests to scale by. Scale {process_type} with heroku ps:scale."
        )));
    }
    let measure = match change.name.as_deref() {
        None | Some(LATENCY) => Measure::ResponseTime(USUAL_MS),
        Some(QUEUE) => Measure::Queue(USUAL_QUEUE),
        Some(other) => {
            return Err(Error::Invalid(format!("Name of a monitor must be {LATENCY} or {QUEUE}; it is {other:?}.")));
        }
    };
    let now = context.now();
    let mut monitor = Monitor {
        id: MonitorId::random(),
        app: app.id,
        process_type,
        policy: Policy { min: 1, max: 1, measure },
        active: true,
        notifies: false,
        notification_minutes: USUAL_MINUTES,
        created_at: now,
        updated_at: now,
    };
    if change.max_quantity.is_none() {
        return Err(Error::invalid("Most dynos are missing: max_quantity."));
    }
    apply(context, &mut monitor, change)?;
    let mut db = context.store.write().await?;
    match store::monitors::put(&mut db, &monitor).await {
        Err(error) if error.is_taken() => {
            return Err(Error::Conflict(format!("{} has a monitor already; change that.", monitor.process_type)));
        }
        other => other?,
    }
    db.commit().await?;
    announce(context, app, actor, &monitor);
    Ok(monitor)
}

/// Changes a monitor.
///
/// # Errors
/// When there is none, a value breaks a rule, or the database fails.
pub async fn update(
    context: &Context,
    app: &App,
    actor: &Account,
    (process_type, id): (&str, &str),
    change: Change,
) -> Result<Monitor> {
    let mut monitor = find(context, app, process_type, id).await?;
    if let Some(wanted) = change.name.as_deref().filter(|wanted| *wanted != name(monitor.policy.measure)) {
        return Err(Error::Invalid(format!(
            "A monitor keeps its name. Remove this one and make one called {wanted:?}."
        )));
    }
    apply(context, &mut monitor, change)?;
    monitor.updated_at = context.now();
    let mut db = context.store.write().await?;
    store::monitors::put(&mut db, &monitor).await?;
    db.commit().await?;
    announce(context, app, actor, &monitor);
    Ok(monitor)
}

/// Removes a monitor; the dynos stay as many as they are.
///
/// # Errors
/// When there is none or the database fails.
pub async fn remove(context: &Context, app: &App, actor: &Account, process_type: &str, id: &str) -> Result<Monitor> {
    let mut monitor = find(context, app, process_type, id).await?;
    let mut db = context.store.write().await?;
    store::monitors::delete(&mut db, monitor.id).await?;
    db.commit().await?;
    monitor.active = false;
    announce(context, app, actor, &monitor);
    Ok(monitor)
}

fn apply(context: &Context, monitor: &mut Monitor, change: Change) -> Result<()> {
    let fixed = |what: &str, given: Option<String>, only: String| match given {
        Some(given) if given != only => Err(Error::Invalid(format!("{what} must be {only}; it is {given}."))),
        _ => Ok(()),
    };
    fixed("action_type", change.action_type, SCALE.to_owned())?;
    fixed("op", change.op, AT_LEAST.to_owned())?;
    fixed("period", change.period.map(|period| period.to_string()), PERIOD.to_string())?;
    if let Some(value) = change.value {
        if value == 0 {
            return Err(Error::invalid("value must be 1 at least."));
        }
        monitor.policy.measure = match monitor.policy.measure {
            Measure::ResponseTime(_) => Measure::ResponseTime(value),
            Measure::Queue(_) => Measure::Queue(value),
        };
    }
    let policy = &mut monitor.policy;
    policy.min = change.min_quantity.unwrap_or(policy.min);
    policy.max = change.max_quantity.unwrap_or(policy.max);
    let most = context.limits().dynos_per_app;
    if policy.max == 0 || policy.max < policy.min || u64::from(policy.max) > most {
        return Err(Error::Invalid(format!(
            "max_quantity must be from 1 to {most}, and not below min_quantity; they are {} and {}.",
            policy.max, policy.min
        )));
    }
    monitor.active = change.is_active.unwrap_or(monitor.active);
    if let Some(channels) = change.notification_channels {
        if let Some(other) = channels.iter().find(|channel| *channel != TO_APP) {
            return Err(Error::Invalid(format!("A notification channel must be {TO_APP:?}; it is {other:?}.")));
        }
        monitor.notifies = !channels.is_empty();
    }
    monitor.notification_minutes = change.notification_period.unwrap_or(monitor.notification_minutes).max(1);
    Ok(())
}

fn announce(context: &Context, app: &App, actor: &Account, monitor: &Monitor) {
    let Policy { min, max, measure } = monitor.policy;
    let wish = match measure {
        Measure::ResponseTime(value) => format!("p95 response time below {value} ms"),
        Measure::Queue(value) => format!("{value} waiting requests a dyno"),
    };
    let what = match monitor.active {
        true => format!("Enable autoscaling of {}: {min} to {max} dynos, {wish}", monitor.process_type),
        false => format!("Disable autoscaling of {}", monitor.process_type),
    };
    context.log_api(app.id, format!("{what} by user {}", actor.email));
    context.nudge.nudge(app.id);
}
