//! The rules of the platform: one file a noun. An operation checks, runs one transaction, writes the `app[api]` line and
//! nudges the reconcilers. It knows nothing of HTTP.

pub mod accounts;
pub mod apps;
pub mod builds;
pub mod environment;
pub mod error;
pub mod fetch;
pub mod ledger;
pub mod output;
pub mod regions;
pub mod release_phase;
pub mod releases;
pub mod slugs;
pub mod sources;
pub mod stacks;

pub use error::{Error, Result};
