//! Apps.

pub(super) mod create;
pub(super) mod destroy;
pub(super) mod info;
pub(super) mod list;
pub(super) mod open;

use serde::Deserialize;

/// The fields of an app that are shown.
#[derive(Debug, Deserialize)]
struct App {
    name: String,
    web_url: Option<String>,
    git_url: String,
    maintenance: bool,
    stack: Named,
    owner: Owner,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Owner {
    email: String,
}
