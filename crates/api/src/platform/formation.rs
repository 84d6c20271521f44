//! `GET /apps/{app}/formation`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// Wanted quantity and size of one process type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formation {
    /// Of which app.
    pub app: Named,
    /// Its command.
    pub command: String,
    /// When the process type appeared.
    pub created_at: String,
    /// Its size.
    pub dyno_size: Named,
    /// Id.
    pub id: Uuid,
    /// How many.
    pub quantity: u32,
    /// Its size's name.
    pub size: String,
    /// The process type.
    #[serde(rename = "type")]
    pub process_type: String,
    /// When it was last scaled.
    pub updated_at: String,
}
