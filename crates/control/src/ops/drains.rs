//! What log and telemetry drains have in common: their sealed targets, where they may lead, and all of them as the logs
//! role is told.

use std::time::Duration;

use dozen_api::{
    drains::{self, Destination},
    outbound::{self, Host},
};
use dozen_domain::{
    ids::{AppId, DrainId},
    limits::millis,
};
use tokio::time::timeout;

use super::{Error, Result};
use crate::{
    state::Context,
    store::{
        self,
        drains::{Drain, Kind},
    },
};

/// A new drain of an app, not stored yet.
///
/// # Errors
/// When its target cannot be written as JSON, which it can.
pub(super) fn new(context: &Context, app: AppId, kind: Kind, to: &Destination) -> Result<Drain> {
    let (id, now) = (DrainId::random(), context.now());
    let token = format!("d.{}", DrainId::random());
    Ok(Drain { id, app, kind, token, target: seal(context, id, to)?, created_at: now, updated_at: now })
}

/// Seals a drain's target for the database.
///
/// # Errors
/// When it cannot be written as JSON, which it can.
pub(super) fn seal(context: &Context, id: DrainId, to: &Destination) -> Result<Vec<u8>> {
    let plain = serde_json::to_vec(to).map_err(|error| Error::platform("write a drain's target", error))?;
    Ok(context.keys.config.seal(id.to_string().as_bytes(), &plain))
}

/// A stored drain's target.
///
/// # Errors
/// When it was sealed with another key.
pub(super) fn open(context: &Context, drain: &Drain) -> Result<Destination> {
    let plain = context.keys.config.open(drain.id.to_string().as_bytes(), &drain.target);
    let plain = plain.map_err(|error| Error::platform("read a drain's target", error))?;
    serde_json::from_slice(&plain).map_err(|error| Error::platform("read a drain's target", error))
}

/// Refuses a host that the platform does not connect to, or that does not exist. `shown` is its URL without secrets.
///
/// # Errors
/// When it is such a one.
pub(super) async fn check_host(context: &Context, host: &Host, shown: &str) -> Result<()> {
    let limit: Duration = millis(context.limits().drain_connect_ms);
    let resolved = timeout(limit, outbound::resolve(host, &context.settings.reach)).await;
    match resolved {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error @ outbound::Error::OutOfReach { .. })) => Err(Error::invalid(format!(
            "{shown} cannot be a drain: {error}. Use a public address, or let the platform's operator allow it \
             (DOZEN_DRAIN_ALLOW_NETWORKS)."
        ))),
        Ok(Err(_)) | Err(_) => Err(Error::invalid(format!(
            "{shown} cannot be a drain: the name {} cannot be resolved. Check its spelling, or try again if it is new.",
            host.name
        ))),
    }
}

/// Refuses one more drain of a kind than an app may have.
///
/// # Errors
/// When there are as many already.
pub(super) fn check_count(context: &Context, there: usize, what: &str) -> Result<()> {
    let most = context.limits().drains_per_app;
    if there as u64 >= most {
        return Err(Error::invalid(format!("An app may have {most} {what} at most. Remove one first.")));
    }
    Ok(())
}

/// Every drain of every app: what the logs role is to serve.
///
/// # Errors
/// When the database fails or a target cannot be opened.
pub async fn wanted(context: &Context) -> Result<Vec<drains::Drain>> {
    let all = store::drains::all(&mut *context.store.read().await?).await?;
    let wire = |(drain, app_name): (Drain, String)| {
        let to = open(context, &drain)?;
        Ok(drains::Drain { id: drain.id, app: drain.app, app_name, token: drain.token, to })
    };
    all.into_iter().map(wire).collect()
}
