//! `/regions`.

use dozen_api::platform::{
    Named,
    region::{Provider, Region},
};

use super::{
    answer::{Reply, Result},
    member::Identity,
};
use crate::ops::{
    Error,
    regions::{ID, REGION},
};

/// `GET /regions`
pub async fn list() -> Result {
    Ok(Reply::ok(&[view()]))
}

/// `GET /regions/{region}`
pub async fn info(Identity(wanted): Identity) -> Result {
    if wanted == REGION || wanted == ID.to_string() { Ok(Reply::ok(&view())) } else { Err(Error::NotFound("region")) }
}

/// A reference to the one region.
pub fn named() -> Named {
    Named { id: ID.0, name: REGION.to_owned() }
}

fn view() -> Region {
    // The schema lets a provider's region be one of a list only; the name that belongs to `us` is this one.
    let provider = Provider { name: "dozen".to_owned(), region: "us-east-1".to_owned() };
    Region {
        country: "This machine".to_owned(),
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        description: "This machine".to_owned(),
        id: ID.0,
        locale: "Here".to_owned(),
        name: REGION.to_owned(),
        private_capable: false,
        provider,
        updated_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}
