//! The buildpacks of an app, in order: those that people chose, or the one that its first build detected. None: the next
//! build detects one.

use std::path::{Component, Path, PathBuf};

use dozen_domain::{
    buildpack::{BUILT_IN, Reference},
    ids::AppId,
};
use sqlx::SqliteConnection;

use super::{Error, Result};
use crate::{
    state::Context,
    store::{self, apps::App, buildpack_installations::Installation},
};

const MOST: usize = 20; // buildpacks of one app; enough for any, small enough for one request

/// An app's buildpacks in order.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<Installation>> {
    Ok(store::buildpack_installations::of_app(&mut *context.store.read().await?, app.id).await?)
}

/// Replaces an app's buildpacks; the next build uses them.
///
/// # Errors
/// When one is none, or the database fails.
pub async fn replace(context: &Context, app: &App, buildpacks: &[String]) -> Result<Vec<Installation>> {
    if buildpacks.len() > MOST {
        return Err(Error::Invalid(format!("An app may have {MOST} buildpacks at most.")));
    }
    let listed = &context.settings.buildpack_dirs;
    let installations = buildpacks.iter().map(|text| installation(text, listed)).collect::<Result<Vec<_>>>()?;
    let mut db = context.store.write().await?;
    store::buildpack_installations::replace(&mut db, app.id, &installations).await?;
    db.commit().await?;
    Ok(installations)
}

/// Keeps the built-in buildpack that a build has found by detection for the app's next builds, until it is cleared, as
/// Heroku does; unless there are buildpacks by now. A part of somebody's transaction.
///
/// # Errors
/// When the database fails.
pub(super) async fn pin(context: &Context, db: &mut SqliteConnection, app: AppId, detected: &str) -> Result<()> {
    if !store::buildpack_installations::of_app(db, app).await?.is_empty() {
        return Ok(());
    }
    let found = installation(&format!("heroku/{detected}"), &context.settings.buildpack_dirs)?;
    store::buildpack_installations::replace(db, app, &[found]).await?;
    Ok(())
}

/// Reads a buildpack as people write it. A folder must be in one of the directories that the operator lists: builds see
/// what is in it, whoever asks for them.
///
/// # Errors
/// When it is none, or a folder elsewhere.
pub(super) fn reference(text: &str, listed: &[PathBuf]) -> Result<Reference> {
    let reference: Reference = text.parse().map_err(|error| Error::Invalid(format!("Invalid buildpack: {error}.")))?;
    let Reference::Path(path) = &reference else { return Ok(reference) };
    let plain = Path::new(path).components().all(|part| !matches!(part, Component::ParentDir));
    if plain && listed.iter().any(|listed| Path::new(path).starts_with(listed)) {
        return Ok(reference);
    }
    let listed: Vec<String> = listed.iter().map(|listed| listed.display().to_string()).collect();
    let may = match listed.as_slice() {
        [] => "This platform takes none from its own folders".to_owned(),
        listed => format!("Folders may be below {} only", listed.join(", ")),
    };
    Err(Error::Invalid(format!(
        "The folder {path} may not be used as a buildpack. {may}; its operator decides that with DOZEN_BUILDPACK_DIRS. \
         Give the URL of a Git repository or archive in its place."
    )))
}

fn installation(text: &str, listed: &[PathBuf]) -> Result<Installation> {
    let reference = reference(text, listed)?;
    let name = reference.to_string();
    let url = match reference {
        Reference::BuiltIn(_) => format!("urn:buildpack:{name}"),
        _ => name.clone(),
    };
    Ok(Installation { url, name })
}

/// Someone named a buildpack that nobody knows.
pub fn unknown() -> Error {
    let known: Vec<String> = registry().collect();
    Error::Invalid(format!(
        "There is no such buildpack. Built in are {}; any other is given by the URL of its Git repository or archive.",
        known.join(", ")
    ))
}

/// Names of the built-in buildpacks as the registry lists them: `heroku/python`.
pub fn registry() -> impl Iterator<Item = String> {
    BUILT_IN.iter().map(|name| format!("heroku/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_buildpacks_are_urns_and_others_their_address() {
        let check = |text: &str, url: &str| assert_eq!(installation(text, &[]).expect(text).url, url, "{text}");
        check("heroku/python", "urn:buildpack:heroku/python");
        check("urn:buildpack:heroku/python", "urn:buildpack:heroku/python");
        check("https://github.com/a/b.git#v1", "https://github.com/a/b.git#v1");
        assert!(installation("heroku/cobol", &[]).is_err());
    }

    #[test]
    fn a_folder_must_be_below_a_listed_one() {
        let listed = [PathBuf::from("/srv/buildpacks")];
        assert_eq!(installation("/srv/buildpacks/ruby", &listed).expect("a buildpack").url, "/srv/buildpacks/ruby");
        for bad in ["/etc", "/srv/buildpacks-of-others/x", "/srv/buildpacks/../secret", "file:///root"] {
            let error = installation(bad, &listed).expect_err(bad).to_string();
            assert!(error.contains("below /srv/buildpacks only") && error.contains("DOZEN_BUILDPACK_DIRS"), "{error}");
        }
        let error = installation("/srv/buildpacks/ruby", &[]).expect_err("none are listed").to_string();
        assert!(error.contains("takes none from its own folders"), "{error}");
    }
}
