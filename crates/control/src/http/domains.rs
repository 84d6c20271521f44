//! `/apps/{app}/domains`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{Named, domain::Domain as View},
};
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    member::{Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops,
    state::Context,
    store::{apps::App, domains::Domain},
};

const SORTS: &[Sort<Domain>] =
    &[("id", |one| Key::Text(one.id.to_string())), ("hostname", |one| Key::from(one.hostname.as_str()))];

/// `GET /apps/{app}/domains`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::domains::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&context, &one, &member.app)))
}

/// `GET /apps/{app}/domains/{domain}`
pub async fn info(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let one = ops::domains::find(&context, &member.app, &name).await?;
    Ok(Reply::ok(&view(&context, &one, &member.app)))
}

/// Body of `POST /apps/{app}/domains`.
#[derive(Debug, Deserialize)]
pub struct New {
    hostname: String,
    sni_endpoint: Option<String>,
}

/// `POST /apps/{app}/domains`
pub async fn create(State(context): State<Context>, member: Member, Json(new): Json<New>) -> Result {
    let certificate = new.sni_endpoint.as_deref();
    let one = ops::domains::add(&context, &member.app, &member.account, &new.hostname, certificate).await?;
    Ok(Reply::created(&view(&context, &one, &member.app)))
}

/// Body of `PATCH /apps/{app}/domains/{domain}`.
#[derive(Debug, Default, Deserialize)]
pub struct Change {
    sni_endpoint: Option<String>,
}

/// `PATCH /apps/{app}/domains/{domain}`
pub async fn update(
    State(context): State<Context>,
    member: Member,
    Identity(name): Identity,
    Json(change): Json<Change>,
) -> Result {
    let certificate = change.sni_endpoint.as_deref();
    let one = ops::domains::set_certificate(&context, &member.app, &member.account, &name, certificate).await?;
    Ok(Reply::ok(&view(&context, &one, &member.app)))
}

/// `DELETE /apps/{app}/domains/{domain}`
pub async fn remove(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let one = ops::domains::remove(&context, &member.app, &member.account, &name).await?;
    Ok(Reply::ok(&view(&context, &one, &member.app)))
}

fn view(context: &Context, one: &Domain, app: &App) -> View {
    View {
        acm_status: one.progress.as_ref().map(|(status, _)| status.clone()),
        acm_status_reason: one.progress.as_ref().and_then(|(_, reason)| reason.clone()),
        app: apps::named(app),
        cname: one.custom.then(|| ops::apps::own_hostname(context, &app.name)),
        created_at: rfc3339_seconds(one.created_at),
        hostname: one.hostname.clone(),
        id: one.id.0,
        kind: if one.custom { "custom" } else { "heroku" }.to_owned(),
        sni_endpoint: one.sni_endpoint.as_ref().map(|(id, name)| Named { id: id.0, name: name.clone() }),
        // Nothing is pending: requests are routed at once. With any other word the official CLI says that the domain waits.
        status: "none".to_owned(),
        updated_at: rfc3339_seconds(one.updated_at),
    }
}
