//! Telemetry drains: an app's lines, measurements and requests to an OpenTelemetry consumer.

use std::collections::BTreeMap;

use dozen_api::drains::{Address, Destination, Protocol, Telemetry};
use dozen_domain::{config::Secret, ids::DrainId};
use serde::{Deserialize, Serialize};

use super::{Error, Result, drains};
use crate::{
    state::Context,
    store::{
        self,
        accounts::Account,
        apps::App,
        collaborators::Role,
        drains::{Drain, Kind},
    },
};

// The schema's numbers (telemetry-drain).
const ENDPOINT_BYTES: usize = 1_000;
const HEADERS: usize = 20;
const HEADER_NAME_BYTES: usize = 100;
const HEADER_VALUE_BYTES: usize = 1_000;

/// Kind of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Requests, a span each.
    Traces,
    /// Measurements of dynos and requests.
    Metrics,
    /// Lines.
    Logs,
}

/// How the consumer is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// HTTP with protocol buffers.
    Otlphttp,
    /// gRPC.
    Otlp,
}

/// A consumer as clients describe it; what is missing stays as it is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Exporter {
    /// How.
    #[serde(rename = "type")]
    pub transport: Option<Transport>,
    /// Where.
    pub endpoint: Option<String>,
    /// With these headers.
    pub headers: Option<BTreeMap<String, Secret>>,
}

/// A telemetry drain.
#[derive(Debug, Clone)]
pub struct TelemetryDrain {
    /// The rest of it.
    pub drain: Drain,
    /// Where to.
    pub to: Telemetry,
}

impl TelemetryDrain {
    /// What it is sent.
    pub fn signals(&self) -> Vec<Signal> {
        let logs = self.to.logs.then_some(Signal::Logs);
        let metrics = self.to.metrics.then_some(Signal::Metrics);
        self.to.traces.then_some(Signal::Traces).into_iter().chain(metrics).chain(logs).collect()
    }
}

fn opened(context: &Context, drain: Drain) -> Result<TelemetryDrain> {
    match drains::open(context, &drain)? {
        Destination::Telemetry(to) => Ok(TelemetryDrain { drain, to }),
        Destination::Log(_) => Err(Error::NotFound("telemetry_drain")),
    }
}

/// An app's telemetry drains, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<TelemetryDrain>> {
    let all = store::drains::of_app(&mut *context.store.read().await?, app.id, Kind::Telemetry).await?;
    all.into_iter().map(|drain| opened(context, drain)).collect()
}

/// A telemetry drain of an app that the account may see, by id.
///
/// # Errors
/// When there is none.
pub async fn find(context: &Context, account: &Account, identity: &str) -> Result<(TelemetryDrain, App)> {
    let missing = || Error::NotFound("telemetry_drain");
    let id: DrainId = identity.parse().map_err(|_| missing())?;
    let found = store::drains::by_id(&mut *context.store.read().await?, id).await?.ok_or_else(missing)?;
    let app = super::apps::find(context, account, &found.app.to_string(), Role::Collaborator).await;
    let app = app.map_err(|error| if matches!(error, Error::Forbidden(_)) { missing() } else { error })?;
    Ok((opened(context, found)?, app))
}

/// Adds a telemetry drain.
///
/// # Errors
/// When the consumer cannot be drained to, or there are as many drains as there may be.
pub async fn add(
    context: &Context,
    app: &App,
    actor: &Account,
    signals: &[Signal],
    exporter: Exporter,
) -> Result<TelemetryDrain> {
    let needed = |what: &str| Error::invalid(format!("exporter.{what} is missing."));
    let mut to = Telemetry {
        endpoint: Secret::new(""),
        grpc: exporter.transport.ok_or_else(|| needed("type"))? == Transport::Otlp,
        headers: BTreeMap::new(),
        traces: false,
        logs: false,
        metrics: false,
    };
    exporter.endpoint.as_ref().ok_or_else(|| needed("endpoint"))?;
    change(context, &mut to, Some(signals), exporter).await?;
    let mut db = context.store.write().await?;
    let there = store::drains::of_app(&mut db, app.id, Kind::Telemetry).await?;
    drains::check_count(context, there.len(), "telemetry drains")?;
    let drain = drains::new(context, app.id, Kind::Telemetry, &Destination::Telemetry(to.clone()))?;
    store::drains::insert(&mut db, &drain).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Add telemetry drain {} by user {}", drain.id, actor.email));
    context.nudge.nudge(app.id);
    Ok(TelemetryDrain { drain, to })
}

