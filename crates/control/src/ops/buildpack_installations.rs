//! The buildpacks that people choose for an app, in order. None: the next build detects one.

use dozen_domain::buildpack::{BUILT_IN, Reference};

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
    let installations = buildpacks.iter().map(|text| installation(text)).collect::<Result<Vec<_>>>()?;
    let mut db = context.store.write().await?;
    store::buildpack_installations::replace(&mut db, app.id, &installations).await?;
    db.commit().await?;
    Ok(installations)
}

fn installation(text: &str) -> Result<Installation> {
    let reference: Reference = text.parse().map_err(|error| Error::Invalid(format!("Invalid buildpack: {error}.")))?;
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
        let check = |text: &str, url: &str| assert_eq!(installation(text).expect(text).url, url, "{text}");
        check("heroku/python", "urn:buildpack:heroku/python");
        check("urn:buildpack:heroku/python", "urn:buildpack:heroku/python");
        check("https://github.com/a/b.git#v1", "https://github.com/a/b.git#v1");
        assert!(installation("heroku/cobol").is_err());
    }
}
