//! `GET /regions`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where apps run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Country.
    pub country: String,
    /// A fixed time.
    pub created_at: String,
    /// In words.
    pub description: String,
    /// Id.
    pub id: Uuid,
    /// Place.
    pub locale: String,
    /// Name.
    pub name: String,
    /// Always false: spaces do not exist here.
    pub private_capable: bool,
    /// Whose machines.
    pub provider: Provider,
    /// A fixed time.
    pub updated_at: String,
}

/// Whose machines a region has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Name.
    pub name: String,
    /// The provider's name for it.
    pub region: String,
}
