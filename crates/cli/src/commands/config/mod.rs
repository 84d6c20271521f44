//! Config vars.

pub(super) mod set;
pub(super) mod show;
