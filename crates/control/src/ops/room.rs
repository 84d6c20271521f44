//! Room on the platform's disk: what would take much of it is refused while little is left.
//!
//! The reserve is for what must go on when the disk fills: the database, logs, and what runs. Small writes are not
//! looked at here; the database says itself when it cannot.

use std::path::Path;

use super::{Error, Result};
use crate::state::Context;

/// Sees to it that a push, a build or an upload may begin.
///
/// # Errors
/// When less than the reserve is free.
pub fn check(context: &Context) -> Result<()> {
    // A file system that does not say how full it is refuses nothing.
    let Some(free) = free(&context.settings.data_dir) else { return Ok(()) };
    let reserve = context.limits().disk_reserve_bytes;
    if free >= reserve {
        return Ok(());
    }
    Err(Error::Unavailable(format!(
        "The platform's disk is full: {} MB are free, {} MB must be (DOZEN_LIMIT_DISK_RESERVE_BYTES). Nothing was \
         changed. Whoever runs the platform can free some space on it; then try again.",
        free / 1_000_000,
        reserve / 1_000_000
    )))
}

/// Bytes that the platform may still write below a directory.
fn free(directory: &Path) -> Option<u64> {
    let data = rustix::fs::statvfs(directory).ok()?;
    let blocks = if rustix::process::geteuid().is_root() { data.f_bfree } else { data.f_bavail };
    Some(blocks.saturating_mul(data.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_says_how_much_is_free() {
        let here = tempfile::tempdir().expect("a directory");
        assert!(free(here.path()).expect("a number") > 0);
        assert_eq!(free(Path::new("/no/such/directory")), None);
    }
}
