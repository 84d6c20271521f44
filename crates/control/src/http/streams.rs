//! `output_stream_url` of builds and releases: plain text from the beginning until the end, live while it runs.
//!
//! The addresses carry their own secret because clients send no credentials to them. 404 means that nothing has begun
//! yet; clients ask again.

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use dozen_domain::ids::AppId;
use http::{HeaderValue, header};
use uuid::Uuid;

use super::answer::Result;
use crate::{
    ops::{Error, output},
    state::Context,
};

/// `GET /streams/{kind}/{app}/{id}/{tag}`, without credentials.
///
/// # Errors
/// [`Error::NotFound`] when the address is not ours or nothing has begun, [`Error::Gone`] when it has ended.
pub async fn follow(
    State(context): State<Context>,
    Path((kind, app, id, given)): Path<(String, AppId, Uuid, String)>,
) -> Result<Response> {
    let path = output::path_of(&context, &kind, app, id, &given)?;
    let output = context.outputs.follow(&path).map_err(|_| Error::NotFound("output"))?;
    let mut response = Body::from_stream(output).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}
