//! Removes a directory with everything in it, whatever an app has made of it.
//!
//! A dyno may nest directories as deep as its disk has room, far past any path's length, the descriptors a process may
//! hold and the stack of a thread. So this goes down only some levels; what lies deeper is moved up first. Symbolic links
//! are removed and never followed.

use std::{
    ffi::CStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, unlinkat},
    io::Errno,
};

/// Levels that are gone down at once; each holds two descriptors.
const DEPTH: usize = 32;

/// Removes `path`, a directory, a file or a link.
///
/// # Errors
/// When there is none, or something in it cannot be removed.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let top = match open(CWD, &name) {
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(CWD, &name, AtFlags::empty())?),
        opened => opened?,
    };
    let mut moved = 0_u64;
    loop {
        let before = moved;
        empty(&top, &top, 0, &mut moved)?;
        match unlinkat(CWD, &name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if moved > before => {}
            removed => return Ok(removed?),
        }
    }
}

fn open<Fd: rustix::fd::AsFd>(parent: Fd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&parent, name, flags, Mode::empty()) {
        // Not root, and the directory has lost its owner's rights.
        Err(Errno::ACCESS) => {
            chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(&parent, name, flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Empties a directory; what is too deep ends up in `top`, and is counted.
fn empty(directory: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> rustix::io::Result<()> {
    let mut entries = Dir::read_from(directory)?;
    let mut opened_up = false;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        loop {
            let removed = match entry.file_type() {
                FileType::Directory => remove_directory(directory, name, top, depth, moved),
                FileType::Unknown => match unlinkat(directory, name, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => remove_directory(directory, name, top, depth, moved),
                    removed => removed,
                },
                _ => unlinkat(directory, name, AtFlags::empty()),
            };
            match removed {
                Ok(()) | Err(Errno::NOENT) => break,
                // It could be read, but not written.
                Err(Errno::ACCESS) if !opened_up => {
                    opened_up = true;
                    rustix::fs::fchmod(directory, Mode::RWXU)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn remove_directory(
    parent: &OwnedFd,
    name: &CStr,
    top: &OwnedFd,
    depth: usize,
    moved: &mut u64,
) -> rustix::io::Result<()> {
    let child = open(parent, name)?;
    if depth < DEPTH {
        empty(&child, top, depth + 1, moved)?;
        return unlinkat(parent, name, AtFlags::REMOVEDIR);
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        removed => return removed,
    }
    loop {
        *moved += 1;
        let place = format!(".moved-up-{moved}");
        match renameat(parent, name, top, place.as_str()) {
            // The app had the same idea.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            // To move a directory changes it, too.
            Err(Errno::ACCESS) => {
                rustix::fs::fchmod(&child, Mode::RWXU)?;
                return renameat(parent, name, top, place.as_str());
            }
            renamed => return renamed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// A chain of so many directories, past what a path can name.
    fn nest(at: &Path, levels: usize) {
        let mut here: OwnedFd = fs::File::open(at).expect("a directory").into();
        for _ in 0..levels {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).expect("a directory");
            rustix::fs::mkdirat(&here, "e", Mode::RWXU).expect("a directory");
            here = open(&here, c"d").expect("it opens");
        }
    }

    #[test]
    fn however_deep_an_app_nests_directories_they_go() {
        let data = tempfile::tempdir().expect("a directory");
        let tree = data.path().join("tree");
        fs::create_dir_all(tree.join(".moved-up-1/taken")).expect("a directory");
        nest(&tree, 2_000);
        // A thread with the usual stack would need more levels to fail, and the test more time to make them.
        let removing = std::thread::Builder::new().stack_size(128 << 10).spawn(move || remove_all(&tree));
        removing.expect("a thread").join().expect("no panic").expect("removed");
        assert_eq!(fs::read_dir(data.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn links_go_and_what_they_point_at_stays() {
        let data = tempfile::tempdir().expect("a directory");
        let (kept, tree) = (data.path().join("kept"), data.path().join("tree"));
        fs::create_dir_all(&kept).expect("a directory");
        fs::write(kept.join("file"), "").expect("a file");
        fs::create_dir_all(tree.join("a/b")).expect("a directory");
        symlink(&kept, tree.join("a/link")).expect("a link");
        symlink(&kept, data.path().join("link")).expect("a link");
        remove_all(&tree).expect("removed");
        remove_all(&data.path().join("link")).expect("removed");
        assert!(kept.join("file").exists() && !tree.exists());
        assert!(data.path().join("link").symlink_metadata().is_err());
        assert_eq!(remove_all(&tree).expect_err("gone").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn directories_that_were_closed_go_too() {
        let data = tempfile::tempdir().expect("a directory");
        let tree = data.path().join("tree");
        fs::create_dir_all(tree.join("read-only/inner")).expect("a directory");
        for (name, mode) in [("read-only/inner", 0), ("read-only", 0o500)] {
            rustix::fs::chmod(tree.join(name), Mode::from_raw_mode(mode)).expect("closed");
        }
        remove_all(&tree).expect("removed");
        assert!(!tree.exists());
    }
}
