//! `/apps/{app}/sni-endpoints`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::sni_endpoint::{SniEndpoint as View, SslCert},
};
use dozen_domain::config::Secret;
use serde::Deserialize;

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
        sni_endpoints::{Given, Shown},
    },
    state::Context,
    store::apps::App,
};

const SORTS: &[Sort<Shown>] =
    &[("name", |one| Key::from(one.endpoint.name.as_str())), ("id", |one| Key::Text(one.endpoint.id.to_string()))];

/// Body of `POST` and `PATCH`.
#[derive(Debug, Deserialize)]
pub struct Pair {
    certificate_chain: String,
    private_key: Secret,
}

impl From<Pair> for Given {
    fn from(pair: Pair) -> Self {
        Self { chain: pair.certificate_chain, key: pair.private_key }
    }
}

/// `GET /apps/{app}/sni-endpoints`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::sni_endpoints::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one, &member.app)))
}

/// `GET /apps/{app}/sni-endpoints/{sni_endpoint}`
pub async fn info(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let one = ops::sni_endpoints::find(&context, &member.app, &name).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// `POST /apps/{app}/sni-endpoints`
pub async fn create(State(context): State<Context>, member: Member, Json(pair): Json<Pair>) -> Result {
    let one = ops::sni_endpoints::add(&context, &member.app, &member.account, &pair.into()).await?;
    Ok(Reply::created(&view(&one, &member.app)))
}

/// `PATCH /apps/{app}/sni-endpoints/{sni_endpoint}`
pub async fn update(
    State(context): State<Context>,
    member: Member,
    Identity(name): Identity,
    Json(pair): Json<Pair>,
) -> Result {
    let one = ops::sni_endpoints::update(&context, &member.app, &member.account, &name, &pair.into()).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

/// `DELETE /apps/{app}/sni-endpoints/{sni_endpoint}`
pub async fn remove(State(context): State<Context>, member: Member, Identity(name): Identity) -> Result {
    let one = ops::sni_endpoints::remove(&context, &member.app, &member.account, &name).await?;
    Ok(Reply::ok(&view(&one, &member.app)))
}

fn view(one: &Shown, app: &App) -> View {
    let Shown { endpoint, facts, domains } = one;
    View {
        app: apps::named(app),
        certificate_chain: endpoint.chain.clone(),
        created_at: rfc3339_seconds(endpoint.created_at),
        display_name: None,
        domains: domains.iter().map(|domain| domain.id.0).collect(),
        id: endpoint.id.0,
        name: endpoint.name.clone(),
        ssl_cert: SslCert {
            acm: endpoint.managed,
            ca_signed: endpoint.trusted,
            cert_domains: facts.names.clone(),
            expires_at: rfc3339_seconds(facts.expires_at),
            id: endpoint.id.0,
            issuer: facts.issuer.clone(),
            self_signed: facts.self_signed,
            starts_at: rfc3339_seconds(facts.starts_at),
            subject: facts.subject.clone(),
        },
        updated_at: rfc3339_seconds(endpoint.updated_at),
    }
}
