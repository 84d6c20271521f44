//! Unpacks the source into `/app`.
//!
//! Folders on the way are checked to be real folders, so that a link inside the archive cannot redirect what follows.
//! Modes become 755 or 644 and nothing else of an owner's machine is taken over: the same source makes the same tree.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use super::{
    Source,
    archive::{self, Kind, Member},
};
use crate::error::{Error, Result};

impl Source {
    /// Writes the source into a folder.
    ///
    /// # Errors
    /// When it is larger than `limit` bytes, or cannot be written.
    pub(crate) fn unpack(&self, into: &Path, limit: u64) -> Result<()> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let mut target = Target { root: into, folders: HashSet::new(), bytes: 0, limit };
        fs::create_dir_all(into).map_err(Error::io("create", into))?;
        archive::each(archive, false, &mut |mut member, content| {
            if let Some(wrapper) = &self.wrapper {
                match member.path.strip_prefix(wrapper.as_bytes()).and_then(|path| path.strip_prefix(b"/")) {
                    Some(inner) if !inner.is_empty() => member.path = inner.to_vec(),
                    _ => return Ok(()),
                }
                if let Kind::HardLink(path) = &member.kind {
                    member.kind = Kind::HardLink(path.strip_prefix(wrapper).unwrap_or(path).to_owned());
                }
            }
            if self.ignored.matches(&String::from_utf8_lossy(&member.path), member.kind == Kind::Folder) {
                return Ok(());
            }
            target.write(&member, content)
        })
    }
}

struct Target<'a> {
    root: &'a Path,
    folders: HashSet<PathBuf>,
    bytes: u64,
    limit: u64,
}

impl Target<'_> {
    fn write(&mut self, member: &Member, content: &mut dyn Read) -> Result<()> {
        let relative = Path::new(OsStr::from_bytes(&member.path));
        if member.kind == Kind::Folder {
            return self.folder(relative);
        }
        if let Some(parent) = relative.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.folder(parent)?;
        }
        if self.folders.contains(relative) {
            self.folders.retain(|folder| !folder.starts_with(relative));
        }
        let path = self.root.join(relative);
        match &member.kind {
            Kind::File => {
                self.grow(member.size)?;
                let mode = if member.executable { 0o755 } else { 0o644 };
                let mut file =
                    replacing(&path, || OpenOptions::new().write(true).create_new(true).mode(mode).open(&path))
                        .map_err(Error::io("write", &path))?;
                io::copy(content, &mut file).map_err(Error::io("write", &path))?;
            }
            Kind::Link(to) => {
                replacing(&path, || symlink(OsStr::from_bytes(to), &path)).map_err(Error::io("link", &path))?;
            }
            Kind::HardLink(to) => {
                let from = self.root.join(to);
                let real = fs::symlink_metadata(&from).is_ok_and(|metadata| metadata.is_file());
                if !real || to.parent().is_some_and(|parent| !self.is_real(parent)) {
                    return Err(Error::explained(
                        format!("The archive's link \"{}\" points at nothing.", relative.display()),
                        Vec::new(),
                    ));
                }
                let size = fs::symlink_metadata(&from).map_err(Error::io("look at", &from))?.len();
                self.grow(size)?;
                replacing(&path, || fs::copy(&from, &path)).map_err(Error::io("write", &path))?;
            }
            Kind::Folder => {}
        }
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limit {
            return Err(Error::explained(
                format!("The source is larger than {} MB when unpacked.", self.limit / 1_000_000),
                vec![
                    String::new(),
                    "Remove large files from the repository, or list what the app does not need in .slugignore."
                        .to_owned(),
                ],
            ));
        }
        Ok(())
    }

    fn is_real(&self, folder: &Path) -> bool {
        folder.as_os_str().is_empty() || self.folders.contains(folder)
    }

    /// Makes a folder and those around it; each must be a real folder afterwards.
    fn folder(&mut self, relative: &Path) -> Result<()> {
        if self.is_real(relative) {
            return Ok(());
        }
        if let Some(parent) = relative.parent() {
            self.folder(parent)?;
        }
        let path = self.root.join(relative);
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::io("create", &path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?.is_dir() {
                    fs::remove_file(&path).map_err(Error::io("replace", &path))?;
                    fs::create_dir(&path).map_err(Error::io("create", &path))?;
                }
            }
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
        self.folders.insert(relative.to_owned());
        Ok(())
    }
}

/// The later of two members with one name wins, as with every tar.
fn replacing<T>(path: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path)?.is_dir() {
                fs::remove_dir_all(path)?
            } else {
                fs::remove_file(path)?
            }
            make()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::tar_of;

    #[test]
    fn files_keep_their_executable_bit_and_ignored_ones_stay_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = tar_of(folder.path(), &[("bin/run", "x"), ("a/b/c", "y"), ("log/x", ""), (".gitmodules", "")]);
        let app = folder.path().join("app");
        Source::read(&archive).expect("read").unpack(&app, 1_000).expect("unpacked");
        let mode = |path: &str| fs::metadata(app.join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("bin/run"), mode("a/b/c"), mode("a")), (0o755, 0o644, 0o755));
        assert!(!app.join("log").exists() && !app.join(".gitmodules").exists());
    }

    #[test]
    fn a_link_cannot_redirect_what_follows() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).expect("created");
        let archive = folder.path().join("source.tar");
        let mut tar = tar::Builder::new(fs::File::create(&archive).expect("created"));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, "x", &outside).expect("a link");
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "x/y", &b"!"[..]).expect("a file");
        tar.append_data(&mut header, "z", &b"!"[..]).expect("a file");
        tar.finish().expect("whole");
        let app = folder.path().join("app");
        Source::read(&archive).expect("read").unpack(&app, 1_000).expect("unpacked");
        assert!(!outside.join("y").exists());
        assert!(app.join("x/y").is_file());
    }

    #[test]
    fn a_source_over_the_limit_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = tar_of(folder.path(), &[("a", "12345"), ("b", "67890")]);
        let error = Source::read(&archive).expect("read").unpack(&folder.path().join("app"), 9).expect_err("too large");
        assert_eq!(error.exit_code(), 1);
    }
}
