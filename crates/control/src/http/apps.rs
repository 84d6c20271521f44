//! `/apps`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{self, Named, Person},
};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    account,
    answer::{Reply, Result},
    body::Json,
    member::{Caller, Identity, Member},
    page::{Key, Range, Sort},
    regions, stacks,
};
use crate::{
    ops::{
        self,
        apps::{Change, New},
    },
    state::Context,
    store::apps::App,
};

const SORTS: &[Sort<App>] =
    &[("name", |app| Key::from(app.name.as_str())), ("id", |app| Key::Text(app.id.to_string()))];

/// `POST /apps`
pub async fn create(State(context): State<Context>, caller: Caller, Json(new): Json<New>) -> Result {
    let app = ops::apps::create(&context, &caller.account, new).await?;
    Ok(Reply::created(&view(&context, &app)))
}

/// `GET /apps`
pub async fn list(State(context): State<Context>, caller: Caller, range: Range) -> Result<impl IntoResponse> {
    let apps = ops::apps::list(&context, &caller.account).await?;
    Ok(range.page(apps, SORTS)?.map(|app| view(&context, &app)))
}

/// `GET /users/{user}/apps`
pub async fn of_user(
    State(context): State<Context>,
    caller: Caller,
    Identity(user): Identity,
    range: Range,
) -> Result<impl IntoResponse> {
    account::own(&caller, &user)?;
    list(State(context), caller, range).await
}

/// `GET /apps/{app}`
pub async fn info(State(context): State<Context>, member: Member) -> Result {
    Ok(Reply::ok(&view(&context, &member.app)))
}

/// `PATCH /apps/{app}`
pub async fn update(
    State(context): State<Context>,
    caller: Caller,
    Identity(app): Identity,
    Json(change): Json<Change>,
) -> Result {
    let app = ops::apps::update(&context, &caller.account, &app, change).await?;
    Ok(Reply::ok(&view(&context, &app)))
}

/// `DELETE /apps/{app}`
pub async fn destroy(State(context): State<Context>, caller: Caller, Identity(app): Identity) -> Result {
    let app = ops::apps::destroy(&context, &caller.account, &app).await?;
    Ok(Reply::ok(&view(&context, &app)))
}

/// Body of `POST /filters/apps`.
#[derive(Debug, Default, Deserialize)]
pub struct Filter {
    #[serde(default, rename = "in")]
    within: Within,
}

/// Which apps are wanted.
#[derive(Debug, Default, Deserialize)]
pub struct Within {
    #[serde(default)]
    id: Vec<Uuid>,
}

/// `POST /filters/apps`
pub async fn filter(
    State(context): State<Context>,
    caller: Caller,
    range: Range,
    Json(filter): Json<Filter>,
) -> Result<impl IntoResponse> {
    let mut apps = ops::apps::list(&context, &caller.account).await?;
    apps.retain(|app| filter.within.id.contains(&app.id.0));
    Ok(range.page(apps, SORTS)?.map(|app| view(&context, &app)))
}

/// A reference to an app.
pub fn named(app: &App) -> Named {
    Named { id: app.id.0, name: app.name.to_string() }
}

/// The one generation: how the official client behaves.
pub fn generation() -> Named {
    Named { id: Uuid::from_u128(0x2c1b_9d7e_40aa_4e55_b6f3_77d0_9e21_c4a8), name: "cedar".to_owned() }
}

/// An app as clients see it.
pub(super) fn view(context: &Context, app: &App) -> platform::app::App {
    platform::app::App {
        acm: app.acm,
        archived_at: None,
        build_stack: stacks::named(),
        buildpack_provided_description: app.buildpack_description.clone(),
        create_status: "complete".to_owned(),
        created_at: rfc3339_seconds(app.created_at),
        generation: generation(),
        git_url: ops::apps::git_url(context, &app.name),
        id: app.id.0,
        internal_routing: None,
        maintenance: app.maintenance,
        name: app.name.to_string(),
        organization: None,
        owner: Person { email: app.owner_email.clone(), id: app.owner.0 },
        region: regions::named(),
        released_at: app.released_at.map(rfc3339_seconds),
        repo_size: app.repo_size,
        slug_size: app.slug_size,
        space: None,
        stack: stacks::named(),
        team: None,
        updated_at: rfc3339_seconds(app.updated_at),
        web_url: Some(ops::apps::web_url(context, &app.name)),
    }
}
