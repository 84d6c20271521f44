//! `GET /apps/{app}/dynos`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// A dyno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dyno {
    /// Of which app.
    pub app: Named,
    /// Where a client attaches; null when none may.
    pub attach_url: Option<String>,
    /// Its command.
    pub command: String,
    /// When it was made.
    pub created_at: String,
    /// Id.
    pub id: Uuid,
    /// `web.1`.
    pub name: String,
    /// What it runs.
    pub release: Release,
    /// `Basic`.
    pub size: String,
    /// `starting`, `up`, `crashed`, `down`, `stopping`.
    pub state: String,
    /// Its process type, or `run`.
    #[serde(rename = "type")]
    pub process_type: String,
    /// When it entered this state.
    pub updated_at: String,
}

/// A dyno's release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Id.
    pub id: Uuid,
    /// Number.
    pub version: u32,
}
