//! The buildpack registry, which the official client asks for a buildpack's address. It knows what is built in.
//!
//! Its answers are not in the schema; they are what the client reads (`@heroku/buildpack-registry`).

use axum::extract::Query;
use serde::Serialize;
use uuid::Uuid;

use super::{
    answer::{Reply, Result},
    member::Identity,
};
use crate::ops::{self, Error};

/// What the registry says of a buildpack.
#[derive(Debug, Serialize)]
struct Buildpack {
    id: Uuid,
    name: String,
    namespace: String,
    blob_url: String,
    description: String,
    status: &'static str,
    category: &'static str,
    support: Support,
    source: Source,
}

#[derive(Debug, Serialize)]
struct Support {
    method: &'static str,
}

#[derive(Debug, Serialize)]
struct Source {
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
struct Revision {
    id: Uuid,
    release: u32,
    license: &'static str,
    status: &'static str,
    created_at: &'static str,
}

/// An id that is the same everywhere: the name's bytes as a number.
fn id(full: &str) -> Uuid {
    Uuid::from_u128(full.bytes().fold(0, |sum: u128, byte| sum.wrapping_mul(257).wrapping_add(byte.into())))
}

fn view(full: &str) -> Buildpack {
    let (namespace, name) = full.split_once('/').unwrap_or(("heroku", full));
    Buildpack {
        id: id(full),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        blob_url: format!("urn:buildpack:{full}"),
        description: format!("{name}, built in"),
        status: "published",
        category: "languages",
        support: Support { method: "unsupported" },
        source: Source { r#type: "built_in" },
    }
}

fn find(wanted: &str) -> Result<String> {
    ops::buildpack_installations::registry().find(|full| full == wanted).ok_or(Error::NotFound("buildpack"))
}

/// `GET /buildpacks?in[namespace][]=heroku&in[name][]=python&like[description]=text`
pub async fn list(Query(filters): Query<Vec<(String, String)>>) -> Result {
    let any = |key: &str, value: &str| {
        let mut wanted = filters.iter().filter(|(name, _)| name.trim_end_matches("[]") == key).peekable();
        wanted.peek().is_none() || wanted.any(|(_, wanted)| wanted == value)
    };
    let like = |value: &str| filters.iter().all(|(name, text)| name != "like[description]" || value.contains(text));
    let all = ops::buildpack_installations::registry().map(|full| view(&full));
    let fits =
        |one: &Buildpack| any("in[namespace]", &one.namespace) && any("in[name]", &one.name) && like(&one.description);
    Ok(Reply::ok(&all.filter(fits).collect::<Vec<_>>()))
}

/// `GET /buildpacks/{buildpack}`
pub async fn info(Identity(wanted): Identity) -> Result {
    Ok(Reply::ok(&view(&find(&wanted)?)))
}

/// `GET /buildpacks/{buildpack}/revisions`: the one that this executable holds.
pub async fn revisions(Identity(wanted): Identity) -> Result {
    let id = id(&find(&wanted)?);
    let created_at = "2026-01-01T00:00:00Z";
    Ok(Reply::ok(&[Revision { id, release: 1, license: "Apache-2.0", status: "published", created_at }]))
}

/// `GET /buildpacks/{buildpack}/readme`: there is none.
pub async fn readme(Identity(wanted): Identity) -> Result {
    find(&wanted)?;
    Ok(Reply::ok(&serde_json::json!({})))
}