/// Changes a telemetry drain.
///
/// # Errors
/// When the consumer cannot be drained to.
pub async fn update(
    context: &Context,
    app: &App,
    actor: &Account,
    mut found: TelemetryDrain,
    signals: Option<&[Signal]>,
    exporter: Exporter,
) -> Result<TelemetryDrain> {
    change(context, &mut found.to, signals, exporter).await?;
    found.drain.target = drains::seal(context, found.drain.id, &Destination::Telemetry(found.to.clone()))?;
    found.drain.updated_at = context.now();
    let mut db = context.store.write().await?;
    store::drains::update(&mut db, found.drain.id, &found.drain.target, found.drain.updated_at).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Update telemetry drain {} by user {}", found.drain.id, actor.email));
    context.nudge.nudge(app.id);
    Ok(found)
}

/// Removes a telemetry drain.
///
/// # Errors
/// When the database fails.
pub async fn remove(context: &Context, app: &App, actor: &Account, found: &TelemetryDrain) -> Result<()> {
    let mut db = context.store.write().await?;
    store::drains::delete(&mut db, found.drain.id).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Remove telemetry drain {} by user {}", found.drain.id, actor.email));
    context.nudge.nudge(app.id);
    Ok(())
}

async fn change(context: &Context, to: &mut Telemetry, signals: Option<&[Signal]>, exporter: Exporter) -> Result<()> {
    if let Some(signals) = signals {
        if signals.is_empty() {
            return Err(Error::invalid("signals must name one at least: traces, metrics, logs."));
        }
        to.traces = signals.contains(&Signal::Traces);
        to.metrics = signals.contains(&Signal::Metrics);
        to.logs = signals.contains(&Signal::Logs);
    }
    if let Some(transport) = exporter.transport {
        to.grpc = transport == Transport::Otlp;
    }
    if let Some(headers) = exporter.headers {
        check_headers(&headers)?;
        to.headers = headers;
    }
    if let Some(endpoint) = exporter.endpoint {
        check_endpoint(context, &endpoint).await?;
        to.endpoint = Secret::new(endpoint);
    }
    Ok(())
}

async fn check_endpoint(context: &Context, endpoint: &str) -> Result<()> {
    let wrong = || Error::invalid("exporter.endpoint must be a URL such as https://otlp.example.com:4318.");
    let address = Address::parse(endpoint).map_err(|_| wrong())?;
    if endpoint.len() > ENDPOINT_BYTES || address.protocol == Protocol::Syslog {
        return Err(wrong());
    }
    drains::check_host(context, &address.host, &address.to_string()).await
}

fn check_headers(headers: &BTreeMap<String, Secret>) -> Result<()> {
    if headers.len() > HEADERS {
        return Err(Error::invalid(format!("exporter.headers may be {HEADERS} at most.")));
    }
    for (name, value) in headers {
        let named = (1..=HEADER_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !named {
            return Err(Error::invalid(format!(
                "{name:?} cannot be a header: names are up to {HEADER_NAME_BYTES} letters, digits, - and _."
            )));
        }
        let value = value.expose();
        if value.len() > HEADER_VALUE_BYTES || value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
            return Err(Error::invalid(format!(
                "The header {name} must have a value of one line and {HEADER_VALUE_BYTES} bytes at most."
            )));
        }
    }
    Ok(())
}
