//! `/apps/{app}/slugs`.

use axum::extract::State;
use dozen_api::{
    clock::rfc3339_seconds,
    platform::{self, Named},
};

use super::{
    answer::{Reply, Result},
    member::{Identity, Member},
};
use crate::{ops, state::Context, store::slugs::Slug};

/// `GET /apps/{app}/slugs/{slug}`.
///
/// # Errors
/// When there is none or the database fails.
pub async fn info(State(context): State<Context>, member: Member, id: Identity) -> Result {
    let slug = ops::slugs::find(&context, member.app.id, &id).await?;
    Ok(Reply::ok(&wire(&context, slug)))
}

fn wire(context: &Context, slug: Slug) -> platform::slug::Slug {
    let url = format!("{}/apps/{}/slugs/{}", context.settings.api_url, slug.app, slug.id);
    platform::slug::Slug {
        blob: platform::slug::Blob { method: "GET".to_owned(), url },
        buildpack_provided_description: slug.buildpack_description,
        checksum: slug.checksum,
        commit: slug.commit,
        commit_description: slug.commit_description,
        created_at: rfc3339_seconds(slug.created_at),
        deleted_at: slug.deleted_at.map(rfc3339_seconds),
        id: slug.id.0,
        process_types: slug.process_types.into_iter().map(|(name, command)| (name.into(), command.into())).collect(),
        size: slug.size,
        stack: Named { id: ops::stacks::ID.0, name: slug.stack },
        updated_at: rfc3339_seconds(slug.updated_at),
    }
}
