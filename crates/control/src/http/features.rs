//! `/apps/{app}/features` and `/account/features`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{clock::rfc3339_seconds, platform::app_feature::Feature as View};
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Caller, Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{self, features::Feature},
    state::Context,
};

const SORTS: &[Sort<Feature>] =
    &[("name", |one| Key::from(one.definition.name)), ("id", |one| Key::Text(one.definition.id.to_string()))];

/// Body of a `PATCH`.
#[derive(Debug, Deserialize)]
pub struct Change {
    enabled: bool,
}

/// `GET /apps/{app}/features`
pub async fn of_app(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::features::of_app(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one)))
}

/// `GET /apps/{app}/features/{feature}`. With this the official client begins whatever enters a dyno, and of what is
/// wrong with that later it shows nothing; warnings it shows.
pub async fn app_info(
    State(context): State<Context>,
    member: Member,
    Identity(name): Identity,
) -> Result<impl IntoResponse> {
    let one = ops::features::find_of_app(&context, &member.app, &name).await?;
    let warning = ops::exec::warning(&context).filter(|_| one.definition.name == ops::features::EXEC);
    Ok((warning.map(|text| [("x-heroku-warning", text)]), Reply::ok(&view(&one))))
}

/// `PATCH /apps/{app}/features/{feature}`
pub async fn switch_app(
    State(context): State<Context>,
    member: Member,
    Identity(name): Identity,
    Json(change): Json<Change>,
) -> Result {
    let one = ops::features::switch_app(&context, &member.app, &member.account, &name, change.enabled).await?;
    Ok(Reply::ok(&view(&one)))
}

/// `GET /account/features`
pub async fn of_account(State(context): State<Context>, caller: Caller, range: Range) -> Result<impl IntoResponse> {
    let all = ops::features::of_account(&context, &caller.account).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one)))
}

/// `GET /account/features/{feature}`
pub async fn account_info(State(context): State<Context>, caller: Caller, Identity(name): Identity) -> Result {
    Ok(Reply::ok(&view(&ops::features::find_of_account(&context, &caller.account, &name).await?)))
}

/// `PATCH /account/features/{feature}`
pub async fn switch_account(
    State(context): State<Context>,
    caller: Caller,
    Identity(name): Identity,
    Json(change): Json<Change>,
) -> Result {
    let one = ops::features::switch_account(&context, &caller.account, &name, change.enabled).await?;
    Ok(Reply::ok(&view(&one)))
}

fn view(one: &Feature) -> View {
    View {
        created_at: rfc3339_seconds(one.created_at),
        description: one.definition.description.to_owned(),
        display_name: one.definition.display_name.to_owned(),
        doc_url: format!("https://devcenter.heroku.com/articles/{}", one.definition.name),
        enabled: one.enabled,
        feedback_email: String::new(),
        id: one.definition.id.0,
        name: one.definition.name.to_owned(),
        state: if one.definition.general { "general" } else { "beta" }.to_owned(),
        updated_at: rfc3339_seconds(one.updated_at),
    }
}
