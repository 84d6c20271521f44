//! References to buildpacks, as people write them.

use serde::{Deserialize, Serialize};

/// Where a buildpack comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// One that is built in, by its name: `python`, `nodejs`, `rust`, `go`, `static`, `procfile`.
    BuiltIn(String),
    /// A git repository: its URL and, after `#`, a branch, tag or commit.
    Git {
        /// The repository's URL.
        url: String,
        /// Branch, tag or commit.
        revision: Option<String>,
    },
    /// A gzipped tarball.
    Tarball(String),
    /// A folder on the platform's machine.
    Path(String),
}
