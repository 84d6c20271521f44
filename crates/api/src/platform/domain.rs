//! `GET /apps/{app}/domains`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// A host name that leads to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// State of its managed certificate; null without one.
    pub acm_status: Option<String>,
    /// Why that is so.
    pub acm_status_reason: Option<String>,
    /// Of which app.
    pub app: Named,
    /// Where its DNS record should point; null for the app's own.
    pub cname: Option<String>,
    /// When it was added.
    pub created_at: String,
    /// The name.
    pub hostname: String,
    /// Id.
    pub id: Uuid,
    /// `heroku` (the app's own) or `custom`.
    pub kind: String,
    /// Its certificate; null without one.
    pub sni_endpoint: Option<Named>,
    /// `none`: nothing is left to do, requests are routed.
    pub status: String,
    /// When it was last changed.
    pub updated_at: String,
}
