//! `/sources`, and the addresses of uploads, which carry their own secret.

use axum::{
    body::Body,
    extract::{Query, Request, State},
    response::{IntoResponse as _, Response},
};
use dozen_api::platform;
use http::{HeaderValue, StatusCode, header};
use tokio_util::io::ReaderStream;

use super::{
    answer::{Reply, Result},
    member::{Caller, Member},
};
use crate::{ops, state::Context};

/// `POST /sources`.
///
/// # Errors
/// When the database fails.
pub async fn create(State(context): State<Context>, caller: Caller) -> Result {
    let addresses = ops::sources::create(&context, &caller.account).await?;
    let source_blob = platform::source::SourceBlob { get_url: addresses.get_url, put_url: addresses.put_url };
    Ok(Reply::created(&platform::source::Source { source_blob }))
}

/// `POST /apps/{app}/sources`, the older form: the place is the account's all the same.
///
/// # Errors
/// When the database fails.
pub async fn create_of_app(State(context): State<Context>, Member { account, .. }: Member) -> Result {
    create(State(context), Caller { account, authorization: None }).await
}

/// The secret of an upload's address.
#[derive(Debug, serde::Deserialize)]
pub struct Ticket {
    #[serde(default)]
    pub(super) ticket: String,
}

/// `PUT /sources/{source}?ticket=…`, without credentials.
///
/// # Errors
/// As [`ops::sources::put`].
pub async fn put(State(context): State<Context>, Query(ticket): Query<Ticket>, request: Request) -> Result<StatusCode> {
    ops::sources::put(&context, &ticket.ticket, request.into_body().into_data_stream()).await?;
    Ok(StatusCode::OK)
}

/// `GET /sources/{source}?ticket=…`, without credentials.
///
/// # Errors
/// As [`ops::sources::get`].
pub async fn get(State(context): State<Context>, Query(ticket): Query<Ticket>) -> Result<Response> {
    let file = ops::sources::get(&context, &ticket.ticket).await?;
    let mut response = Body::from_stream(ReaderStream::new(file)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    Ok(response)
}
