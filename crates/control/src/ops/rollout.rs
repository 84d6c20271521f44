//! What becomes of a new release: its web dynos come up, or the platform returns to the one that still serves.
//!
//! There is something to return to only with preboot, which leaves the former release's web dynos up until the new
//! ones are. A return is a release of its own, so that the ledger tells of it, and is never returned from.

use std::time::Duration;

use dozen_api::engine::Dyno;
use dozen_domain::{
    dyno::State,
    ids::AppId,
    limits::seconds,
    release::{Cause, Version},
};

use super::{Error, Result, releases};
use crate::{
    state::Context,
    store::{self, releases::Release},
};

/// Crashes in a row without having come up: the first start and the restart that follows at once.
pub const GIVE_UP: u32 = 2;
/// How often is looked whether the platform has returned, besides after every change of a dyno.
const LOOK: Duration = Duration::from_millis(100);

/// The newest release before this one whose web dynos are up.
fn serving(dynos: &[Dyno], before: Version) -> Option<Version> {
    let web = dynos.iter().filter(|dyno| dyno.name.process_type().is_web() && dyno.version < before);
    web.filter(|dyno| matches!(dyno.state, State::Up { .. })).map(|dyno| dyno.version).max()
}

/// Says whether a web dyno has crashed so often that the release it runs is given up.
pub fn is_given_up(dyno: &Dyno) -> bool {
    dyno.name.process_type().is_web() && matches!(dyno.state, State::Crashed { crashes: GIVE_UP.., .. })
}

/// Returns to the release that still serves an app, if the one in force does not come up.
///
/// # Errors
/// When the former release cannot be put in force again or the database fails.
pub async fn settle(context: &Context, app: AppId) -> Result<Option<Release>> {
    let dynos = context.engine.dynos(app);
    let Some(failing) = dynos.iter().filter(|dyno| is_given_up(dyno)).map(|dyno| dyno.version).max() else {
        return Ok(None);
    };
    let Some(former) = serving(&dynos, failing) else { return Ok(None) };
    let mut db = context.store.write().await?;
    let current = store::releases::current(&mut db, app).await?.filter(|release| release.version == failing);
    let Some(current) = current else { return Ok(None) };
    if store::returns::failed(&mut db, current.id).await?.is_some() {
        return Ok(None);
    }
    let Some(target) = store::releases::by_version(&mut db, app, former).await? else { return Ok(None) };
    let Some(found) = store::apps::by_id(&mut db, app).await? else { return Ok(None) };
    let actor = match store::accounts::by_id(&mut db, current.account).await? {
        Some(account) => account,
        None => store::accounts::by_id(&mut db, found.owner).await?.ok_or(Error::NotFound("account"))?,
    };
    let change = releases::Change::Return { to: target.id, from: current.version };
    let made = releases::append(context, &mut db, app, &actor, change).await?;
    store::returns::insert(&mut db, made.release.id, current.id).await?;
    db.commit().await?;
    let version = made.release.version;
    context.log_api(app, Cause::Return { to: target.version, from: current.version }.to_string());
    context.log_api(app, format!("Release {version} created by the platform"));
    context.nudge.nudge(app);
    Ok(Some(made.release))
}

/// Waits until it is clear what becomes of a new release, for `push_wait_seconds` at most; answers the release that was
/// returned to. Does not wait when there is nothing to return to.
///
/// # Errors
/// When the database fails.
pub async fn watch(context: &Context, release: &Release) -> Result<Option<Release>> {
    let mut events = context.engine.watch();
    let watching = async {
        loop {
            let mut db = context.store.read().await?;
            let current = store::releases::current(&mut db, release.app).await?;
            if let Some(newer) = current.filter(|current| current.id != release.id) {
                let failed = store::returns::failed(&mut db, newer.id).await?;
                return Ok((failed == Some(release.id)).then_some(newer));
            }
            drop(db);
            if serving(&context.engine.dynos(release.app), release.version).is_none() {
                return Ok(None);
            }
            // A watcher that lags looks again as well.
            let _ = tokio::time::timeout(LOOK, events.recv()).await;
        }
    };
    let limit = seconds(context.limits().push_wait_seconds);
    tokio::time::timeout(limit, watching).await.unwrap_or(Ok(None))
}
