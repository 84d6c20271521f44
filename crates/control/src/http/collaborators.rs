//! `/apps/{app}/collaborators`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::collaborator::{Collaborator as View, Permission, User},
};
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    member::{Identity, Member, Owner},
    page::{Key, Range, Sort},
};
use crate::{
    ops,
    state::Context,
    store::{
        apps::App,
        collaborators::{Collaborator, Role},
    },
};

const SORTS: &[Sort<Collaborator>] =
    &[("email", |one| Key::from(one.email.as_str())), ("id", |one| Key::Text(one.id.to_string()))];

/// `GET /apps/{app}/collaborators`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::collaborators::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one, &member.app)))
}

/// `GET /apps/{app}/collaborators/{collaborator}`
pub async fn info(State(context): State<Context>, member: Member, Identity(who): Identity) -> Result {
    let one = ops::collaborators::find(&context, &member.app, &who).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// Body of `POST /apps/{app}/collaborators`. Nobody is told by mail, so `silent` says nothing.
#[derive(Debug, Deserialize)]
pub struct New {
    user: String,
}

/// `POST /apps/{app}/collaborators`
pub async fn create(State(context): State<Context>, Owner(member): Owner, Json(new): Json<New>) -> Result {
    let one = ops::collaborators::add(&context, &member.app, &member.account, &new.user).await?;
    Ok(Reply::created(&view(&one, &member.app)))
}

/// `DELETE /apps/{app}/collaborators/{collaborator}`
pub async fn remove(State(context): State<Context>, member: Member, Identity(who): Identity) -> Result {
    let one = ops::collaborators::remove(&context, &member.app, &member.account, &who).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

fn view(one: &Collaborator, app: &App) -> View {
    const PERMISSIONS: [(&str, &str); 4] = [
        ("view", "Can see the app"),
        ("deploy", "Can push code, release and roll back"),
        ("operate", "Can configure, scale, restart and run"),
        ("manage", "Can decide who has access, rename and destroy the app"),
    ];
    let granted = if one.role == Role::Owner { &PERMISSIONS[..] } else { &PERMISSIONS[..3] };
    let permission = |(name, text): &(&str, &str)| Permission { name: (*name).into(), description: (*text).into() };
    View {
        app: apps::named(app),
        created_at: rfc3339_seconds(one.created_at),
        id: one.id.0,
        permissions: granted.iter().map(permission).collect(),
        role: Some(one.role.as_str().to_owned()),
        updated_at: rfc3339_seconds(one.updated_at),
        user: User { email: one.email.clone(), federated: false, id: one.account.0 },
    }
}
