//! How much disk a build uses, looked at from time to time.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Shortest pause between looks.
const PAUSE: Duration = Duration::from_secs(2);
/// A look at a large tree costs; it may take one part in so many of the time.
const SHARE: u32 = 20;

/// Returns when the directories together hold more than `limit` bytes.
pub(super) async fn exceeded(directories: Vec<PathBuf>, limit: u64) {
    loop {
        let began = Instant::now();
        if more(directories.clone(), limit).await {
            return;
        }
        tokio::time::sleep(PAUSE.max(began.elapsed() * SHARE)).await;
    }
}

/// Looks once whether the directories together hold more than `limit` bytes.
pub(super) async fn more(directories: Vec<PathBuf>, limit: u64) -> bool {
    tokio::task::spawn_blocking(move || used(&directories)).await.is_ok_and(|used| used > limit)
}

/// Bytes on disk below these directories, files with several names counted once.
fn used(directories: &[PathBuf]) -> u64 {
    let mut seen = HashSet::new();
    directories.iter().map(|directory| below(directory, &mut seen)).sum()
}

fn below(directory: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let mut bytes = 0;
    // Not by recursion: how deep directories are nested is the app's choice.
    let mut ahead = vec![directory.to_owned()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() == 1 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                bytes += metadata.blocks() * 512; // the unit of st_blocks
            }
            if metadata.is_dir() {
                ahead.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_by_what_they_take_on_disk() {
        let here = tempfile::tempdir().expect("a directory");
        fs::create_dir(here.path().join("a")).expect("a directory");
        fs::write(here.path().join("a/file"), vec![1; 100_000]).expect("a file");
        let one = used(&[here.path().to_owned()]);
        fs::hard_link(here.path().join("a/file"), here.path().join("link")).expect("a link");
        let two = used(&[here.path().to_owned()]);
        assert!((100_000..200_000).contains(&one), "{one}");
        assert!(two < one + 50_000, "{two}");
    }
}
