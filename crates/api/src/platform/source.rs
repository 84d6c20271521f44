//! `POST /sources`.

use serde::{Deserialize, Serialize};

/// A place for an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its addresses.
    pub source_blob: SourceBlob,
}

/// The addresses of an upload; they carry their own secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBlob {
    /// Where to read it.
    pub get_url: String,
    /// Where to put it.
    pub put_url: String,
}
