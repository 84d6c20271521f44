//! The one error that becomes an answer of the API: `{id, message, resource?, url?}` and a status.
//!
//! Variants are what a client can tell apart. A failure of the platform carries its cause for our own log; what the
//! client sees of it says no more than that it was ours.

use dozen_api::engine;
use dozen_domain::{formation, name, settings, size};

use crate::store;

/// Why an operation was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 400 `bad_request`: the request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// 401 `unauthorized`: nobody known is asking.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// 403 `forbidden`: known, but may not.
    #[error("{0}")]
    Forbidden(String),
    /// 404 `not_found`.
    #[error("Couldn't find that {}.", .0.replace('_', " "))]
    NotFound(&'static str),
    /// 404 `not_found` with words of its own.
    #[error("{message}")]
    NotFoundBecause {
        /// What was looked for.
        resource: &'static str,
        /// Why it is not there.
        message: String,
    },
    /// 409 `conflict`: not now.
    #[error("{0}")]
    Conflict(String),
    /// 410 `gone`: it was there.
    #[error("{0}")]
    Gone(String),
    /// 413 `request_too_large`.
    #[error("{0}")]
    TooLarge(String),
    /// 422 `invalid_params`: understood, but against a rule. The text says what to do.
    #[error("{0}")]
    Invalid(String),
    /// 429 `rate_limit`.
    #[error("Your account reached the API rate limit. Please wait a few minutes before making new requests.")]
    RateLimited,
    /// 429 `rate_limit`: too many wrong credentials.
    #[error(
        "Too many failed logins from your address. Wait {} and try again; `heroku login -i` or a token of \
         `heroku authorizations:create` gives you the right credentials.", minutes(*.0)
    )]
    TooManyFailures(u64),
    /// 503 `maintenance`: the platform cannot now, but can later.
    #[error("{0}")]
    Unavailable(String),
    /// 500 `internal_server_error`, or 503 when the disk is full.
    #[error("{operation}")]
    Platform {
        /// What was attempted.
        operation: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// As [`Error::Platform`], of the database.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What operations answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a client sees of an [`Error`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The error's id.
    pub id: &'static str,
    /// For people.
    pub message: String,
    /// What was not found.
    pub resource: Option<&'static str>,
}

/// A wait of so many seconds in words.
fn minutes(seconds: u64) -> String {
    match seconds.div_ceil(60) {
        0 | 1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

impl Error {
    /// A failure of the platform.
    pub fn platform(operation: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Platform { operation: operation.into(), source: source.into() }
    }

    /// Against a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// Says whether it is the platform's own fault, and so belongs into its log.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Platform { .. } | Self::Store(_) | Self::Unavailable(_))
    }

    /// Says whether it would not have happened with more room on the platform's disk.
    fn is_disk_full(&self) -> bool {
        use std::io::{self, ErrorKind};
        if let Self::Store(error) = self {
            return error.is_disk_full();
        }
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// What the client sees.
    pub fn answer(&self) -> Answer {
        let resource = match self {
            Self::NotFound(resource) | Self::NotFoundBecause { resource, .. } => Some(*resource),
            _ => None,
        };
        let (status, id) = match self {
            Self::BadRequest(_) => (400, "bad_request"),
            Self::Unauthorized(_) => (401, "unauthorized"),
            Self::Forbidden(_) => (403, "forbidden"),
            Self::NotFound(_) | Self::NotFoundBecause { .. } => (404, "not_found"),
            Self::Conflict(_) => (409, "conflict"),
            Self::Gone(_) => (410, "gone"),
            Self::TooLarge(_) => (413, "request_too_large"),
            Self::Invalid(_) => (422, "invalid_params"),
            Self::RateLimited | Self::TooManyFailures(_) => (429, "rate_limit"),
            Self::Unavailable(_) => (503, "maintenance"),
            Self::Platform { .. } | Self::Store(_) if self.is_disk_full() => (503, "maintenance"),
            Self::Platform { .. } | Self::Store(_) => (500, "internal_server_error"),
        };
        let message = match self {
            Self::Platform { .. } | Self::Store(_) if self.is_disk_full() => {
                "The platform's disk is full. Nothing was changed. Free some space on it and try again.".to_owned()
            }
            Self::Platform { .. } | Self::Store(_) => {
                "An error occurred on the platform. Its own log says what; nothing about it is in your request."
                    .to_owned()
            }
            other => other.to_string(),
        };
        Answer { status, id, message, resource }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<name::Invalid> for Error {
    fn from(error: name::Invalid) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<size::Unknown> for Error {
    fn from(error: size::Unknown) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<formation::Invalid> for Error {
    fn from(error: formation::Invalid) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<settings::Invalid> for Error {
    fn from(error: settings::Invalid) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::NoSuchDyno => Self::NotFound("dyno"),
            other => Self::platform("ask the engine", other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_says_nothing_of_the_inside() {
        let answer = Error::platform("open /var/lib/dozen/x", std::io::Error::other("secret")).answer();
        assert_eq!((answer.status, answer.id), (500, "internal_server_error"));
        assert!(!answer.message.contains("dozen/x") && !answer.message.contains("secret"));
    }

    #[test]
    fn a_full_disk_is_told_wherever_it_is_met() {
        let full = || std::io::Error::from(rustix::io::Errno::NOSPC);
        let within = dozen_api::build::Error::Platform { operation: "write a layer".to_owned(), source: full().into() };
        for error in [Error::platform("write a slug", full()), Error::platform("make an image", within)] {
            let answer = error.answer();
            assert_eq!((answer.status, answer.id), (503, "maintenance"));
            assert!(answer.message.contains("disk is full"), "{}", answer.message);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let answer = Error::NotFound("app").answer();
        assert_eq!(answer.message, "Couldn't find that app.");
        assert_eq!((answer.status, answer.resource), (404, Some("app")));
    }
}
