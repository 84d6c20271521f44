//! `GET /apps/{app}/log-drains`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// A log drain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDrain {
    /// The add-on that made it; null for one that a person added.
    pub addon: Option<Named>,
    /// Whose.
    pub app: Named,
    /// When it was added.
    pub created_at: String,
    /// Id.
    pub id: Uuid,
    /// `d.` and a UUID: what the receiver is told.
    pub token: String,
    /// When it was last changed.
    pub updated_at: String,
    /// Where to, with its password.
    pub url: String,
}
