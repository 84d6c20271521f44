//! The rules of the platform: one file a noun. An operation checks, runs one transaction, writes the `app[api]` line and
//! nudges the reconcilers. It knows nothing of HTTP.

pub mod accounts;
pub mod addons;
pub mod apps;
pub mod authorizations;
pub mod buildpack_installations;
pub mod builds;
pub mod collaborators;
pub mod config;
pub mod cron_jobs;
pub mod domains;
pub mod drains;
pub mod dynos;
pub mod environment;
pub mod error;
pub mod exec;
pub mod features;
pub mod fetch;
pub mod formation;
pub mod ledger;
pub mod log_drains;
pub mod log_sessions;
pub mod managed;
pub mod monitors;
pub mod number;
pub mod output;
pub mod regions;
pub mod release_phase;
pub mod releases;
pub mod rollout;
pub mod room;
pub mod slugs;
pub mod sni_endpoints;
pub mod sources;
pub mod stacks;
pub mod telemetry_drains;
mod upload;
pub mod usage;

pub use error::{Error, Result};
