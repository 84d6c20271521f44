//! `/apps/{app}/slugs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Named;

/// A slug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slug {
    /// Where its archive is, or is to be put.
    pub blob: Blob,
    /// What the buildpacks call themselves.
    pub buildpack_provided_description: Option<String>,
    /// `SHA256:…` of the archive, for a slug that came as one.
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

/// A pointer to an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// `GET`, or `PUT` while there is none.
    pub method: String,
    /// Its address.
    pub url: String,
}
