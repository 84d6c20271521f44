//! `/addons`, `/addon-attachments` and `/addon-services`.
//!
//! `Accept-Expansion: addon_service,plan` has both in full where otherwise they are references.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, State},
    response::IntoResponse,
};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{
        Named,
        addon::{Addon as View, AddonAttachment, AddonService, AttachedAddon, BillingEntity, Plan as PlanView, Price},
    },
};
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    member::{Caller, Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{
        self, Error,
        addons::{Change, New, PLANS, Plan},
    },
    state::Context,
    store::{addons::Addon, apps::App, collaborators::Role},
};

type Owned = (Addon, App);

const SORTS: &[Sort<Owned>] =
    &[("name", |(one, _)| Key::from(one.name.as_str())), ("id", |(one, _)| Key::Text(one.id.to_string()))];

/// What is wanted in full.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expansion {
    service: bool,
    plan: bool,
}

impl FromRequestParts<Context> for Expansion {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Context) -> std::result::Result<Self, Infallible> {
        let wanted = parts.headers.get("accept-expansion").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let has = |name: &str| wanted.split(',').any(|part| part.trim() == name);
        Ok(Self { service: has("addon_service"), plan: has("plan") })
    }
}

/// `GET /addons`
pub async fn list(
    State(context): State<Context>,
    caller: Caller,
    range: Range,
    full: Expansion,
) -> Result<impl IntoResponse> {
    let all = ops::addons::of_account(&context, &caller.account).await?;
    Ok(range.page(all, SORTS)?.map(|(one, app)| view(&one, &app, full)))
}

/// `GET /apps/{app}/addons`
pub async fn of_app(
    State(context): State<Context>,
    member: Member,
    range: Range,
    full: Expansion,
) -> Result<impl IntoResponse> {
    let all = owned(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|(one, app)| view(&one, &app, full)))
}

async fn owned(context: &Context, app: &App) -> Result<Vec<Owned>> {
    Ok(ops::addons::list(context, app).await?.into_iter().map(|one| (one, app.clone())).collect())
}

/// `GET /addons/{addon}`
pub async fn info(State(context): State<Context>, caller: Caller, Identity(id): Identity, full: Expansion) -> Result {
    let (one, app) = ops::addons::find_anywhere(&context, &caller.account, &id).await?;
    Ok(Reply::ok(&view(&one, &app, full)))
}

/// `GET /apps/{app}/addons/{addon}`
pub async fn app_info(
    State(context): State<Context>,
    member: Member,
    Identity(id): Identity,
    full: Expansion,
) -> Result {
    let one = ops::addons::find(&context, &member.app, &id).await?;
    Ok(Reply::ok(&view(&one, &member.app, full)))
}

/// `POST /apps/{app}/addons`
pub async fn create(State(context): State<Context>, member: Member, full: Expansion, Json(new): Json<New>) -> Result {
    let one = ops::addons::create(&context, &member.app, &member.account, new).await?;
    Ok(Reply::created(&view(&one, &member.app, full)))
}

/// `PATCH /apps/{app}/addons/{addon}`: there is one plan a service, so only the name can change.
pub async fn update(
    State(context): State<Context>,
    member: Member,
    Identity(id): Identity,
    full: Expansion,
    Json(change): Json<Change>,
) -> Result {
    let one = ops::addons::update(&context, &member.app, &id, change).await?;
    Ok(Reply::ok(&view(&one, &member.app, full)))
}

/// `DELETE /apps/{app}/addons/{addon}`
pub async fn remove(State(context): State<Context>, member: Member, Identity(id): Identity, full: Expansion) -> Result {
    let one = ops::addons::remove(&context, &member.app, &member.account, &id).await?;
    Ok(Reply::ok(&View { state: "deprovisioned".to_owned(), ..view(&one, &member.app, full) }))
}

