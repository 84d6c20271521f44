//! Slugs: what builds made, and which of them may go.

use std::collections::HashSet;

use dozen_domain::{
    ids::{AppId, SlugId},
    image::Digest,
    release::Status,
};

use super::{Error, Result};
use crate::{
    Context,
    store::{self, slugs::Slug},
};

/// Releases whose slugs are never removed: what `heroku releases` can list and roll back to.
const LISTED: usize = 50;

/// An app's slug.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: AppId, id: &str) -> Result<Slug> {
    let id: SlugId = id.parse().map_err(|_| Error::NotFound("slug"))?;
    let found = store::slugs::by_id(&mut *context.store.read().await?, id).await?;
    found.filter(|slug| slug.app == app).ok_or(Error::NotFound("slug"))
}

/// Removes images that no release within the limit needs. Call it while no build of the app runs.
///
/// The rows are marked first, so that nobody rolls back to an image that is about to go.
///
/// # Errors
/// When the database or the artefact store fails; the next build tries again.
pub async fn prune(context: &Context, app: AppId) -> Result<()> {
    let mut db = context.store.write().await?;
    let releases = store::releases::of_app(&mut db, app).await?;
    let slugs = store::slugs::kept(&mut db, app).await?;
    let most = usize::try_from(context.limits().slugs_kept_releases).unwrap_or(usize::MAX);
    let listed = releases.iter().rev().take(LISTED);
    let succeeded = releases.iter().rev().filter(|release| release.status == Status::Succeeded).take(most);
    let needed: HashSet<SlugId> = listed.chain(succeeded).filter_map(|release| release.slug).collect();
    let released: HashSet<SlugId> = releases.iter().filter_map(|release| release.slug).collect();
    // A slug that was never released may be on its way to be.
    let (keep, remove): (Vec<_>, Vec<_>) =
        slugs.into_iter().partition(|slug| needed.contains(&slug.id) || !released.contains(&slug.id));
    if remove.is_empty() {
        return Ok(());
    }
    let now = context.now();
    for slug in &remove {
        store::slugs::mark_deleted(&mut db, slug.id, now).await?;
    }
    db.commit().await?;
    let images: Vec<Digest> = keep.into_iter().filter_map(|slug| slug.image).collect();
    context.builds.retain(app, &images).await.map_err(|error| Error::platform("remove old images", error))
}
