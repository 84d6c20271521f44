//! `POST /apps/{app}/log-sessions`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A log session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSession {
    /// When it was made.
    pub created_at: String,
    /// Id.
    pub id: Uuid,
    /// Where lines stream from; it carries its own secret.
    pub logplex_url: String,
    /// When it was made.
    pub updated_at: String,
}
