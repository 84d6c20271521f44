//! `/apps/{app}/cron-jobs` and their runs: Dozen's own part of the API (docs/scheduled-jobs.md).

use axum::{
    extract::{Path, State},
    response::IntoResponse,
};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{
        Named,
        cron_job::{CronJob as View, CronRun as RunView},
    },
};
use dozen_domain::cron::Asked;
use http::StatusCode;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    member::{Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{self, cron_jobs::Change},
    state::Context,
    store::{
        apps::App,
        cron_jobs::{CronJob, CronRun},
    },
};

const SORTS: &[Sort<CronJob>] =
    &[("name", |one| Key::from(one.job.name.as_str())), ("id", |one| Key::Text(one.id.to_string()))];

const RUN_SORTS: &[Sort<CronRun>] = &[
    ("created_at", |one| Key::Number(u64::MAX - u64::try_from(one.created_at).unwrap_or_default())),
    ("id", |one| Key::Text(one.id.to_string())),
];

/// `GET /apps/{app}/cron-jobs`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::cron_jobs::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one, &member.app)))
}

/// `POST /apps/{app}/cron-jobs`
pub async fn create(State(context): State<Context>, member: Member, Json(asked): Json<Asked>) -> Result {
    let one = ops::cron_jobs::create(&context, &member.app, &member.account, &asked).await?;
    Ok(Reply::created(&view(&one, &member.app)))
}

/// `GET /apps/{app}/cron-jobs/{job}`
pub async fn info(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let one = ops::cron_jobs::find(&context, &member.app, &name).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// `PATCH /apps/{app}/cron-jobs/{job}`
pub async fn update(
    State(context): State<Context>,
    member: Member,
    Identity(name): Identity,
    Json(change): Json<Change>,
) -> Result {
    let one = ops::cron_jobs::update(&context, &member.app, &member.account, &name, change).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// `DELETE /apps/{app}/cron-jobs/{job}`
pub async fn remove(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let one = ops::cron_jobs::remove(&context, &member.app, &member.account, &name).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// `POST /apps/{app}/cron-jobs/{job}/runs`
pub async fn run(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let run = ops::cron_jobs::run(&context, &member.app, &member.account, &name).await?;
    Ok(Reply::with(StatusCode::ACCEPTED, &run_view(&context, &run)))
}

/// `GET /apps/{app}/cron-jobs/{job}/runs`, newest first
pub async fn runs(
    State(context): State<Context>,
    member: Member,
    Identity(name): Identity,
    range: Range,
) -> Result<impl IntoResponse> {
    let all = ops::cron_jobs::runs(&context, &member.app, &name).await?;
    Ok(range.page(all, RUN_SORTS)?.map(|run| run_view(&context, &run)))
}

/// `GET /apps/{app}/cron-jobs/{job}/runs/{run}`
pub async fn run_info(
    State(context): State<Context>,
    member: Member,
    Path((_, job, id)): Path<(String, String, String)>,
) -> Result {
    let all = ops::cron_jobs::runs(&context, &member.app, &job).await?;
    let is = |run: &CronRun| run.id.to_string() == id || run.name.to_string() == id;
    let run = all.into_iter().find(is).ok_or(ops::Error::NotFound("cron_run"))?;
    Ok(Reply::ok(&run_view(&context, &run)))
}

fn view(one: &CronJob, app: &App) -> View {
    View {
        app: apps::named(app),
        command: one.job.command.clone(),
        created_at: rfc3339_seconds(one.created_at),
        expression: one.job.schedule.expression().to_string(),
        id: one.id.0,
        managed: one.managed,
        missed: one.job.missed.as_str().to_owned(),
        name: one.job.name.clone(),
        next_at: one.next_at.map(rfc3339_seconds),
        overlap: one.job.overlap.as_str().to_owned(),
        paused: one.paused,
        schedule: one.job.schedule.to_string(),
        size: one.job.size.to_string(),
        timezone: one.job.zone.clone(),
        updated_at: rfc3339_seconds(one.updated_at),
    }
}

fn run_view(context: &Context, run: &CronRun) -> RunView {
    let micros = run.ended_at.zip(run.started_at).map(|(ended, started)| ended - started);
    RunView {
        cause: run.cause.as_str().to_owned(),
        command: run.command.clone(),
        created_at: rfc3339_seconds(run.created_at),
        dyno: Named { id: run.id.0, name: run.name.to_string() },
        duration_seconds: micros.and_then(|micros| u64::try_from(micros / 1_000_000).ok()),
        ended_at: run.ended_at.map(rfc3339_seconds),
        exit_status: run.exit_status,
        id: run.id.0,
        note: run.note.clone(),
        output_stream_url: ops::cron_jobs::output_url(context, run),
        scheduled_at: rfc3339_seconds(run.scheduled_at),
        started_at: run.started_at.map(rfc3339_seconds),
        status: run.status.as_str().to_owned(),
    }
}
