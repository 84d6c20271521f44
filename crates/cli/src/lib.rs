//! The command line: what people can type, and the small commands that speak the Platform API.
//!
//! Enough for people without the official CLI: apps, config, dynos, logs, releases, one-off dynos, timed jobs. Everything
//! else is the official CLI's work, which [`environment`] points at the platform: at the one of this machine, or at one
//! elsewhere that was logged in to ([`login`]) through a forwarder ([`connect`]). Commands that start or administer the
//! platform itself are only named here; the root package carries them out.

pub mod arguments;
mod commands;
pub mod completion;
pub mod connect;
pub mod credential;
pub mod environment;
pub mod login;
pub mod manual;
mod printer;

pub use commands::{entry, run};
pub use printer::Printer;

use std::io;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API's answer, or its lack.
    #[error(transparent)]
    Api(#[from] dozen_api::client::Error),
    /// No app was named and none can be told from the repository.
    #[error("no app: give --app NAME, or run this in a repository with a remote called `heroku`")]
    NoApp,
    /// The account and its key are not there yet.
    #[error(
        "there is no {path}: start the platform once with `dozen server`, or log in to one elsewhere with `dozen login \
         https://HOST`"
    )]
    NotStarted {
        /// The file looked for.
        path: String,
    },
    /// The file of the login is damaged.
    #[error("{path} cannot be read as a login: run dozen login again")]
    Login {
        /// Which.
        path: String,
    },
    /// There is none.
    #[error("you are not logged in to a platform elsewhere: dozen login https://HOST")]
    NoLogin,
    /// It does not start or does not end.
    #[error("the forwarder does not answer: run dozen connect to see why")]
    Forwarder,
    /// What was asked for is not there.
    #[error("{0}")]
    Missing(String),
    /// Something the person typed.
    #[error("{0}")]
    Usage(String),
    /// A file or a process.
    #[error("{operation}")]
    Io {
        /// What was attempted, with its path.
        operation: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What a script sees of it.
    pub fn exit_code(&self) -> u8 {
        use dozen_api::client::Error as Api;
        match self {
            Self::Usage(_) | Self::NoApp => 2,
            Self::Missing(_) => 3,
            Self::Api(Api::Refused { status, .. }) => match status.as_u16() {
                404 => 3,
                401 | 403 => 4,
                _ => 1,
            },
            Self::NoLogin | Self::Api(Api::Stranger { .. }) => 4,
            Self::Api(Api::Connect { .. } | Api::Exchange { .. }) | Self::NotStarted { .. } | Self::Forwarder => 5,
            Self::Api(_) | Self::Login { .. } | Self::Io { .. } => 1,
        }
    }
}

/// What each exit status means, for the help and the manual page.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "it failed, or the platform refused it"),
    (2, "the command line makes no sense"),
    (3, "there is no such app, dyno, config var, release or job"),
    (4, "not logged in, or not allowed"),
    (5, "the platform cannot be reached"),
    (255, "run, exec: the connection was lost; any other status of theirs is the command's own"),
];
