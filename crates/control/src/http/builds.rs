//! `/apps/{app}/builds`, `/apps/{app}/build-cache`.

use axum::extract::State;
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{self, Person, Reference},
};

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Identity, Member},
    page::{Key, Page, Range, Sort},
};
use crate::{
    ops::{self, builds::New},
    state::Context,
    store::builds::Build,
};

const SORTS: &[Sort<Build>] = &[
    ("started_at", |build| Key::Number(u64::try_from(build.created_at).unwrap_or_default())),
    ("id", |build| Key::Text(build.id.to_string())),
];

/// `POST /apps/{app}/builds`.
///
/// # Errors
/// As [`ops::builds::create`].
pub async fn create(State(context): State<Context>, member: Member, Json(new): Json<New>) -> Result {
    let build = ops::builds::create(&context, &member.account, &member.app, new).await?;
    Ok(Reply::created(&wire(&context, &build)))
}

/// `GET /apps/{app}/builds`.
///
/// # Errors
/// When the range makes no sense or the database fails.
pub async fn list(
    State(context): State<Context>,
    member: Member,
    range: Range,
) -> ops::Result<Page<platform::build::Build>> {
    let builds = ops::builds::list(&context, member.app.id, &range.window(SORTS)?).await?;
    Ok(range.page(builds, SORTS)?.map(|build| wire(&context, &build)))
}

/// `GET /apps/{app}/builds/{build}`.
///
/// # Errors
/// When there is none or the database fails.
pub async fn info(State(context): State<Context>, member: Member, id: Identity) -> Result {
    let build = ops::builds::find(&context, member.app.id, &id).await?;
    Ok(Reply::ok(&wire(&context, &build)))
}

/// `DELETE /apps/{app}/build-cache`.
///
/// # Errors
/// When the artefact store fails.
pub async fn purge_cache(State(context): State<Context>, member: Member) -> Result {
    ops::builds::purge_cache(&context, member.app.id).await?;
    Ok(Reply::ok(&serde_json::json!({})))
}

fn wire(context: &Context, build: &Build) -> platform::build::Build {
    let buildpack = |url: &String| platform::build::Buildpack { url: url.clone(), name: url.clone() };
    let buildpacks: Vec<_> = build.buildpacks.iter().map(buildpack).collect();
    platform::build::Build {
        app: Reference { id: build.app.0 },
        buildpacks: (!buildpacks.is_empty()).then_some(buildpacks),
        created_at: rfc3339_seconds(build.created_at),
        generation: "cedar".to_owned(),
        id: build.id.0,
        output_stream_url: ops::builds::output_url(context, build),
        release: build.release.map(|release| Reference { id: release.0 }),
        slug: build.slug.map(|slug| Reference { id: slug.0 }),
        source_blob: platform::build::SourceBlob {
            checksum: build.source_checksum.clone(),
            url: build.source_url.clone(),
            version: build.source_version.clone(),
            version_description: build.source_version_description.clone(),
        },
        stack: build.stack.clone(),
        status: build.status.as_str().to_owned(),
        updated_at: rfc3339_seconds(build.updated_at),
        user: Person { email: build.email.clone(), id: build.account.0 },
    }
}
