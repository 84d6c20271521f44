//! `/telemetry-drains` and `/apps/{app}/telemetry-drains`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::telemetry_drain::{Exporter as ExporterView, Owner, TelemetryDrain as View},
};
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Caller, Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{
        self, Error,
        telemetry_drains::{Exporter, Signal, TelemetryDrain},
    },
    state::Context,
    store::collaborators::Role,
};

const SORTS: &[Sort<TelemetryDrain>] = &[("id", |one| Key::Text(one.drain.id.to_string()))];

/// `GET /apps/{app}/telemetry-drains`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let all = ops::telemetry_drains::list(&context, &member.app).await?;
    Ok(range.page(all, SORTS)?.map(|one| view(&one)))
}

/// Body of `POST /telemetry-drains`.
#[derive(Debug, Deserialize)]
pub struct New {
    owner: NewOwner,
    signals: Vec<Signal>,
    exporter: Exporter,
}

#[derive(Debug, Deserialize)]
struct NewOwner {
    id: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `POST /telemetry-drains`
pub async fn create(State(context): State<Context>, caller: Caller, Json(new): Json<New>) -> Result {
    if new.owner.kind != "app" {
        return Err(Error::invalid("The owner of a telemetry drain is an app: this platform has no spaces."));
    }
    let account = &caller.account;
    let app = ops::apps::find(&context, account, &new.owner.id, Role::Collaborator).await?;
    let one = ops::telemetry_drains::add(&context, &app, account, &new.signals, new.exporter).await?;
    Ok(Reply::created(&view(&one)))
}

/// `GET /telemetry-drains/{drain}`
pub async fn info(State(context): State<Context>, caller: Caller, Identity(id): Identity) -> Result {
    let (one, _) = ops::telemetry_drains::find(&context, &caller.account, &id).await?;
    Ok(Reply::ok(&view(&one)))
}

/// Body of `PATCH /telemetry-drains/{drain}`.
#[derive(Debug, Default, Deserialize)]
pub struct Change {
    signals: Option<Vec<Signal>>,
    #[serde(default)]
    exporter: Exporter,
}

/// `PATCH /telemetry-drains/{drain}`
pub async fn update(
    State(context): State<Context>,
    Caller { account, .. }: Caller,
    Identity(id): Identity,
    Json(change): Json<Change>,
) -> Result {
    let (one, app) = ops::telemetry_drains::find(&context, &account, &id).await?;
    let signals = change.signals.as_deref();
    let one = ops::telemetry_drains::update(&context, &app, &account, one, signals, change.exporter).await?;
    Ok(Reply::ok(&view(&one)))
}

/// `DELETE /telemetry-drains/{drain}`
pub async fn remove(State(context): State<Context>, caller: Caller, Identity(id): Identity) -> Result {
    let (one, app) = ops::telemetry_drains::find(&context, &caller.account, &id).await?;
    ops::telemetry_drains::remove(&context, &app, &caller.account, &one).await?;
    Ok(Reply::ok(&view(&one)))
}

fn view(one: &TelemetryDrain) -> View {
    let word = |signal: Signal| match signal {
        Signal::Traces => "traces",
        Signal::Metrics => "metrics",
        Signal::Logs => "logs",
    };
    View {
        created_at: rfc3339_seconds(one.drain.created_at),
        exporter: ExporterView {
            endpoint: one.to.endpoint.expose().to_owned(),
            headers: one.to.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
            kind: if one.to.grpc { "otlp" } else { "otlphttp" }.to_owned(),
        },
        id: one.drain.id.0,
        owner: Owner { id: one.drain.app.0, kind: "app".to_owned() },
        signals: one.signals().into_iter().map(|signal| word(signal).to_owned()).collect(),
        updated_at: rfc3339_seconds(one.drain.updated_at),
    }
}
