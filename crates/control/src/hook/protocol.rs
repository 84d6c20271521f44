//! What git's pre-receive hook and control say to each other over `run/control.sock`, frames of JSON.
//!
//! The hook says [`Hello::PreReceive`]. Control may ask for the source ([`ToHook::Archive`], answered by one
//! [`FromHook`]), sends output as it comes, and ends with [`ToHook::Done`]. The hook closing the connection early means
//! that the pusher has gone.

use dozen_api::build::Submodule;
use serde::{Deserialize, Serialize};

/// Variable in the hook's environment: which push it belongs to. Only control, which set it, knows the value.
pub const PUSH: &str = "DOZEN_PUSH";
/// Variable in the hook's environment: the path of control's socket.
pub const SOCKET: &str = "DOZEN_CONTROL_SOCKET";

/// First frame of a connection to control.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hello {
    /// A pack was received and its references are about to change.
    PreReceive {
        /// The value of [`PUSH`].
        push: String,
        /// What the pusher wants changed, in order.
        updates: Vec<Update>,
    },
}

/// One reference that a push changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Object before; all zeros when the reference is new.
    pub old: String,
    /// Object after; all zeros when the reference is removed.
    pub new: String,
    /// `refs/heads/main`.
    pub reference: String,
}

impl Update {
    /// Reads one line of a pre-receive hook's standard input.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (old, new, reference) = (words.next()?, words.next()?, words.next()?);
        Some(Self { old: old.to_owned(), new: new.to_owned(), reference: reference.to_owned() })
    }

    /// Says whether the reference is to be removed.
    pub fn removes(&self) -> bool {
        self.new.bytes().all(|byte| byte == b'0')
    }

    /// Says whether this is the branch that is deployed.
    pub fn deploys(&self) -> bool {
        matches!(self.reference.as_str(), "refs/heads/main" | "refs/heads/master")
    }

    /// Says whether this is a branch at all (and not a tag or note).
    pub fn is_branch(&self) -> bool {
        self.reference.starts_with("refs/heads/")
    }
}

/// Control to hook.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToHook {
    /// Write the tree of this commit to this path as a tar, and look for submodules.
    Archive {
        /// The commit.
        commit: String,
        /// Where the tar belongs.
        path: std::path::PathBuf,
        /// Most bytes that it may have: a few objects of a pack can name more files than any disk holds.
        most: u64,
    },
    /// Show this to the pusher.
    Output(String),
    /// The end.
    Done {
        /// Whether the references may change.
        accepted: bool,
    },
}

/// Hook to control, after [`ToHook::Archive`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromHook {
    /// The tar is there.
    Source {
        /// The commit (of an annotated tag too).
        commit: String,
        /// First line of the commit's message.
        subject: String,
        /// Submodules with the addresses of `.gitmodules`.
        submodules: Vec<Submodule>,
    },
    /// There is no tar.
    Failed(String),
}
