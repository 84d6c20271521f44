//! `GET /account`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// One's own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// May be tracked.
    pub allow_tracking: bool,
    /// Sees beta features.
    pub beta: bool,
    /// Not asked for here.
    pub country_of_residence: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Teams do not exist here.
    pub default_organization: Option<Named>,
    /// Teams do not exist here.
    pub default_team: Option<Named>,
    /// Nobody pays here.
    pub delinquent_at: Option<String>,
    /// E-mail.
    pub email: String,
    /// Signed in through somebody else; never here.
    pub federated: bool,
    /// Id.
    pub id: Uuid,
    /// Always null: no identity provider.
    pub identity_provider: Option<Named>,
    /// Last login with e-mail and password.
    pub last_login: Option<String>,
    /// Full name.
    pub name: Option<String>,
    /// Not asked for here.
    pub sms_number: Option<String>,
    /// When the operator suspended it.
    pub suspended_at: Option<String>,
    /// Whether a second factor is asked for.
    pub two_factor_authentication: bool,
    /// When it was last changed.
    pub updated_at: String,
    /// Whether it may be charged; always true here.
    pub verified: bool,
}

/// `GET /account/rate-limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Calls left.
    pub remaining: u64,
}