/// Body of the `resolve` actions.
#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(alias = "addon_attachment")]
    addon: String,
    app: Option<String>,
    addon_service: Option<String>,
}

async fn resolve(context: &Context, caller: &Caller, wanted: &Wanted, resource: &'static str) -> Result<Vec<Owned>> {
    let mut all = match &wanted.app {
        Some(app) => owned(context, &ops::apps::find(context, &caller.account, app, Role::Collaborator).await?).await?,
        None => ops::addons::of_account(context, &caller.account).await?,
    };
    let service =
        |one: &Addon| wanted.addon_service.as_ref().is_none_or(|name| one.plan.starts_with(&format!("{name}:")));
    all.retain(|(one, app)| ops::addons::is_called(one, app, &wanted.addon, wanted.app.is_some()) && service(one));
    if all.is_empty() { Err(Error::NotFound(resource)) } else { Ok(all) }
}

/// `POST /actions/addons/resolve`
pub async fn resolve_addon(
    State(context): State<Context>,
    caller: Caller,
    full: Expansion,
    Json(wanted): Json<Wanted>,
) -> Result {
    let found = resolve(&context, &caller, &wanted, "add_on").await?;
    Ok(Reply::ok(&found.iter().map(|(one, app)| view(one, app, full)).collect::<Vec<_>>()))
}

/// `POST /actions/addon-attachments/resolve`
pub async fn resolve_attachment(State(context): State<Context>, caller: Caller, Json(wanted): Json<Wanted>) -> Result {
    let found = resolve(&context, &caller, &wanted, "add_on attachment").await?;
    Ok(Reply::ok(&found.iter().map(|(one, app)| attachment(one, app)).collect::<Vec<_>>()))
}

/// `GET /addon-attachments`
pub async fn attachments(State(context): State<Context>, caller: Caller, range: Range) -> Result<impl IntoResponse> {
    let all = ops::addons::of_account(&context, &caller.account).await?;
    Ok(range.page(all, SORTS)?.map(|(one, app)| attachment(&one, &app)))
}

/// `GET /apps/{app}/addon-attachments`
pub async fn attachments_of_app(
    State(context): State<Context>,
    member: Member,
    range: Range,
) -> Result<impl IntoResponse> {
    let all = owned(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|(one, app)| attachment(&one, &app)))
}

/// `GET /apps/{app}/addon-attachments/{attachment}`
pub async fn attachment_of_app(State(context): State<Context>, member: Member, Identity(id): Identity) -> Result {
    let one = ops::addons::find_attachment(&context, &member.app, &id).await?;
    Ok(Reply::ok(&attachment(&one, &member.app)))
}

/// `GET /addon-attachments/{attachment}`
pub async fn attachment_info(State(context): State<Context>, caller: Caller, Identity(id): Identity) -> Result {
    let (one, app) = ops::addons::find_attachment_anywhere(&context, &caller.account, &id).await?;
    Ok(Reply::ok(&attachment(&one, &app)))
}

/// `POST /addon-attachments`
pub async fn attach(_: Caller) -> Result<()> {
    ops::addons::attach()
}

/// `DELETE /addon-attachments/{attachment}`
pub async fn detach(State(context): State<Context>, caller: Caller, Identity(id): Identity) -> Result<()> {
    ops::addons::detach(&ops::addons::find_attachment_anywhere(&context, &caller.account, &id).await?)
}

