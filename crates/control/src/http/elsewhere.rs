//! What the official client asks in passing and what Heroku keeps on other hosts: answers that are true for a platform
//! without teams and pipelines; the schema; the state of the platform.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{
    answer::{Reply, Result},
    member::Member,
};
use crate::ops::Error;

/// The schema of heroku/platform-api (MIT licence), as it is.
const SCHEMA: &str = include_str!("../../../api/schema.json");

/// A list of something that nobody has here: teams, enterprise accounts.
pub async fn none() -> Result {
    Ok(Reply::ok(&[(); 0]))
}

/// A list of something that no app has here: webhooks.
pub async fn none_of_app(_: Member) -> Result {
    Ok(Reply::ok(&[(); 0]))
}

/// `GET /apps/{app}/pipeline-couplings`: one object, which there is none of.
pub async fn no_coupling(_: Member) -> Result {
    Err(Error::NotFound("pipeline_coupling"))
}

/// The log drains of an add-on: those that there are have none.
pub async fn no_addon() -> Result {
    Err(Error::NotFound("add_on"))
}

/// `GET /schema`
pub async fn schema() -> Response {
    let kind = HeaderValue::from_static("application/schema+json");
    ([(header::CONTENT_TYPE, kind)], SCHEMA).into_response()
}

/// `GET /api/v4/current-status` of the status host: that this answers is the news.
pub async fn status() -> Result {
    let systems = ["Apps", "Data", "Tools"].map(|system| json!({"system": system, "status": "green"}));
    Ok(Reply::ok(&json!({"status": systems, "incidents": [], "scheduled": []})))
}

/// Whatever is not in the table. Heroku's words, which also cover a wrong method.
pub async fn unknown() -> Response {
    let message = "The requested API endpoint was not found. Are you using the right HTTP verb (i.e. `GET` vs. `POST`), \
                   and did you specify your intended version with the `Accept` header?";
    let body = json!({"id": "not_found", "message": message});
    Reply::with(StatusCode::NOT_FOUND, &body).into_response()
}
