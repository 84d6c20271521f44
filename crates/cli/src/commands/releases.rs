//! Shows an app's releases, newest first.

use http::{HeaderValue, Method, header};
use http_body_util::BodyExt;
use serde::Deserialize;

use crate::{Error, Printer, commands::Session};

#[derive(Debug, Deserialize)]
struct Release {
    version: u64,
    description: String,
    status: String,
    current: bool,
    created_at: String,
    user: User,
}

#[derive(Debug, Deserialize)]
struct User {
    email: String,
}

pub(super) async fn run(session: &Session, app: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let releases = newest_first(session, app, 15).await?;
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
}

/// Number of the newest release.
pub(super) async fn newest(session: &Session, app: &str) -> Result<u64, Error> {
    let releases = newest_first(session, app, 1).await?;
    releases.first().map(|release| release.version).ok_or_else(|| Error::Usage(format!("{app} has no releases")))
}

async fn newest_first(session: &Session, app: &str, max: u32) -> Result<Vec<Release>, Error> {
    let path = format!("/apps/{app}/releases");
    let mut request = session.api.request(Method::GET, &path, None::<&()>)?;
    let range = HeaderValue::from_str(&format!("version ..; max={max}, order=desc"));
    if let Ok(range) = range {
        request.headers_mut().insert(header::RANGE, range);
    }
    let response = session.api.send(request).await?;
    if !response.status().is_success() {
        // The plain call reads the API's reason out of the answer.
        return Ok(session.api.get(&path).await?);
    }
    let wrong = |detail: String| dozen_api::client::Error::Answer { method: Method::GET, path: path.clone(), detail };
    let body = response.into_body().collect().await.map_err(|error| wrong(error.to_string()))?.to_bytes();
    Ok(serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?)
}
