//! `/apps/{app}/acm`: certificates that the platform gets and renews.

use axum::extract::State;

use super::{
    answer::{Reply, Result},
    apps,
    member::Member,
};
use crate::{ops, state::Context};

/// `POST /apps/{app}/acm`
pub async fn enable(State(context): State<Context>, member: Member) -> Result {
    let app = ops::managed::enable(&context, &member.app, &member.account).await?;
    Ok(Reply::ok(&apps::view(&context, &app)))
}

/// `DELETE /apps/{app}/acm`
pub async fn disable(State(context): State<Context>, member: Member) -> Result {
    let app = ops::managed::disable(&context, &member.app, &member.account).await?;
    Ok(Reply::ok(&apps::view(&context, &app)))
}

/// `PATCH /apps/{app}/acm`
pub async fn refresh(State(context): State<Context>, member: Member) -> Result {
    let app = ops::managed::refresh(&context, &member.app, &member.account).await?;
    Ok(Reply::ok(&apps::view(&context, &app)))
}
