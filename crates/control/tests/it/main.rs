//! The control role from outside: HTTP and git in, answers out, with a real database and an engine and builds that do
//! what the test says. [`api`] is a platform without sockets for the Platform API, [`server`] one with them for git.

mod access;
mod accounts;
mod addons;
mod api;
mod apps;
mod attach;
mod authorizations;
mod autoscaling;
mod certificates;
mod code;
mod config_vars;
mod conventions;
mod cron;
mod domains;
mod drains;
mod exec;
mod fetching;
mod ledger;
mod listening;
mod log_sessions;
mod processes;
mod push;
mod reconcile;
mod releases;
mod schema;
mod server;
mod slugs;
mod upkeep;
mod usage;
