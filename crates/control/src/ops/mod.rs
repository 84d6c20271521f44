//! The rules of the platform: one file a noun. An operation checks, runs one transaction, writes the `app[api]` line and
//! nudges the reconcilers. It knows nothing of HTTP.

pub mod accounts;
pub mod apps;
pub mod error;
pub mod ledger;
pub mod regions;
pub mod releases;
pub mod stacks;

pub use error::{Error, Result};
