//! `output_stream_url` of builds and releases: plain text from the beginning until the end, live while it runs.
//!
//! The addresses carry their own secret because clients send no credentials to them. 404 means that nothing has begun
//! yet; clients ask again.

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use dozen_domain::ids::{AppId, BuildId, ReleaseId};
use http::{HeaderValue, header};
use uuid::Uuid;

use super::answer::Result;
use crate::{
    ops::{Error, builds, release_phase},
    state::Context,
};

const BUILDS: &str = "builds";
const RELEASES: &str = "releases";

fn content(kind: &str, app: AppId, id: Uuid) -> String {
    format!("output {kind} {app} {id}")
}

fn tag(context: &Context, kind: &str, app: AppId, id: Uuid) -> String {
    context.keys.ticket.tag(&content(kind, app, id))
}

fn url(context: &Context, kind: &str, app: AppId, id: Uuid) -> String {
    format!("{}/streams/{kind}/{app}/{id}/{}", context.settings.api_url, tag(context, kind, app, id))
}

/// Where a build's output streams from.
pub fn build_url(context: &Context, app: AppId, build: BuildId) -> String {
    url(context, BUILDS, app, build.0)
}

/// Where a release command's output streams from.
pub fn release_url(context: &Context, app: AppId, release: ReleaseId) -> String {
    url(context, RELEASES, app, release.0)
}

/// `GET /streams/{kind}/{app}/{id}/{tag}`, without credentials.
///
/// # Errors
/// [`Error::NotFound`] when the address is not ours or nothing has begun.
pub async fn follow(
    State(context): State<Context>,
    Path((kind, app, id, given)): Path<(String, AppId, Uuid, String)>,
) -> Result<Response> {
    if !context.keys.ticket.is_tag(&given, &content(&kind, app, id)) {
        return Err(Error::NotFound("output"));
    }
    let path = match kind.as_str() {
        BUILDS => builds::output_path(&context, app, BuildId(id)),
        RELEASES => release_phase::output_path(&context, app, ReleaseId(id)),
        _ => return Err(Error::NotFound("output")),
    };
    let output = context.outputs.follow(&path).map_err(|_| Error::NotFound("output"))?;
    let mut response = Body::from_stream(output).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}
