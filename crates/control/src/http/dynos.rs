//! `/apps/{app}/dynos`, and restarting and stopping by process type.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::dyno::{Dyno as View, Release},
};
use uuid::Uuid;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    member::{Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{
        self,
        dynos::{New, Running, Started, Which},
    },
    state::Context,
    store::apps::App,
};

const SORTS: &[Sort<Running>] = &[
    ("name", |one| {
        // web.2 before web.10
        Key::Text(format!("{}.{:010}", one.dyno.name.process_type(), one.dyno.name.number()))
    }),
    ("id", |one| Key::Text(one.dyno.id.to_string())),
];

/// `GET /apps/{app}/dynos`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::dynos::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one, &member.app)))
}

/// `GET /apps/{app}/dynos/{dyno}`
pub async fn info(State(context): State<Context>, member: Member, Identity(dyno): Identity) -> Result {
    let one = ops::dynos::find(&context, &member.app, &dyno).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// `POST /apps/{app}/dynos`
pub async fn create(State(context): State<Context>, member: Member, Json(new): Json<New>) -> Result {
    let started = ops::dynos::run(&context, &member.app, &member.account, new).await?;
    Ok(Reply::created(&attached(started, &member.app)))
}

/// `POST /apps/{app}/dynos/{dyno}`: a command inside it
pub async fn run_inside(
    State(context): State<Context>,
    member: Member,
    Identity(dyno): Identity,
    Json(new): Json<New>,
) -> Result {
    let started = ops::dynos::run_inside(&context, &member.app, &member.account, &dyno, new).await?;
    Ok(Reply::created(&attached(started, &member.app)))
}

/// `DELETE /apps/{app}/dynos`
pub async fn restart_all(State(context): State<Context>, member: Member) -> Result {
    ops::dynos::restart(&context, &member.app, Which::All).await?;
    Ok(Reply::accepted())
}

/// `DELETE /apps/{app}/dynos/{dyno}`
pub async fn restart(State(context): State<Context>, member: Member, Identity(dyno): Identity) -> Result {
    ops::dynos::restart(&context, &member.app, Which::One(&dyno)).await?;
    Ok(Reply::accepted())
}

/// `DELETE /apps/{app}/formations/{type}`
pub async fn restart_type(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    ops::dynos::restart(&context, &member.app, Which::Type(&name)).await?;
    Ok(Reply::accepted())
}

/// `POST /apps/{app}/dynos/{dyno}/actions/stop`
pub async fn stop(State(context): State<Context>, member: Member, Identity(dyno): Identity) -> Result {
    ops::dynos::stop(&context, &member.app, Which::One(&dyno)).await?;
    Ok(Reply::accepted())
}

/// `POST /apps/{app}/formations/{type}/actions/stop`
pub async fn stop_type(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    ops::dynos::stop(&context, &member.app, Which::Type(&name)).await?;
    Ok(Reply::accepted())
}

fn attached(started: Started, app: &App) -> View {
    View { attach_url: started.attach_url, ..view(&started.running, app) }
}

fn view(one: &Running, app: &App) -> View {
    let dyno = &one.dyno;
    View {
        app: apps::named(app),
        attach_url: None,
        command: dyno.command.clone(),
        created_at: rfc3339_seconds(dyno.created_at),
        id: dyno.id.0,
        name: dyno.name.to_string(),
        release: Release { id: one.release.map_or(Uuid::nil(), |release| release.0), version: dyno.version.0 },
        size: dyno.size.to_string(),
        state: dyno.state.word().to_owned(),
        process_type: dyno.name.process_type().to_string(),
        updated_at: rfc3339_seconds(dyno.state.since()),
    }
}
