//! `GET /oauth/authorizations`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Reference;

/// A permission to use the API, with its token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// Its token.
    pub access_token: AccessToken,
    /// Always null: tokens are made directly.
    pub client: Option<Reference>,
    /// When it was made.
    pub created_at: String,
    /// What for; empty when nothing was said.
    pub description: String,
    /// Always null.
    pub grant: Option<Reference>,
    /// Id.
    pub id: Uuid,
    /// Always null: tokens are not refreshed but made anew.
    pub refresh_token: Option<AccessToken>,
    /// What it permits.
    pub scope: Vec<String>,
    /// Always null: no browser sessions.
    pub session: Option<Reference>,
    /// When it was last changed.
    pub updated_at: String,
    /// Whose.
    pub user: User,
}

/// A token. It is whole in the answer that made it, and has stars in its middle later.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Seconds until it ends; null: never.
    pub expires_in: Option<i64>,
    /// Id.
    pub id: Uuid,
    /// The token.
    pub token: String,
}

/// An authorization's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// E-mail.
    pub email: String,
    /// Full name.
    pub full_name: Option<String>,
    /// Id.
    pub id: Uuid,
}
