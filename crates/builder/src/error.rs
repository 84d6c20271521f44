//! Why a build ends without an image.
//!
//! Two kinds: what the app's owner can put right is [`Error::Rejected`] and says what happened and what to do; the rest
//! is ours and names the operation. [`Error::exit_code`] is what the runtime tells them apart by.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A text for the app's owner, printed line by line behind ` !     `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happened, one line.
    pub headline: String,
    /// Why, and what to do; an empty line separates paragraphs.
    pub details: Vec<String>,
}

/// Why a phase failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source, its configuration or its build scripts are at fault.
    #[error("{}", .0.headline)]
    Rejected(Explanation),
    /// Reading or writing failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What the runtime handed over, or what we keep between builds, makes no sense.
    #[error("{operation} {}", path.display())]
    Format {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// A failure that the app's owner can put right.
    pub(crate) fn rejected<const N: usize>(headline: impl Into<String>, details: [&str; N]) -> Self {
        let details = details.iter().map(|line| (*line).to_owned()).collect();
        Self::Rejected(Explanation { headline: headline.into(), details })
    }

    /// The same, with lines that were put together.
    pub(crate) fn explained(headline: impl Into<String>, details: Vec<String>) -> Self {
        Self::Rejected(Explanation { headline: headline.into(), details })
    }

    /// For `map_err`: reading or writing `path` failed. A full disk is the build's own doing: its size is bounded.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::rejected(
                format!("The build filled its disk (while trying to {operation} {}).", path.display()),
                [
                    "",
                    "Remove large files from the source, list what the app does not need in .slugignore,",
                    "or purge the build cache: it may have grown over many builds.",
                ],
            ),
            _ => Self::Io { operation, path, source },
        }
    }

    /// What the process ends with: 1 for the owner's mistakes, 2 for ours.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Rejected(_) => 1,
            Self::Io { .. } | Self::Format { .. } => 2,
        }
    }
}

/// A result of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_to_the_owner() {
        let error = Error::io("write", Path::new("/app/x"))(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.exit_code(), 1);
        let error = Error::io("write", Path::new("/app/x"))(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(error.exit_code(), 2);
        assert_eq!(error.to_string(), "write /app/x");
    }
}
