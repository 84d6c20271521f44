//! The Platform API over HTTP. [`routes`] is the whole table; a file per resource holds its handlers, which extract,
//! authorise, call one operation and convert.
//!
//! Conventions that hold for all: [`conventions`] (request ids, credentials, rate limit, ETags), [`answer`] (bodies and
//! errors), [`page`] (`Range`), [`member`] (who may see which app), [`body`] (JSON in).

pub mod account;
pub mod acm;
pub mod addons;
pub mod answer;
pub mod apps;
pub mod authorizations;
pub mod body;
pub mod buildpack_installations;
pub mod builds;
pub mod collaborators;
pub mod config_vars;
pub mod conventions;
pub mod cron_jobs;
pub mod domains;
pub mod dyno_sizes;
pub mod dynos;
pub mod elsewhere;
pub mod exec;
pub mod features;
pub mod formation;
pub mod log_drains;
pub mod log_sessions;
pub mod member;
pub mod monitors;
pub mod page;
pub mod regions;
pub mod registry;
pub mod releases;
pub mod routes;
pub mod slugs;
pub mod sni_endpoints;
pub mod sources;
pub mod stacks;
pub mod streams;
pub mod telemetry_drains;
pub mod usage;
