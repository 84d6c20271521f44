//! Phase 2: finds the app of the host, and refuses what the app does not serve now.

use std::sync::Arc;

use dozen_api::routes::Mode;
use dozen_domain::limits::{Limits, millis};
use tokio::time::timeout;

use crate::{
    edge,
    error::{Error, Kind},
    exchange::Exchange,
    table::{App, View},
};

/// Finds the app; from here on the exchange leaves its line in the app's stream.
pub(crate) async fn run(exchange: &mut Exchange, accepted: Result<(), Error>) -> Result<Arc<App>, Error> {
    let router = exchange.router.clone();
    if exchange.host.is_empty() {
        accepted?;
    }
    if !router.table.is_ready() {
        // Just started, with no table on disk and control not there yet.
        let wait = millis(router.limits.router_table_wait_ms);
        timeout(wait, router.table.ready()).await.map_err(|_elapsed| Error::router(Kind::NoTable))?;
    }
    let app = router.table.find(&exchange.host);
    exchange.app.clone_from(&app);
    accepted?;
    let app = app.ok_or(Error::client(Kind::NoSuchApp))?;
    edge::guard::check(exchange, &app)?;
    if exchange.client.excess {
        return Err(Error::client(Kind::Connections));
    }
    let view = app.view();
    edge::answers::redirect(exchange, &view)?;
    serves(&view)?;
    let open = app.enter(router.limits.router_requests_per_app).ok_or(Error::client(Kind::Connections))?;
    exchange.open = Some(open);
    let backlog = backlog(&view, &router.limits);
    exchange.waiting = Some(app.wait(backlog).ok_or(Error::dyno(Kind::Backlog))?);
    Ok(app)
}

/// How many requests may wait for an app's answers.
pub(crate) fn backlog(view: &View, limits: &Limits) -> u64 {
    limits.router_backlog_per_dyno.saturating_mul(u64::from(view.app.web_quantity).max(1))
}

/// Says why an app serves nothing at all, if so.
///
/// # Errors
/// The reason.
pub(crate) fn serves(view: &View) -> Result<(), Error> {
    if view.gone {
        return Err(Error::client(Kind::NoSuchApp));
    }
    match view.app.mode {
        Mode::Maintenance => Err(Error::nobody(Kind::Maintenance)),
        Mode::Blank => Err(Error::nobody(Kind::Blank)),
        Mode::Serving if view.app.web_quantity == 0 => Err(Error::nobody(Kind::NoWebDynos)),
        Mode::Serving => Ok(()),
    }
}
