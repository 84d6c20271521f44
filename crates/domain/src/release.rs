//! Releases: their numbers, states and the sentences that describe them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A release's number within its app, from 1: `v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('v').unwrap_or(text).parse().map(Self)
    }
}

/// How a release ended. It never leaves `Succeeded` or `Failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its release phase has not ended.
    Pending,
    /// It is or was in force.
    Succeeded,
    /// Its release phase failed; it never was in force.
    Failed,
}

impl Status {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// No status has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no release status is called {0}")]
pub struct UnknownStatus(pub String);

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        [Self::Pending, Self::Succeeded, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// Why a release was made: the source of its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The app was made.
    Initial,
    /// Its log stream was set up, right after.
    EnableLogplex,
    /// A slug was deployed; its commit, if known.
    Deploy {
        /// Commit of the source, of any length.
        commit: Option<String>,
    },
    /// Config vars changed. Names in the order in which they were given.
    Config {
        /// Set or changed.
        set: Vec<String>,
        /// Removed.
        removed: Vec<String>,
    },
    /// An earlier release was put in force again.
    Rollback {
        /// Which.
        to: Version,
    },
    /// The platform itself went back, because a release's web dynos never came up.
    Return {
        /// The release that served meanwhile.
        to: Version,
        /// The one that did not come up.
        from: Version,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initial => f.write_str("Initial release"),
            Self::EnableLogplex => f.write_str("Enable Logplex"),
            Self::Deploy { commit: None } => f.write_str("Deploy"),
            // Heroku shows the first eight characters of the commit.
            Self::Deploy { commit: Some(commit) } => {
                write!(f, "Deploy {}", commit.chars().take(8).collect::<String>())
            }
            Self::Config { set, removed } => match (set.is_empty(), removed.is_empty()) {
                (_, true) => write!(f, "Set {} config vars", set.join(", ")),
                (true, _) => write!(f, "Remove {} config vars", removed.join(", ")),
                (false, false) => {
                    write!(f, "Set {} and remove {} config vars", set.join(", "), removed.join(", "))
                }
            },
            Self::Rollback { to } => write!(f, "Rollback to {to}"),
            Self::Return { to, from } => write!(f, "Return to {to}: {from} did not come up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_described_in_herokus_words() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let check = |cause: Cause, expected: &str| assert_eq!(cause.to_string(), expected);
        check(Cause::Initial, "Initial release");
        check(Cause::EnableLogplex, "Enable Logplex");
        check(Cause::Deploy { commit: Some("2c3a0b2e1f0d".to_owned()) }, "Deploy 2c3a0b2e");
        check(Cause::Deploy { commit: None }, "Deploy");
        check(Cause::Config { set: names(&["FOO", "BAR"]), removed: vec![] }, "Set FOO, BAR config vars");
        check(Cause::Config { set: vec![], removed: names(&["FOO"]) }, "Remove FOO config vars");
        check(Cause::Rollback { to: Version(102) }, "Rollback to v102");
        check(Cause::Return { to: Version(12), from: Version(13) }, "Return to v12: v13 did not come up");
    }

    #[test]
    fn a_version_is_written_with_or_without_its_letter() {
        assert_eq!("v12".parse(), Ok(Version(12)));
        assert_eq!("12".parse(), Ok(Version(12)));
        assert!("x12".parse::<Version>().is_err());
    }
}
