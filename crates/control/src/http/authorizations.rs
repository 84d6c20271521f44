//! `/oauth/authorizations`, and `/oauth/sessions`, which do not exist here.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::{Micros, rfc3339_seconds},
    platform::oauth_authorization::{AccessToken, Authorization as View, User},
};
use dozen_domain::ids::AuthorizationId;
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Caller, Identity},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{self, Error, authorizations::New},
    state::Context,
    store::{accounts::Account, authorizations::Authorization},
};

const SORTS: &[Sort<Authorization>] = &[
    // Oldest first; the id makes it unique.
    ("created_at", |one| Key::Text(format!("{:020}-{}", one.created_at, one.id))),
    ("id", |one| Key::Text(one.id.to_string())),
];

/// `POST /oauth/authorizations`
pub async fn create(State(context): State<Context>, caller: Caller, Json(new): Json<New>) -> Result {
    let (one, token) = ops::authorizations::create(&context, &caller.account, new).await?;
    Ok(Reply::created(&view(&one, &caller.account, token.expose(), context.now())))
}

/// `GET /oauth/authorizations`
pub async fn list(State(context): State<Context>, caller: Caller, range: Range) -> Result<impl IntoResponse> {
    let all = ops::authorizations::list(&context, &caller.account).await?;
    let now = context.now();
    Ok(range.page(all, SORTS)?.map(|one| view(&one, &caller.account, &one.token_hint, now)))
}

/// `GET /oauth/authorizations/{authorization}`
pub async fn info(State(context): State<Context>, caller: Caller, Identity(id): Identity) -> Result {
    let one = ops::authorizations::find(&context, &caller.account, own(&caller), &id).await?;
    Ok(Reply::ok(&view(&one, &caller.account, &one.token_hint, context.now())))
}

/// Body of `PATCH /oauth/authorizations/{authorization}`.
#[derive(Debug, Default, Deserialize)]
pub struct Change {
    description: Option<String>,
}

/// `PATCH /oauth/authorizations/{authorization}`
pub async fn update(
    State(context): State<Context>,
    caller: Caller,
    Identity(id): Identity,
    Json(change): Json<Change>,
) -> Result {
    let one = ops::authorizations::find(&context, &caller.account, own(&caller), &id).await?;
    let one = ops::authorizations::update(&context, one, change.description).await?;
    Ok(Reply::ok(&view(&one, &caller.account, &one.token_hint, context.now())))
}

/// `DELETE /oauth/authorizations/{authorization}`
pub async fn revoke(State(context): State<Context>, caller: Caller, Identity(id): Identity) -> Result {
    let one = ops::authorizations::find(&context, &caller.account, own(&caller), &id).await?;
    ops::authorizations::revoke(&context, &one).await?;
    Ok(Reply::ok(&view(&one, &caller.account, &one.token_hint, context.now())))
}

/// `POST /oauth/authorizations/{authorization}/actions/regenerate-tokens`
pub async fn regenerate(State(context): State<Context>, caller: Caller, Identity(id): Identity) -> Result {
    let one = ops::authorizations::find(&context, &caller.account, own(&caller), &id).await?;
    let (one, token) = ops::authorizations::regenerate(&context, one).await?;
    Ok(Reply::created(&view(&one, &caller.account, token.expose(), context.now())))
}

/// `GET /oauth/sessions`
pub async fn sessions() -> Result {
    Ok(Reply::ok(&[(); 0]))
}

/// `DELETE /oauth/sessions/{session}`
pub async fn end_session() -> Result {
    Err(Error::NotFound("session"))
}

fn own(caller: &Caller) -> Option<AuthorizationId> {
    caller.authorization.as_ref().map(|one| one.id)
}

fn view(one: &Authorization, account: &Account, token: &str, now: Micros) -> View {
    const SECOND: Micros = 1_000_000; // microseconds
    let expires_in = one.token_expires_at.map(|end| (end - now + SECOND - 1) / SECOND);
    View {
        access_token: AccessToken { expires_in, id: one.token_id.0, token: token.to_owned() },
        client: None,
        created_at: rfc3339_seconds(one.created_at),
        description: one.description.clone().unwrap_or_default(),
        grant: None,
        id: one.id.0,
        refresh_token: None,
        scope: one.scope.clone(),
        session: None,
        updated_at: rfc3339_seconds(one.updated_at),
        user: User { email: account.email.clone(), full_name: account.name.clone(), id: account.id.0 },
    }
}
