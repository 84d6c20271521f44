//! Config vars: what an app is told by its environment. Values are secrets.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// A value that must not be printed: `Debug` shows nothing, and there is no `Display`.
///
/// Serialising it writes the value, because it has to reach the dyno and the owner's API client; what is written to
/// disk must be encrypted first.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Hands out the value. Each call is a place where a secret leaves its type.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Environment variables by name, sorted.
pub type Vars = BTreeMap<String, Secret>;
