//! The whole route table of the API.

use axum::{Router, routing::get};

use crate::state::Context;

/// Every route.
pub fn table(context: Context) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).with_state(context)
}
