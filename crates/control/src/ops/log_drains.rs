//! Log drains: an app's lines as syslog messages, to a URL.

use dozen_api::drains::{Address, Destination};
use dozen_domain::{config::Secret, ids::DrainId};

use super::{Error, Result, drains};
use crate::{
    state::Context,
    store::{
        self,
        accounts::Account,
        apps::App,
        drains::{Drain, Kind},
    },
};

/// A log drain with its URL.
#[derive(Debug, Clone)]
pub struct LogDrain {
    /// The rest of it.
    pub drain: Drain,
    /// Where to; it may hold a password.
    pub url: Secret,
}

fn opened(context: &Context, drain: Drain) -> Result<LogDrain> {
    match drains::open(context, &drain)? {
        Destination::Log(url) => Ok(LogDrain { drain, url }),
        Destination::Telemetry(_) => Err(Error::NotFound("log_drain")),
    }
}

/// An app's log drains, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<LogDrain>> {
    let all = store::drains::of_app(&mut *context.store.read().await?, app.id, Kind::Log).await?;
    all.into_iter().map(|drain| opened(context, drain)).collect()
}

/// One of an app's log drains, by URL, token or id.
///
/// # Errors
/// When there is none.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<LogDrain> {
    let id = identity.parse::<DrainId>().ok();
    let is = |one: &LogDrain| one.url.expose() == identity || one.drain.token == identity || Some(one.drain.id) == id;
    list(context, app).await?.into_iter().find(is).ok_or(Error::NotFound("log_drain"))
}

/// Adds a log drain.
///
/// # Errors
/// When the URL cannot be drained to, is there already, or there are as many as there may be.
pub async fn add(context: &Context, app: &App, actor: &Account, url: &str) -> Result<LogDrain> {
    let address = Address::parse(url).map_err(|why| Error::invalid(format!("The drain's URL {why}.")))?;
    drains::check_host(context, &address.host, &address.to_string()).await?;
    let to = Destination::Log(Secret::new(url));
    let mut db = context.store.write().await?;
    let there = store::drains::of_app(&mut db, app.id, Kind::Log).await?;
    for other in &there {
        if drains::open(context, other)? == to {
            return Err(Error::invalid(format!("{} drains to {address} already.", app.name)));
        }
    }
    drains::check_count(context, there.len(), "log drains")?;
    let drain = drains::new(context, app.id, Kind::Log, &to)?;
    store::drains::insert(&mut db, &drain).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Add log drain {address} by user {}", actor.email));
    context.nudge.nudge(app.id);
    Ok(LogDrain { drain, url: Secret::new(url) })
}

/// Removes a log drain.
///
/// # Errors
/// When there is none.
pub async fn remove(context: &Context, app: &App, actor: &Account, identity: &str) -> Result<LogDrain> {
    let found = find(context, app, identity).await?;
    let mut db = context.store.write().await?;
    store::drains::delete(&mut db, found.drain.id).await?;
    db.commit().await?;
    let shown = Address::parse(found.url.expose()).map_or_else(|_| found.drain.token.clone(), |a| a.to_string());
    context.log_api(app.id, format!("Remove log drain {shown} by user {}", actor.email));
    context.nudge.nudge(app.id);
    Ok(found)
}
