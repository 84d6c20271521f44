//! `/apps/{app}/buildpack-installations`, and the registry that the client asks for a buildpack's address.

use axum::extract::State;
use dozen_api::platform::buildpack_installation::{Buildpack, BuildpackInstallation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Identity, Member},
};
use crate::{
    ops::{self, Error},
    state::Context,
    store::buildpack_installations::Installation,
};

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
    buildpack: String,
}

/// `PUT /apps/{app}/buildpack-installations`
pub async fn replace(State(context): State<Context>, member: Member, Json(body): Json<Updates>) -> Result {
    let wished: Vec<String> = body.updates.into_iter().map(|update| update.buildpack).collect();
    Ok(Reply::ok(&view(&ops::buildpack_installations::replace(&context, &member.app, &wished).await?)))
}

fn view(installations: &[Installation]) -> Vec<BuildpackInstallation> {
    let one = |(ordinal, one): (u32, &Installation)| BuildpackInstallation {
        ordinal,
        buildpack: Buildpack { url: one.url.clone(), name: one.name.clone() },
    };
    (0..).zip(installations).map(one).collect()
}

/// What the registry says of a buildpack; its form is not in the schema but read by the official client.
#[derive(Debug, Serialize)]
struct Registered {
    id: Uuid,
    name: String,
    namespace: String,
    blob_url: String,
    description: String,
    status: &'static str,
    category: &'static str,
    support: Support,
}

#[derive(Debug, Serialize)]
struct Support {
    method: &'static str,
    value: &'static str,
}

fn registered(full: &str) -> Registered {
    let (namespace, name) = full.split_once('/').unwrap_or(("heroku", full));
    Registered {
        id: Uuid::from_u128(full.bytes().fold(0, |sum: u128, byte| sum.wrapping_mul(257) + u128::from(byte))),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        blob_url: format!("urn:buildpack:{full}"),
        description: format!("Built in: {name}"),
        status: "published",
        category: "languages",
        support: Support { method: "unsupported", value: "" },
    }
}

/// `GET /buildpacks` of the registry
pub async fn registry() -> Result {
    let all: Vec<Registered> = ops::buildpack_installations::registry().map(|full| registered(&full)).collect();
    Ok(Reply::ok(&all))
}

/// `GET /buildpacks/{buildpack}` of the registry
pub async fn registry_info(Identity(wanted): Identity) -> Result {
    let found = ops::buildpack_installations::registry().find(|full| *full == wanted);
    Ok(Reply::ok(&registered(&found.ok_or(Error::NotFound("buildpack"))?)))
}
