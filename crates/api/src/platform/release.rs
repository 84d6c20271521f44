//! `GET /apps/{app}/releases`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Named, Person, Reference};

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Plans of the add-ons that were attached.
    pub addon_plan_names: Vec<String>,
    /// Of which app.
    pub app: Named,
    /// What it was made from.
    pub artifacts: Vec<Artifact>,
    /// When it was made.
    pub created_at: String,
    /// Whether it is in force.
    pub current: bool,
    /// `Deploy 2c3a0b2e`.
    pub description: String,
    /// Whether one may roll back to it.
    pub eligible_for_rollback: bool,
    /// Id.
    pub id: Uuid,
    /// Where the output of its release phase streams from; null without one.
    pub output_stream_url: Option<String>,
    /// What runs; null before the first deploy.
    pub slug: Option<Reference>,
    /// `succeeded`, `pending`, `failed`.
    pub status: String,
    /// When it ended.
    pub updated_at: String,
    /// Who made it.
    pub user: Person,
    /// Number.
    pub version: u32,
}

/// Something that a release was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `slug`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id.
    pub id: Uuid,
}
