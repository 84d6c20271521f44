//! `/apps/{app}/formation`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{clock::rfc3339_seconds, platform::formation::Formation as View};
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    dyno_sizes,
    member::{Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{
        self,
        formation::{Entry, Update},
    },
    state::Context,
    store::apps::App,
};

const SORTS: &[Sort<Entry>] = &[
    ("type", |one| Key::from(one.formation.process_type.as_str())),
    ("id", |one| Key::Text(one.formation.id.to_string())),
];

/// `GET /apps/{app}/formation`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::formation::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one, &member.app)))
}

/// `GET /apps/{app}/formation/{type}`
pub async fn info(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let one = ops::formation::find(&context, &member.app, &name).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// Body of `PATCH /apps/{app}/formation`.
#[derive(Debug, Deserialize)]
pub struct Updates {
    updates: Vec<Update>,
}

/// `PATCH /apps/{app}/formation`
pub async fn batch_update(State(context): State<Context>, member: Member, Json(body): Json<Updates>) -> Result {
    let all = ops::formation::scale(&context, &member.app, &member.account, body.updates).await?;
    Ok(Reply::ok(&all.iter().map(|one| view(one, &member.app)).collect::<Vec<_>>()))
}

/// `PATCH /apps/{app}/formation/{type}`
pub async fn update(
    State(context): State<Context>,
    member: Member,
    Identity(name): Identity,
    Json(update): Json<Update>,
) -> Result {
    let update = Update { process_type: name.clone(), ..update };
    ops::formation::scale(&context, &member.app, &member.account, vec![update]).await?;
    let one = ops::formation::find(&context, &member.app, &name).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

fn view(one: &Entry, app: &App) -> View {
    let formation = &one.formation;
    View {
        app: apps::named(app),
        command: one.command.clone(),
        created_at: rfc3339_seconds(formation.created_at),
        dyno_size: dyno_sizes::named(formation.size),
        id: formation.id.0,
        quantity: formation.quantity,
        size: formation.size.to_string(),
        process_type: formation.process_type.to_string(),
        updated_at: rfc3339_seconds(formation.updated_at),
    }
}
