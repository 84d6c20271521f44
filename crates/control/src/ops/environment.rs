//! The environment of an app's processes: what the image sets, then config vars, then what the platform says of itself.

use dozen_api::clock::rfc3339_seconds;
use dozen_domain::config::{Secret, Vars};

use super::{Result, releases};
use crate::{
    Context,
    store::{apps::App, releases::Release, slugs::Slug},
};

/// The environment of every process of a release.
///
/// The `HEROKU_*` variables are those of the dyno metadata feature (Dev Center: dyno-metadata), always on; they win over
/// config vars of the same name, which would be stale at the next release. `PORT` and `DYNO` are the engine's.
///
/// # Errors
/// When the config vars cannot be unsealed.
pub fn of(context: &Context, app: &App, release: &Release, slug: &Slug) -> Result<Vars> {
    let mut env: Vars = slug.launch_env.iter().map(|(key, value)| (key.clone(), Secret::new(value.clone()))).collect();
    env.extend(releases::config(context, release)?);
    let commit = slug.commit.clone().unwrap_or_default();
    let facts = [
        ("HEROKU_APP_ID", app.id.to_string()),
        ("HEROKU_APP_NAME", app.name.to_string()),
        ("HEROKU_APP_DEFAULT_DOMAIN_NAME", format!("{}.{}", app.name, context.settings.apps_domain)),
        ("HEROKU_RELEASE_VERSION", release.version.to_string()),
        ("HEROKU_RELEASE_CREATED_AT", rfc3339_seconds(release.created_at)),
        ("HEROKU_SLUG_COMMIT", commit.clone()),
        ("HEROKU_SLUG_DESCRIPTION", release.description.clone()),
        ("HEROKU_BUILD_COMMIT", commit),
    ];
    env.extend(facts.map(|(key, value)| (key.to_owned(), Secret::new(value))));
    Ok(env)
}
