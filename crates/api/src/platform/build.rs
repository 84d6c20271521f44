//! `GET /apps/{app}/builds`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Person, Reference};

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Of which app.
    pub app: Reference,
    /// Buildpacks that were asked for; null: the app's own or detected ones.
    pub buildpacks: Option<Vec<Buildpack>>,
    /// When it began.
    pub created_at: String,
    /// `cedar`.
    pub generation: String,
    /// Id.
    pub id: Uuid,
    /// Where its output streams from, without credentials.
    pub output_stream_url: String,
    /// The release that followed; null before it.
    pub release: Option<Reference>,
    /// What it made; null before that.
    pub slug: Option<Reference>,
    /// What was built.
    pub source_blob: SourceBlob,
    /// Name of its stack.
    pub stack: String,
    /// `pending`, `succeeded`, `failed`.
    pub status: String,
    /// When it last changed.
    pub updated_at: String,
    /// Who asked for it.
    pub user: Person,
}

/// A buildpack of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buildpack {
    /// Its address or name.
    pub url: String,
    /// Its name.
    pub name: String,
}

/// The source of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBlob {
    /// `SHA256:…` that it must have.
    pub checksum: Option<String>,
    /// Where it came from.
    pub url: String,
    /// Commit, or what the client calls it.
    pub version: Option<String>,
    /// What the client says of it.
    pub version_description: Option<String>,
}
