//! Walks a tar, plain or gzipped, and hands out members that are safe to name.
//!
//! Safe means: relative, without `..`, and a file, folder, symbolic link or hard link. Anything else refuses the whole
//! archive, because no honest tool makes it.

use std::{
    fs,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result};

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with contents.
    File,
    /// A folder.
    Folder,
    /// A symbolic link and where it points.
    Link(Vec<u8>),
    /// A second name of an earlier member.
    HardLink(PathBuf),
}

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its path, normal and relative; never empty.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Bytes of its contents.
    pub(crate) size: u64,
    /// Whether anyone may execute it.
    pub(crate) executable: bool,
}

/// Calls `visit` for every member in the archive's order. With `skip` a plain archive is not read where `visit` does
/// not read.
///
/// # Errors
/// When the archive cannot be read or holds an unsafe member, or `visit` fails.
pub(crate) fn each(
    archive: &Path,
    skip: bool,
    visit: &mut dyn FnMut(Member, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut file = fs::File::open(archive).map_err(Error::io("open", archive))?;
    let mut magic = [0; 2];
    let gzipped = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0)).map_err(Error::io("read", archive))?;
    if gzipped {
        let unzipped = flate2::read::MultiGzDecoder::new(BufReader::with_capacity(256 * 1024, file));
        walk(archive, tar::Archive::new(unzipped).entries(), visit)
    } else if skip {
        walk(archive, tar::Archive::new(file).entries_with_seek(), visit)
    } else {
        walk(archive, tar::Archive::new(BufReader::with_capacity(256 * 1024, file)).entries(), visit)
    }
}

/// The archive ends too early or is none.
pub(crate) fn damaged(archive: &Path, source: &io::Error) -> Error {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    Error::explained(
        format!("The archive cannot be read: {source}."),
        vec![String::new(), format!("It must be a tar or a gzipped tar ({name}). Make it again and push again.")],
    )
}

fn walk<R: Read>(
    archive: &Path,
    entries: io::Result<tar::Entries<'_, R>>,
    visit: &mut dyn FnMut(Member, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    for entry in entries.map_err(|source| damaged(archive, &source))? {
        let mut entry = entry.map_err(|source| damaged(archive, &source))?;
        if let Some(member) = member(&entry).map_err(|source| damaged(archive, &source))?? {
            visit(member, &mut entry)?;
        }
    }
    Ok(())
}

fn member<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Result<Option<Member>>> {
    let raw = entry.path_bytes().into_owned();
    let shown = String::from_utf8_lossy(&raw).into_owned();
    let Some(path) = safe(Path::new(std::ffi::OsStr::from_bytes(&raw))) else {
        return Ok(Err(unsafe_member(&shown, "its path leaves the root")));
    };
    let header = entry.header();
    let target = || -> io::Result<Vec<u8>> { Ok(entry.link_name_bytes().unwrap_or_default().into_owned()) };
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => Kind::File,
        tar::EntryType::Directory => Kind::Folder,
        tar::EntryType::Symlink => Kind::Link(target()?),
        tar::EntryType::Link => match safe(Path::new(std::ffi::OsStr::from_bytes(&target()?))) {
            Some(path) => Kind::HardLink(path),
            None => return Ok(Err(unsafe_member(&shown, "it is a link to outside the root"))),
        },
        tar::EntryType::XGlobalHeader => return Ok(Ok(None)),
        _ => return Ok(Err(unsafe_member(&shown, "it is neither a file, a folder nor a link"))),
    };
    if path.as_os_str().is_empty() {
        return Ok(Ok(None));
    }
    let executable = header.mode()? & 0o111 != 0;
    Ok(Ok(Some(Member { path: path.as_os_str().as_bytes().to_vec(), kind, size: entry.size(), executable })))
}

/// The path without `.`; nothing when it is absolute or climbs.
fn safe(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!clean.as_os_str().as_bytes().contains(&0)).then_some(clean)
}

fn unsafe_member(path: &str, why: &str) -> Error {
    Error::explained(
        format!("The archive holds \"{path}\", which cannot be unpacked: {why}."),
        vec![String::new(), "Make it again from ordinary files only.".to_owned()],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(path: &str, kind: tar::EntryType, link: &str, expected: &str) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = folder.path().join("source.tar");
        let mut header = tar::Header::new_old();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 1024]);
        fs::write(&archive, bytes).expect("written");
        let error = each(&archive, false, &mut |_, _| Ok(())).expect_err("an unsafe member");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn members_that_could_leave_the_root_are_refused() {
        use tar::EntryType;
        check_refused("/etc/passwd", EntryType::Regular, "", "leaves the root");
        check_refused("a/../../x", EntryType::Regular, "", "leaves the root");
        check_refused("a", EntryType::Link, "/etc/shadow", "outside");
        check_refused("a", EntryType::Char, "", "neither a file");
        check_refused("a", EntryType::Fifo, "", "neither a file");
    }

    #[test]
    fn what_is_no_archive_is_explained() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = folder.path().join("source.tar");
        fs::write(&archive, "x".repeat(2000)).expect("written");
        let error = each(&archive, true, &mut |_, _| Ok(())).expect_err("no archive");
        assert_eq!(error.exit_code(), 1);
    }
}
