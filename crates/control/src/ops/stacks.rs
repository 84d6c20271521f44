//! Stacks. There is one: the machine's own system, reported as `heroku-24`.

use dozen_domain::ids::StackId;
use uuid::Uuid;

use super::{Error, Result, apps::STACK};

/// The stack's id: fixed, so that every installation and every start answers the same.
pub const ID: StackId = StackId(Uuid::from_u128(0x5f3a_c2d8_7b1e_4f60_9a4d_2e8c_1b07_d324));

/// Accepts the one stack by name or id, or none named.
///
/// # Errors
/// When another one is asked for.
pub fn check(identity: Option<&str>) -> Result<()> {
    match identity {
        None => Ok(()),
        Some(identity) if identity == STACK || identity == ID.to_string() => Ok(()),
        Some(other) => Err(Error::Invalid(format!("Stack {other} does not exist here. Use {STACK}."))),
    }
}
