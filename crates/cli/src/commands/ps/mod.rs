//! Dynos.

pub(super) mod list;
pub(super) mod restart;
pub(super) mod scale;
