//! `/dyno-sizes`.

use axum::response::IntoResponse;
use dozen_api::platform::{Named, dyno_size::DynoSize};
use dozen_domain::size::Size;
use uuid::Uuid;

use super::{
    answer::{Reply, Result},
    apps,
    member::{Identity, Member},
    page::{Key, Range, Sort},
};
use crate::ops::Error;

const SORTS: &[Sort<Size>] =
    &[("name", |size| Key::from(size.name())), ("id", |size| Key::Text(named(*size).id.to_string()))];

/// `GET /dyno-sizes`
pub async fn list(range: Range) -> Result<impl IntoResponse> {
    Ok(range.page(Size::ALL.to_vec(), SORTS)?.map(view))
}

/// `GET /apps/{app}/available-dyno-sizes`
pub async fn of_app(_: Member, range: Range) -> Result<impl IntoResponse> {
    list(range).await
}

/// `GET /dyno-sizes/{size}`
pub async fn info(Identity(wanted): Identity) -> Result {
    let by_id = Size::ALL.into_iter().find(|size| named(*size).id.to_string() == wanted);
    let size = by_id.or_else(|| wanted.parse().ok()).ok_or(Error::NotFound("dyno_size"))?;
    Ok(Reply::ok(&view(size)))
}

/// A reference to a size; ids are fixed.
pub fn named(size: Size) -> Named {
    let n = Size::ALL.into_iter().position(|other| other == size).unwrap_or_default() as u128;
    Named { id: Uuid::from_u128(0x7d5e_02a4_91c3_4b18_8a60_0000_0000_0000 + n), name: size.name().to_owned() }
}

fn view(size: Size) -> DynoSize {
    let quota = size.quota();
    let Named { id, name } = named(size);
    DynoSize {
        architecture: "amd64".to_owned(),
        compute: (quota.cpu_shares / 1024).max(1),
        cost: None,
        dedicated: false,
        generation: apps::generation(),
        id,
        memory: quota.memory as f64 / f64::from(1 << 30),
        name,
        precise_dyno_units: 0.0,
        private_space_only: false,
    }
}
