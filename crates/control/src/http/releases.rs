//! `/apps/{app}/releases`.

use axum::{extract::State, response::IntoResponse};
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{
        Person, Reference,
        release::{Artifact, Release as View},
    },
};
use dozen_domain::release::Status;
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    apps,
    body::Json,
    member::{Identity, Member},
    page::{Key, Range, Sort},
};
use crate::{
    ops::{self, Error, releases::Change},
    state::Context,
    store::{apps::App, releases::Release},
};

const SORTS: &[Sort<Release>] =
    &[("version", |one| Key::Number(one.version.0.into())), ("id", |one| Key::Text(one.id.to_string()))];

/// `GET /apps/{app}/releases`
pub async fn list(State(context): State<Context>, member: Member, range: Range) -> Result<impl IntoResponse> {
    let some = ops::releases::list(&context, member.app.id, &range.window(SORTS)?).await?;
    Ok(range.page(some, SORTS)?.map(|one| view(&context, &one, &member.app)))
}

/// `GET /apps/{app}/releases/{release}`
pub async fn info(State(context): State<Context>, member: Member, Identity(release): Identity) -> Result {
    let one = ops::releases::find(&context, member.app.id, &release).await?;
    Ok(Reply::ok(&view(&context, &one, &member.app)))
}

/// Body of `POST /apps/{app}/releases`: a slug to release, or a release to roll back to.
#[derive(Debug, Default, Deserialize)]
pub struct New {
    slug: Option<String>,
    release: Option<String>,
    description: Option<String>,
}

/// `POST /apps/{app}/releases`
pub async fn create(State(context): State<Context>, member: Member, Json(new): Json<New>) -> Result {
    let change = change(&context, &member, new).await?;
    let one = ops::releases::create(&context, member.app.id, &member.account, change).await?;
    Ok(Reply::created(&view(&context, &one, &member.app)))
}

async fn change(context: &Context, member: &Member, new: New) -> Result<Change> {
    match (new.slug, new.release) {
        (Some(slug), _) => {
            let slug = slug.parse().map_err(|_| Error::NotFound("slug"))?;
            Ok(Change::Deploy { slug, description: new.description.filter(|text| !text.is_empty()) })
        }
        (None, Some(release)) => Ok(Change::Rollback(ops::releases::find(context, member.app.id, &release).await?.id)),
        (None, None) => Err(Error::invalid("Give a slug to release, or a release to roll back to.")),
    }
}

fn view(context: &Context, one: &Release, app: &App) -> View {
    let slug = one.slug.map(|slug| Reference { id: slug.0 });
    View {
        addon_plan_names: ops::addons::plan_names(&one.attachments),
        app: apps::named(app),
        artifacts: slug.iter().map(|slug| Artifact { kind: "slug".to_owned(), id: slug.id }).collect(),
        created_at: rfc3339_seconds(one.created_at),
        current: one.current,
        description: one.description.clone(),
        eligible_for_rollback: one.status == Status::Succeeded && one.slug_kept,
        id: one.id.0,
        output_stream_url: one.has_release_phase.then(|| ops::release_phase::output_url(context, one)),
        slug,
        status: one.status.as_str().to_owned(),
        updated_at: rfc3339_seconds(one.updated_at),
        user: Person { email: one.email.clone(), id: one.account.0 },
        version: one.version.0,
    }
}
