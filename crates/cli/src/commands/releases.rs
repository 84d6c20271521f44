//! Shows an app's releases, newest first, and goes back to one.

use http::{HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Session, read, show};
use crate::{Error, Printer};

#[derive(Debug, Deserialize)]
struct Release {
    id: String,
    version: u64,
    description: String,
    status: String,
    current: bool,
    #[serde(default)]
    eligible_for_rollback: bool,
    created_at: String,
    user: User,
}

#[derive(Debug, Deserialize)]
struct User {
    email: String,
}

pub(super) async fn run(session: &Session, app: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let releases = newest_first(session, app, Some(15)).await?;
    show(releases, printer, |releases: Vec<Release>, printer| {
        if releases.is_empty() {
            printer.note(&format!("{app} has no releases."));
        }
        let row = |release: Release| {
            let mark = if release.current { " (current)" } else { "" };
            let status = if release.status == "succeeded" { String::new() } else { format!("{} ", release.status) };
            let description = format!("{status}{}{mark}", release.description);
            vec![format!("v{}", release.version), description, release.user.email, release.created_at]
        };
        printer.table(&releases.into_iter().map(row).collect::<Vec<_>>())
    })
}

/// Makes a new release of what an earlier one was.
pub(super) async fn rollback(
    session: &Session,
    app: &str,
    to: Option<&str>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let releases: Vec<Release> = read(newest_first(session, app, None).await?)?;
    let target = target(&releases, to).ok_or_else(|| match to {
        Some(to) => Error::Missing(format!("{app} has no release {to}: dozen releases lists them")),
        None => Error::Missing(format!("{app} has no earlier release to go back to")),
    })?;
    printer.begin(&format!("Rolling {app} back to v{}", target.version));
    let body = json!({ "release": target.id });
    let answer: Value = session.api.call(Method::POST, &format!("/apps/{app}/releases"), Some(&body)).await?;
    printer.done(&format!("done, v{}", answer["version"]));
    if printer.is_json() { printer.json(&answer) } else { Ok(()) }
}

/// The release meant: by number, or the one before the newest of those that one can go back to.
fn target<'a>(releases: &'a [Release], to: Option<&str>) -> Option<&'a Release> {
    match to {
        Some(to) => {
            let number: u64 = to.trim_start_matches('v').parse().ok()?;
            releases.iter().find(|release| release.version == number)
        }
        None => releases.iter().filter(|release| release.eligible_for_rollback).nth(1),
    }
}

/// Number of the newest release.
pub(super) async fn newest(session: &Session, app: &str) -> Result<u64, Error> {
    let releases: Vec<Release> = read(newest_first(session, app, Some(1)).await?)?;
    releases.first().map(|release| release.version).ok_or_else(|| Error::Missing(format!("{app} has no releases")))
}

/// As many as asked for, or the first page of all.
async fn newest_first(session: &Session, app: &str, max: Option<u32>) -> Result<Value, Error> {
    let mut request = session.api.request(Method::GET, &format!("/apps/{app}/releases"), None::<&()>)?;
    let max = max.map_or_else(String::new, |max| format!("max={max}, "));
    if let Ok(range) = HeaderValue::from_str(&format!("version ..; {max}order=desc")) {
        request.headers_mut().insert(header::RANGE, range);
    }
    Ok(session.api.exchange(request).await?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_to_go_back_to_is_named_or_the_one_before() {
        let release = |version: u64, good: bool| {
            let user = json!({ "email": "a@b" });
            json!({ "id": version.to_string(), "version": version, "description": "", "status": "succeeded",
                    "current": version == 4, "eligible_for_rollback": good, "created_at": "", "user": user })
        };
        let releases = json!([release(4, true), release(3, false), release(2, true), release(1, true)]);
        let releases: Vec<Release> = read(releases).expect("releases");
        let version = |to| target(&releases, to).map(|release| release.version);
        assert_eq!(
            [version(None), version(Some("v1")), version(Some("3")), version(Some("9"))],
            [Some(2), Some(1), Some(3), None]
        );
        assert_eq!(version(Some("latest")), None);
    }
}
