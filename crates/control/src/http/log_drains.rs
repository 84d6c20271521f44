//! `/apps/{app}/log-drains`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{clock::rfc3339_seconds, platform::log_drain::LogDrain as View};
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    member::{Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{self, log_drains::LogDrain},
    state::Context,
    store::apps::App,
};

const SORTS: &[Sort<LogDrain>] = &[("id", |one| Key::Text(one.drain.id.to_string()))];

/// `GET /apps/{app}/log-drains`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::log_drains::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one, &member.app)))
}

/// `GET /apps/{app}/log-drains/{drain}`
pub async fn info(State(context): State<Context>, member: Member, Identity(identity): Identity) -> Result {
    let one = ops::log_drains::find(&context, &member.app, &identity).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// Body of `POST /apps/{app}/log-drains`.
#[derive(Debug, Deserialize)]
pub struct New {
    url: String,
}

/// `POST /apps/{app}/log-drains`
pub async fn create(State(context): State<Context>, member: Member, Json(new): Json<New>) -> Result {
    let one = ops::log_drains::add(&context, &member.app, &member.account, &new.url).await?;
    Ok(Reply::created(&view(&one, &member.app)))
}

/// `DELETE /apps/{app}/log-drains/{drain}`
pub async fn remove(State(context): State<Context>, member: Member, Identity(identity): Identity) -> Result {
    let one = ops::log_drains::remove(&context, &member.app, &member.account, &identity).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

fn view(one: &LogDrain, app: &App) -> View {
    View {
        addon: None,
        app: apps::named(app),
        created_at: rfc3339_seconds(one.drain.created_at),
        id: one.drain.id.0,
        token: one.drain.token.clone(),
        updated_at: rfc3339_seconds(one.drain.updated_at),
        url: one.url.expose().to_owned(),
    }
}
