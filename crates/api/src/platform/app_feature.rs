//! `GET /apps/{app}/features`, and `/account/features`, which look the same.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A feature that can be switched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// When it was first switched, or the thing it belongs to was made.
    pub created_at: String,
    /// What it does.
    pub description: String,
    /// For people.
    pub display_name: String,
    /// Where it is explained.
    pub doc_url: String,
    /// On or off.
    pub enabled: bool,
    /// Whom to ask.
    pub feedback_email: String,
    /// Id, the same for everyone.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// `general` (shown by `heroku features`) or `beta` (shown by `heroku labs`).
    pub state: String,
    /// When it was last switched.
    pub updated_at: String,
}
