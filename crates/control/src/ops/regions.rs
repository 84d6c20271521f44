//! Regions. There is one: this machine, under the name that clients choose by default.

use dozen_domain::ids::RegionId;
use uuid::Uuid;

use super::{Error, Result};

/// Its name.
pub const REGION: &str = "us";

/// The region's id: fixed, so that every installation and every start answers the same.
pub const ID: RegionId = RegionId(Uuid::from_u128(0x9d41_7e36_0c52_4ab8_8f17_63b0_e5d2_a901));

/// Accepts the one region by name or id, or none named.
///
/// # Errors
/// When another one is asked for.
pub fn check(identity: Option<&str>) -> Result<()> {
    match identity {
        None => Ok(()),
        Some(identity) if identity == REGION || identity == ID.to_string() => Ok(()),
        Some(other) => Err(Error::Invalid(format!("Region {other} does not exist here. Use {REGION}."))),
    }
}
