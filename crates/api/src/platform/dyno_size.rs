//! `GET /dyno-sizes`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// A dyno size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DynoSize {
    /// CPU architecture.
    pub architecture: String,
    /// Least virtual CPUs.
    pub compute: u64,
    /// Always null: nobody pays here.
    pub cost: Option<serde_json::Value>,
    /// Whether it has cores of its own.
    pub dedicated: bool,
    /// `cedar`.
    pub generation: Named,
    /// Id.
    pub id: Uuid,
    /// Memory in GB.
    pub memory: f64,
    /// Name.
    pub name: String,
    /// Unit of consumption; nothing is counted.
    pub precise_dyno_units: f64,
    /// Always false: spaces do not exist here.
    pub private_space_only: bool,
}
