//! `/stacks`.

use dozen_api::platform::{Named, stack::Stack};

use super::{
    answer::{Reply, Result},
    member::{Identity, Member},
};
use crate::ops::{Error, apps::STACK, stacks::ID};

/// `GET /stacks`
pub async fn list() -> Result {
    Ok(Reply::ok(&[view()]))
}

/// `GET /apps/{app}/available-stacks`
pub async fn of_app(_: Member) -> Result {
    list().await
}

/// `GET /stacks/{stack}`
pub async fn info(Identity(wanted): Identity) -> Result {
    if wanted == STACK || wanted == ID.to_string() { Ok(Reply::ok(&view())) } else { Err(Error::NotFound("stack")) }
}

/// A reference to the one stack.
pub fn named() -> Named {
    Named { id: ID.0, name: STACK.to_owned() }
}

fn view() -> Stack {
    Stack {
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        default: true,
        id: ID.0,
        name: STACK.to_owned(),
        state: "public".to_owned(),
        updated_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}
