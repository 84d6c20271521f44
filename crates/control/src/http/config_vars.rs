//! `/apps/{app}/config-vars`.

use axum::extract::State;
use serde_json::{Map, Value};

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Identity, Member},
};
use crate::{ops, state::Context};

/// `GET /apps/{app}/config-vars`
pub async fn info(State(context): State<Context>, member: Member) -> Result {
    Ok(Reply::ok(&ops::config::of_app(&context, member.app.id).await?))
}

/// `PATCH /apps/{app}/config-vars`
pub async fn update(State(context): State<Context>, member: Member, Json(changes): Json<Map<String, Value>>) -> Result {
    Ok(Reply::ok(&ops::config::change(&context, member.app.id, &member.account, changes).await?))
}

/// `GET /apps/{app}/releases/{release}/config-vars`
pub async fn of_release(State(context): State<Context>, member: Member, Identity(release): Identity) -> Result {
    let release = ops::releases::find(&context, member.app.id, &release).await?;
    Ok(Reply::ok(&ops::releases::config(&context, &release)?))
}
