//! `GET /stacks`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A system that apps run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// A fixed time.
    pub created_at: String,
    /// Whether new apps get it.
    pub default: bool,
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// `public`.
    pub state: String,
    /// A fixed time.
    pub updated_at: String,
}
