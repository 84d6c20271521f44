//! `GET /apps/{app}/slugs/{slug}`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Named;

/// A slug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slug {
    /// Where its image is.
    pub blob: Blob,
    /// What the buildpacks call themselves.
    pub buildpack_provided_description: Option<String>,
    /// `SHA256:…` of the image's manifest.
    pub checksum: Option<String>,
    /// Commit of the source.
    pub commit: Option<String>,
    /// First line of its message.
    pub commit_description: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When its image was removed.
    pub deleted_at: Option<String>,
    /// Id.
    pub id: Uuid,
    /// Commands by process type, in the order of the Procfile.
    pub process_types: Map<String, Value>,
    /// Compressed size in bytes.
    pub size: Option<i64>,
    /// Its stack.
    pub stack: Named,
    /// When it last changed.
    pub updated_at: String,
}

/// A pointer to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// `GET`.
    pub method: String,
    /// Its address.
    pub url: String,
}
