//! `/apps/{app}/slugs`, and the addresses of their archives, which carry their own secret.

use axum::{
    body::Body,
    extract::{Query, Request, State},
    response::{IntoResponse as _, Response},
};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{self, Named},
};
use http::{HeaderValue, StatusCode, header};
use tokio_util::io::ReaderStream;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Identity, Member},
    sources::Ticket,
};
use crate::{
    ops::{self, slugs::New},
    state::Context,
    store::slugs::Slug,
};

/// `POST /apps/{app}/slugs`.
///
/// # Errors
/// As [`ops::slugs::create`].
pub async fn create(State(context): State<Context>, member: Member, Json(new): Json<New>) -> Result {
    let slug = ops::slugs::create(&context, &member.account, member.app.id, new).await?;
    Ok(Reply::created(&wire(&context, slug)))
}

/// `PUT /slugs/{slug}?ticket=…`, without credentials.
///
/// # Errors
/// As [`ops::slugs::put`].
pub async fn put(State(context): State<Context>, Query(ticket): Query<Ticket>, request: Request) -> Result<StatusCode> {
    ops::slugs::put(&context, &ticket.ticket, request.into_body().into_data_stream()).await?;
    Ok(StatusCode::OK)
}

/// `GET /slugs/{slug}?ticket=…`, without credentials.
///
/// # Errors
/// As [`ops::slugs::get`].
pub async fn get(State(context): State<Context>, Query(ticket): Query<Ticket>) -> Result<Response> {
    let (file, size) = ops::slugs::get(&context, &ticket.ticket).await?;
    let mut response = Body::from_stream(ReaderStream::with_capacity(file, 64 << 10)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

/// `GET /apps/{app}/slugs/{slug}`.
///
/// # Errors
/// When there is none or the database fails.
pub async fn info(State(context): State<Context>, member: Member, id: Identity) -> Result {
    let slug = ops::slugs::find(&context, member.app.id, &id).await?;
    Ok(Reply::ok(&wire(&context, slug)))
}

fn wire(context: &Context, slug: Slug) -> platform::slug::Slug {
    let (method, url) = ops::slugs::blob(context, &slug);
    platform::slug::Slug {
        blob: platform::slug::Blob { method: method.to_owned(), url },
        buildpack_provided_description: slug.buildpack_description,
        checksum: slug.checksum,
        commit: slug.commit,
        commit_description: slug.commit_description,
        created_at: rfc3339_seconds(slug.created_at),
        deleted_at: slug.deleted_at.map(rfc3339_seconds),
        id: slug.id.0,
        process_types: slug.process_types.into_iter().map(|(name, command)| (name.into(), command.into())).collect(),
        size: slug.size,
        stack: Named { id: ops::stacks::ID.0, name: slug.stack },
        updated_at: rfc3339_seconds(slug.updated_at),
    }
}
