//! `GET /apps/{app}/collaborators`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// Somebody who works on an app; its owner is one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collaborator {
    /// Of which app.
    pub app: Named,
    /// Since when.
    pub created_at: String,
    /// Id.
    pub id: Uuid,
    /// What he may do.
    pub permissions: Vec<Permission>,
    /// `owner` or `collaborator`.
    pub role: Option<String>,
    /// When it was last changed.
    pub updated_at: String,
    /// Who.
    pub user: User,
}

/// One thing that somebody may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// `view`, `deploy`, `operate`, `manage`.
    pub name: String,
    /// In words.
    pub description: String,
}

/// A collaborator's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// E-mail.
    pub email: String,
    /// Signed in through somebody else; never here.
    pub federated: bool,
    /// Id.
    pub id: Uuid,
}
