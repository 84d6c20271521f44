//! Wire shapes of the Platform API, one file a resource: what `schema.json` says, as types.
//!
//! Control fills them in, clients may read them. Times are text (`2026-11-22T10:11:12Z`). What a shape must be, the tests
//! of the control crate check against `crates/api/schema.json`; where the official client wants something else, the list
//! of differences is in `crates/control/tests/it/schema.rs`. No rules here.

pub mod account;
pub mod addon;
pub mod app;
pub mod app_feature;
pub mod build;
pub mod buildpack_installation;
pub mod collaborator;
pub mod cron_job;
pub mod domain;
pub mod dyno;
pub mod dyno_size;
pub mod error;
pub mod formation;
pub mod log_drain;
pub mod log_session;
pub mod monitor;
pub mod oauth_authorization;
pub mod region;
pub mod release;
pub mod slug;
pub mod sni_endpoint;
pub mod source;
pub mod stack;
pub mod telemetry_drain;
pub mod usage;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A reference to something by id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// A reference to something that has only an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its id.
    pub id: Uuid,
}

/// A reference to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// E-mail.
    pub email: String,
    /// The account's id.
    pub id: Uuid,
}
