//! Dynos.

pub(super) mod list;
pub(super) mod scale;
