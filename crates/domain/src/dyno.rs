//! A dyno's life: its states and the questions one may ask of them.

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It called exit with this status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Exit {
    /// The number of `Process exited with status N`: the code, or 128 plus the signal as shells have it.
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Says whether it was exit code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// The state of one dyno. Each variant carries only what is true in that state. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// The process was started; a web dyno has not bound its port yet.
    Starting {
        /// Since when.
        since: i64,
    },
    /// It runs; a web dyno accepts connections at these addresses.
    Up {
        /// Since when.
        since: i64,
        /// Where the router reaches it; empty for other types than web.
        addresses: Vec<std::net::SocketAddr>,
    },
    /// It was told to stop and has not gone yet; it gets no new requests.
    Stopping {
        /// Since when.
        since: i64,
    },
    /// It exited, or never bound its port, and waits for its next start.
    Crashed {
        /// Since when.
        since: i64,
        /// When the platform starts it again.
        retry_at: i64,
        /// How often it has crashed in a row.
        crashes: u32,
    },
    /// It was stopped on purpose.
    Down {
        /// Since when.
        since: i64,
    },
    /// A one-off dyno whose command has ended.
    Complete {
        /// Since when.
        since: i64,
        /// How it ended.
        exit: Exit,
    },
}

impl State {
    /// The word that the API's `state` and the log's `State changed from … to …` use.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Up { .. } => "up",
            Self::Stopping { .. } => "stopping",
            Self::Crashed { .. } => "crashed",
            Self::Down { .. } => "down",
            Self::Complete { .. } => "complete",
        }
    }

    /// When the dyno entered this state, microseconds since 1970.
    pub fn since(&self) -> i64 {
        match self {
            Self::Starting { since }
            | Self::Up { since, .. }
            | Self::Stopping { since }
            | Self::Crashed { since, .. }
            | Self::Down { since }
            | Self::Complete { since, .. } => *since,
        }
    }

    /// Says whether a process exists in this state.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Up { .. } | Self::Stopping { .. })
    }
}