/// `GET /addons/{addon}/addon-attachments`
pub async fn attachments_of_addon(
    State(context): State<Context>,
    caller: Caller,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result {
    let (one, app) = ops::addons::find_anywhere(&context, &caller.account, &id).await?;
    Ok(Reply::ok(&[attachment(&one, &app)]))
}

/// `GET /addon-services`
pub async fn services() -> Result {
    Ok(Reply::ok(&PLANS.iter().map(service).collect::<Vec<_>>()))
}

/// `GET /addon-services/{service}`
pub async fn service_info(Identity(name): Identity) -> Result {
    Ok(Reply::ok(&service(ops::addons::plan(&name)?)))
}

/// `GET /addon-services/{service}/plans`
pub async fn plans(axum::extract::Path(name): axum::extract::Path<String>) -> Result {
    let service = ops::addons::plan(&name)?.service;
    Ok(Reply::ok(&PLANS.iter().filter(|plan| plan.service == service).map(plan).collect::<Vec<_>>()))
}

/// `GET /plans/{plan}` and `GET /addon-services/{service}/plans/{plan}`
pub async fn plan_info(Identity(name): Identity) -> Result {
    Ok(Reply::ok(&plan(ops::addons::plan(&name)?)))
}

/// Since when there is what does not change.
const SINCE: &str = "2026-01-01T00:00:00Z";

/// An id that a name always has.
fn id_of(kind: &str, name: &str) -> Uuid {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{kind} {name}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn service_named(plan: &Plan) -> Named {
    Named { id: id_of("addon-service", plan.service), name: plan.service.to_owned() }
}

fn service(plan: &Plan) -> AddonService {
    AddonService {
        cli_plugin_name: None,
        created_at: SINCE.to_owned(),
        human_name: plan.service_title.to_owned(),
        id: id_of("addon-service", plan.service),
        name: plan.service.to_owned(),
        state: "ga".to_owned(),
        supported_generations: vec![apps::generation()],
        supports_multiple_installations: false,
        supports_sharing: false,
        updated_at: SINCE.to_owned(),
    }
}

fn free() -> Price {
    Price { cents: 0, contract: false, unit: "month".to_owned() }
}

fn plan(plan: &Plan) -> PlanView {
    PlanView {
        addon_service: service_named(plan),
        compliance: None,
        created_at: SINCE.to_owned(),
        default: true,
        description: plan.description.to_owned(),
        human_name: plan.title.to_owned(),
        id: id_of("plan", plan.name),
        installable_inside_private_network: false,
        installable_outside_private_network: true,
        name: plan.name.to_owned(),
        price: free(),
        space_default: false,
        state: "ga".to_owned(),
        updated_at: SINCE.to_owned(),
        visible: true,
    }
}

fn view(one: &Addon, app: &App, full: Expansion) -> View {
    let known = PLANS.iter().find(|plan| plan.name == one.plan);
    let value = |full: bool, all: fn(&Plan) -> Value, kind: &str, name: &str| match known.filter(|_| full) {
        Some(known) => all(known),
        None => json!({ "id": id_of(kind, name), "name": name }),
    };
    let service_name = one.plan.split(':').next().unwrap_or_default();
    View {
        actions: Vec::new(),
        addon_service: value(full.service, |known| json!(service(known)), "addon-service", service_name),
        app: apps::named(app),
        billed_price: free(),
        billing_entity: BillingEntity { id: app.id.0, name: app.name.to_string(), kind: "app".to_owned() },
        config_vars: Vec::new(),
        created_at: rfc3339_seconds(one.created_at),
        id: one.id.0,
        name: one.name.clone(),
        plan: value(full.plan, |known| json!(plan(known)), "plan", &one.plan),
        provider_id: one.id.to_string(),
        provision_message: known.map_or_else(String::new, |known| known.message.to_owned()),
        state: "provisioned".to_owned(),
        updated_at: rfc3339_seconds(one.updated_at),
        web_url: None,
    }
}

fn attachment(one: &Addon, app: &App) -> AddonAttachment {
    AddonAttachment {
        addon: AttachedAddon { id: one.id.0, name: one.name.clone(), app: apps::named(app) },
        app: apps::named(app),
        created_at: rfc3339_seconds(one.created_at),
        id: one.attachment_id.0,
        log_input_url: None,
        name: one.attachment.clone(),
        namespace: None,
        updated_at: rfc3339_seconds(one.updated_at),
        web_url: None,
    }
}
