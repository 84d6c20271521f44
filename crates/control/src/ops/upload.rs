//! Uploads: bodies of requests written to files, within a size, whole or not at all.

use std::path::{Path, PathBuf};

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;
use tokio::{fs, io::AsyncWriteExt as _};

use super::{Error, Result};

/// Ends the name of an upload that is not whole.
const PART: &str = "part";

/// A file that is not whole, or not needed for long; it goes with this, unless it was renamed.
pub(super) struct Part(pub(super) PathBuf);

impl Part {
    /// A name beside `path`, never the same twice.
    pub(super) fn beside(path: &Path) -> Self {
        Self(path.with_extension(format!("{:016x}.{PART}", fastrand::u64(..))))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the directory that a file is to be in.
///
/// # Errors
/// When the disk refuses.
pub(super) async fn make_directory(of: &Path) -> Result<()> {
    let Some(directory) = of.parent() else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).await;
    made.map_err(|error| Error::platform(format!("make the directory {}", directory.display()), error))
}

/// Writes a body to a file that is on the disk when this returns; answers its size.
///
/// # Errors
/// When it has more than `most` bytes, of which `what` tells, or breaks off; or the disk fails.
pub(super) async fn receive(mut body: BodyDataStream, to: &Path, most: u64, what: &str) -> Result<u64> {
    let failed = |error| Error::platform(format!("write {}", to.display()), error);
    make_directory(to).await?;
    let mut file = fs::File::create(to).await.map_err(failed)?;
    let mut size = 0_u64;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| Error::BadRequest("The upload broke off.".to_owned()))?;
        size += piece.len() as u64;
        if size > most {
            return Err(Error::TooLarge(format!("{what} may have {most} bytes at most.")));
        }
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.sync_all().await.map_err(failed)?;
    Ok(size)
}

/// Removes what uploads into a directory left that the role did not survive. Called before the first request.
pub(super) fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == PART) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
