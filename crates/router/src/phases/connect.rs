//! Phase 4: gets a connection to the chosen dyno. Nothing has been sent yet, so this is where another may be tried.

use std::sync::atomic::Ordering;

use dozen_domain::limits::millis;
use tokio::time::Instant;

use crate::{
    error::{Error, Retry},
    exchange::Exchange,
    link::Link,
    phases::{checkout::Attempts, forward::Outgoing},
    upstreams::{Protocol, Upstream},
};

/// Takes a kept connection or opens one; a dyno that does not take it is put into quarantine.
///
/// A request that cannot be sent twice gets no connection that was idle for long: the dyno may be closing it just now,
/// and the request would be lost with it.
pub(crate) async fn run(
    exchange: &mut Exchange,
    dyno: &Upstream,
    protocol: Protocol,
    outgoing: &Outgoing,
    attempts: &Attempts,
) -> Result<Link, Error> {
    let limits = &exchange.router.limits;
    let started = Instant::now();
    if !attempts.fresh {
        let keep = millis(limits.router_upstream_keep_alive_ms);
        let fresh = if outgoing.is_repeatable() { keep } else { keep.min(millis(limits.router_upstream_fresh_ms)) };
        if let Some(link) = dyno.checkout(protocol, fresh, attempts.deadline).await? {
            exchange.connect = Some(started.elapsed());
            exchange.router.metrics.kept.fetch_add(1, Ordering::Relaxed);
            return Ok(link);
        }
    }
    let connected = dyno.connect(protocol, limits, attempts.deadline).await;
    exchange.connect = Some(started.elapsed());
    let metrics = &exchange.router.metrics;
    let counter = if connected.is_ok() { &metrics.opened } else { &metrics.refused };
    counter.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = &connected
        && error.retry == Retry::OtherDyno
    {
        dyno.quarantine(&exchange.router.limits);
    }
    connected
}
