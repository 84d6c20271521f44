//! `/apps/{app}/buildpack-installations`.

use axum::extract::State;
use dozen_api::platform::buildpack_installation::{Buildpack, BuildpackInstallation};
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::Member,
};
use crate::{ops, state::Context, store::buildpack_installations::Installation};

/// `GET /apps/{app}/buildpack-installations`
pub async fn list(State(context): State<Context>, member: Member) -> Result {
    Ok(Reply::ok(&view(&ops::buildpack_installations::list(&context, &member.app).await?)))
}

/// Body of `PUT /apps/{app}/buildpack-installations`.
#[derive(Debug, Deserialize)]
pub struct Updates {
    updates: Vec<Update>,
}

#[derive(Debug, Deserialize)]
struct Update {
    /// Missing when the client asked the registry for a name that it does not know: it goes on all the same.
    buildpack: Option<String>,
}

/// `PUT /apps/{app}/buildpack-installations`
pub async fn replace(State(context): State<Context>, member: Member, Json(body): Json<Updates>) -> Result {
    let named = |update: Update| update.buildpack.ok_or_else(ops::buildpack_installations::unknown);
    let wished = body.updates.into_iter().map(named).collect::<ops::Result<Vec<_>>>()?;
    Ok(Reply::ok(&view(&ops::buildpack_installations::replace(&context, &member.app, &wished).await?)))
}

fn view(installations: &[Installation]) -> Vec<BuildpackInstallation> {
    let one = |(ordinal, one): (u32, &Installation)| BuildpackInstallation {
        ordinal,
        buildpack: Buildpack { url: one.url.clone(), name: one.name.clone() },
    };
    (0..).zip(installations).map(one).collect()
}
