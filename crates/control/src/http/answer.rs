//! Answers: JSON bodies with an ETag, and errors in Heroku's form.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use dozen_api::platform;
use http::{HeaderValue, StatusCode, header};
use ring::digest;
use serde::Serialize;

use crate::ops::Error;

/// What a handler answers.
pub type Result<T = Reply> = std::result::Result<T, Error>;

/// A JSON body with a status.
#[derive(Debug)]
pub struct Reply {
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Reply {
    /// 200 with a value.
    pub fn ok(value: &impl Serialize) -> Self {
        Self::with(StatusCode::OK, value)
    }

    /// 201 with what was made.
    pub fn created(value: &impl Serialize) -> Self {
        Self::with(StatusCode::CREATED, value)
    }

    /// 202 with an empty object: it will happen.
    pub fn accepted() -> Self {
        Self { status: StatusCode::ACCEPTED, body: Bytes::from_static(b"{}") }
    }

    /// Any status with a value.
    pub fn with(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self { status, body: body.into() },
            // Only a map with keys that are no text, or a failing serializer, gets here; wire shapes have neither.
            Err(_) => Self { status: StatusCode::INTERNAL_SERVER_ERROR, body: Bytes::from_static(b"{}") },
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let digest = digest::digest(&digest::SHA256, &self.body);
        let etag = format!("\"{}\"", HEXLOWER.encode(&digest.as_ref()[..16]));
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.is_ours() {
            tracing::error!(error = &self as &dyn std::error::Error, "request failed");
        }
        let answer = self.answer();
        let body = platform::error::Error {
            id: answer.id.to_owned(),
            message: answer.message,
            resource: answer.resource.map(str::to_owned),
            url: None,
        };
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Reply::with(status, &body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"Dozen\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}
