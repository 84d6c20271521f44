//! The command line: what people can type, and the small commands that speak the Platform API.
//!
//! Enough for people without the official CLI: create an app, look at it, read its logs, run commands. Everything
//! else is the official CLI's work, which [`environment`] points at this platform. Commands that start or administer the
//! platform itself are only named here; the root package carries them out.

pub mod arguments;
mod commands;
pub mod credential;
pub mod environment;
mod printer;

pub use commands::run;
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
    #[error("there is no {path}: start the platform once with `dozen server`")]
    NotStarted {
        /// The file looked for.
        path: String,
    },
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
