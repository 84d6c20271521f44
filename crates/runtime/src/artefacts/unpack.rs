//! Unpacks a slug that was made elsewhere: a gzipped tar with everything below `./app`, from whoever may deploy the app.
//!
//! Nothing in it is trusted. Every entry is made relative to an open directory, one level after the other and never
//! through a link, so none can lead outside; links are made as they are, for they mean something only inside the dyno's
//! container. Modes lose set-user-id and the like, owners and times are not taken over, devices and pipes are refused.
//! What comes out of the compression is counted: bytes, and a block for each entry.

use std::{
    cell::Cell,
    ffi::{CString, OsStr},
    fs::File,
    io::{self, BufReader, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, linkat, mkdirat, openat, statat, symlinkat, unlinkat},
    io::Errno,
};
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::pack::WHITEOUT;

/// What an entry costs besides its bytes: a block of the file system.
const BLOCK: u64 = 4_096;
/// Longest path of an entry: below the kernel's 4,096 with room for where the tree lies.
const PATH: usize = 3_000;
/// Deepest path of an entry; what walks the tree later goes down as deep.
const DEPTH: usize = 256;
/// Longest name or extension that an entry of its own holds.
const EXTENSION: u64 = 64 << 10;
/// Bytes read at once.
const PIECE: usize = 128 << 10;
/// What a directory that no entry describes may.
const DIRECTORY: u32 = 0o755;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no gzipped tar, or not a whole one.
    #[error("it is not a whole gzipped tar ({0})")]
    Unreadable(#[source] io::Error),
    /// One of its entries cannot be.
    #[error("its entry {name:?} {why}")]
    Entry {
        /// Its path in the archive.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It would take too much room.
    #[error("unpacked it takes more than {0} bytes, a block of 4096 for each entry among them")]
    TooLarge(u64),
    /// It holds nothing of an app.
    #[error("it holds nothing below ./app")]
    Empty,
    /// The file system refused something.
    #[error("unpack into {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A reader that ends with an error after so many bytes, and remembers that it did.
struct Bounded<R> {
    inner: R,
    left: u64,
    over: Rc<Cell<bool>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                self.over.set(true);
                return Err(io::Error::other("too many bytes"));
            }
        }
        Ok(n)
    }
}

/// Unpacks what `archive` holds below `./app` into `to`, a new directory, taking at most `most` bytes of disk.
pub(crate) fn unpack(archive: File, to: &Path, most: u64) -> Result<(), Error> {
    let io = |source: Errno| Error::Io { path: to.to_owned(), source: source.into() };
    mkdirat(CWD, to, Mode::RWXU).map_err(io)?;
    let root = open(CWD, OsStr::new(to)).map_err(io)?;
    fchmod(&root, Mode::from_raw_mode(DIRECTORY)).map_err(io)?;
    let over = Rc::new(Cell::new(false));
    let inner = MultiGzDecoder::new(BufReader::with_capacity(PIECE, archive));
    let mut archive = Archive::new(Bounded { inner, left: most, over: over.clone() });
    let root = Rc::new(root);
    let mut unpacker =
        Unpacker { to, parent: (Vec::new(), root.clone()), root, left: most, most, made: false, piece: vec![0; PIECE] };
    let unpacked = unpacker.all(&mut archive).and_then(|()| {
        // To its end: the compression's own checksum is there.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Error::Unreadable)
    });
    match unpacked {
        Err(Error::Unreadable(_)) if over.get() => Err(Error::TooLarge(most)),
        Err(error) => Err(error),
        Ok(_) if !unpacker.made => Err(Error::Empty),
        Ok(_) => Ok(()),
    }
}

fn open<Fd: rustix::fd::AsFd>(parent: Fd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// What entries of their own say about the next one.
#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

struct Unpacker<'a> {
    to: &'a Path,
    root: Rc<OwnedFd>,
    /// The directory used last; entries of one follow each other.
    parent: (Vec<Vec<u8>>, Rc<OwnedFd>),
    left: u64,
    most: u64,
    made: bool,
    piece: Vec<u8>,
}

fn refused(name: &[u8], why: &'static str) -> Error {
    Error::Entry { name: String::from_utf8_lossy(name).into_owned(), why }
}

impl Unpacker<'_> {
    fn all<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<(), Error> {
        let mut ahead = Ahead::default();
        // Raw: long names are read here, within bounds.
        for entry in archive.entries().map_err(Error::Unreadable)?.raw(true) {
            let mut entry = entry.map_err(Error::Unreadable)?;
            match entry.header().entry_type() {
                EntryType::XGlobalHeader => {}
                EntryType::GNULongName => ahead.path = Some(text(&mut entry)?),
                EntryType::GNULongLink => ahead.link = Some(text(&mut entry)?),
                EntryType::XHeader => extensions(&mut entry, &mut ahead)?,
                kind => self.entry(&mut entry, kind, std::mem::take(&mut ahead))?,
            }
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, kind: EntryType, ahead: Ahead) -> Result<(), Error> {
        let name = ahead.path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let parts = parts(&name)?;
        // The oldest form of tar tells directories by their names.
        let kind = if kind.is_file() && name.ends_with(b"/") { EntryType::Directory } else { kind };
        let Some((last, above)) = parts.split_last() else {
            return if kind.is_dir() { Ok(()) } else { Err(refused(&name, "has no name")) };
        };
        self.charge(BLOCK)?;
        self.made = true;
        let mode = entry.header().mode().map_err(Error::Unreadable)? & 0o777;
        match kind {
            EntryType::Directory => {
                let directory = self.directory(&parts, &name)?;
                fchmod(&*directory, Mode::from_raw_mode(mode | 0o700)).map_err(|error| self.failed(error))
            }
            _ if above.is_empty() => Err(refused(&name, "is app itself, which must be a directory")),
            EntryType::Regular | EntryType::Continuous => {
                let parent = self.directory(above, &name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let place = || openat(&*parent, OsStr::from_bytes(last), flags, Mode::RUSR | Mode::WUSR);
                let mut file = File::from(self.place(&parent, last, &name, place)?);
                self.copy(entry, &mut file)?;
                fchmod(&file, Mode::from_raw_mode(mode | 0o600)).map_err(|error| self.failed(error))
            }
            EntryType::Symlink => {
                let target = self.target(entry, ahead.link, &name)?;
                let parent = self.directory(above, &name)?;
                let place = || symlinkat(target.as_c_str(), &*parent, OsStr::from_bytes(last));
                self.place(&parent, last, &name, place)
            }
            EntryType::Link => {
                let target = self.target(entry, ahead.link, &name)?;
                self.link(target.as_bytes(), above, last, &name)
            }
            EntryType::GNUSparse => Err(refused(&name, "is sparse: make the archive without --sparse")),
            _ => Err(refused(&name, "is no file, directory or link")),
        }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or(Error::TooLarge(self.most))?;
        Ok(())
    }

    fn failed(&self, source: impl Into<io::Error>) -> Error {
        Error::Io { path: self.to.to_owned(), source: source.into() }
    }

    /// Opens the directory of these parts (the first is `app`, which is the root), making what is missing.
    fn directory(&mut self, parts: &[Vec<u8>], name: &[u8]) -> Result<Rc<OwnedFd>, Error> {
        let below = parts.get(1..).unwrap_or_default();
        if self.parent.0 == below {
            return Ok(self.parent.1.clone());
        }
        let mut here = self.root.clone();
        for part in below {
            let part = OsStr::from_bytes(part);
            let mut opened = open(&*here, part);
            if matches!(opened, Err(Errno::NOENT)) {
                self.charge(BLOCK)?;
                mkdirat(&*here, part, Mode::RWXU).map_err(|error| self.failed(error))?;
                opened = open(&*here, part);
                if let Ok(made) = &opened {
                    fchmod(made, Mode::from_raw_mode(DIRECTORY)).map_err(|error| self.failed(error))?;
                }
            }
            here = Rc::new(opened.map_err(|error| match error {
                Errno::NOTDIR | Errno::LOOP => refused(name, "leads through something that is no directory"),
                error => self.failed(error),
            })?);
        }
        self.parent = (below.to_vec(), here.clone());
        Ok(here)
    }

    /// Makes something that is no directory; what an earlier entry put there goes.
    fn place<T>(
        &self,
        parent: &OwnedFd,
        last: &[u8],
        name: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, Error> {
        let made = match make() {
            Err(Errno::EXIST) => match unlinkat(parent, OsStr::from_bytes(last), AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => return Err(refused(name, "is there twice, once as a directory")),
                removed => removed.and_then(|()| make()),
            },
            made => made,
        };
        made.map_err(|error| self.failed(error))
    }

    fn copy<R: Read>(&mut self, entry: &mut Entry<'_, R>, file: &mut File) -> Result<(), Error> {
        let mut left = entry.size();
        while left > 0 {
            let n = entry.read(&mut self.piece).map_err(Error::Unreadable)?;
            if n == 0 {
                return Err(Error::Unreadable(io::ErrorKind::UnexpectedEof.into()));
            }
            self.charge(n as u64)?;
            left = left.saturating_sub(n as u64);
            file.write_all(&self.piece[..n]).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn target<R: Read>(&self, entry: &Entry<'_, R>, ahead: Option<Vec<u8>>, name: &[u8]) -> Result<CString, Error> {
        let target = ahead.or_else(|| entry.link_name_bytes().map(|target| target.into_owned())).unwrap_or_default();
        if target.is_empty() || target.len() > PATH {
            return Err(refused(name, "links to nothing, or too far"));
        }
        CString::new(target).map_err(|_| refused(name, "links to a name with a zero byte"))
    }

    /// Another name for a file of an earlier entry.
    fn link(&mut self, target: &[u8], above: &[Vec<u8>], last: &[u8], name: &[u8]) -> Result<(), Error> {
        const NONE: &str = "is another name for something that is no file of the archive before it";
        let target = parts(target).map_err(|_| refused(name, NONE))?;
        let Some((file, of)) = target.split_last().filter(|(_, of)| !of.is_empty()) else {
            return Err(refused(name, NONE));
        };
        let mut from = self.root.clone();
        for part in &of[1..] {
            from = Rc::new(open(&*from, OsStr::from_bytes(part)).map_err(|_| refused(name, NONE))?);
        }
        let file = OsStr::from_bytes(file);
        let found = statat(&*from, file, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| refused(name, NONE))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(refused(name, NONE));
        }
        let parent = self.directory(above, name)?;
        let linked = || linkat(&*from, file, &*parent, OsStr::from_bytes(last), AtFlags::empty());
        match statat(&*parent, OsStr::from_bytes(last), AtFlags::SYMLINK_NOFOLLOW) {
            // It is that file already.
            Ok(there) if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino) => Ok(()),
            _ => self.place(&parent, last, name, linked),
        }
    }
}

/// The parts of a path below the archive's root; none for the root itself. The first is `app`.
fn parts(name: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let parts: Vec<Vec<u8>> =
        name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect();
    if name.starts_with(b"/") || parts.iter().any(|part| part == b"..") {
        return Err(refused(name, "leads outside"));
    }
    if parts.first().is_some_and(|first| first != b"app") {
        return Err(refused(name, "is not below ./app"));
    }
    if name.len() > PATH || parts.len() > DEPTH || parts.iter().any(|part| part.len() > 255 || part.contains(&0)) {
        return Err(refused(&name[..name.len().min(100)], "has a name that is too long, too deep, or has a zero byte"));
    }
    if parts.iter().any(|part| part.starts_with(WHITEOUT.as_bytes())) {
        return Err(refused(name, "begins with .wh., which images keep for files that were removed"));
    }
    Ok(parts)
}

/// A name that is longer than a header has room for.
fn text<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Error> {
    let mut text = bytes(entry)?;
    while text.last() == Some(&0) {
        text.pop();
    }
    Ok(text)
}

fn bytes<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Error> {
    if entry.size() > EXTENSION {
        return Err(Error::Unreadable(io::Error::other("a name or extension is too long")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(Error::Unreadable)?;
    Ok(bytes)
}

/// Names as the POSIX format has them.
fn extensions<R: Read>(entry: &mut Entry<'_, R>, ahead: &mut Ahead) -> Result<(), Error> {
    for extension in PaxExtensions::new(&bytes(entry)?) {
        let extension = extension.map_err(Error::Unreadable)?;
        match extension.key_bytes() {
            b"path" => ahead.path = Some(extension.value_bytes().to_vec()),
            b"linkpath" => ahead.link = Some(extension.value_bytes().to_vec()),
            // Files so large that a header cannot say it are over every limit; and sizes must not be told twice.
            b"size" => return Err(Error::Unreadable(io::Error::other("a file's size is outside its header"))),
            key if key.starts_with(b"GNU.sparse") => {
                return Err(Error::Unreadable(io::Error::other("sparse files: make the archive without --sparse")));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use flate2::{Compression, write::GzEncoder};
    use tar::{Builder, Header};

    use super::*;

    /// Name, kind, mode, link, contents.
    type Given<'a> = (&'a str, EntryType, u32, &'a str, &'a str);

    const FILE: EntryType = EntryType::Regular;

    /// An archive of entries exactly as given: no tool would write most of them.
    fn tarred(entries: &[Given]) -> Vec<u8> {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, kind, mode, link, text) in entries {
            let mut header = Header::new_gnu();
            let gnu = header.as_gnu_mut().expect("a header");
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_size(text.len() as u64);
            header.set_uid(0);
            header.set_cksum();
            tar.append(&header, text.as_bytes()).expect("an entry");
        }
        tar.into_inner().expect("a tar").finish().expect("gzip")
    }

    fn unpacked(bytes: &[u8], most: u64) -> (tempfile::TempDir, Result<(), Error>) {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = directory.path().join("archive");
        fs::write(&archive, bytes).expect("a file");
        let result = unpack(File::open(&archive).expect("a file"), &directory.path().join("tree"), most);
        (directory, result)
    }

    const MOST: u64 = 1 << 20;

    #[test]
    fn files_directories_and_links_come_out_with_plain_modes() {
        let (here, result) = unpacked(
            &tarred(&[
                ("pax_global_header", EntryType::XGlobalHeader, 0o644, "", ""),
                ("./", EntryType::Directory, 0o755, "", ""),
                ("./app/", EntryType::Directory, 0o700, "", ""),
                ("./app/bin/serve", FILE, 0o4755, "", "old"),
                ("./app/bin/serve", FILE, 0o4755, "", "new"),
                ("app/closed", EntryType::Directory, 0o000, "", ""),
                ("app/closed/in", FILE, 0o644, "", "x"),
                ("app/python", EntryType::Symlink, 0o777, "/usr/bin/python3", ""),
                ("app/again", EntryType::Link, 0o644, "./app/bin/serve", ""),
            ]),
            MOST,
        );
        result.expect("unpacked");
        let tree = here.path().join("tree");
        assert_eq!(fs::read_to_string(tree.join("bin/serve")).expect("a file"), "new");
        let meta = |path: &str| tree.join(path).symlink_metadata().expect(path);
        assert_eq!(meta("bin/serve").mode() & 0o7777, 0o755);
        assert_eq!(meta("closed").mode() & 0o7777, 0o700);
        assert_eq!(meta("again").ino(), meta("bin/serve").ino());
        assert_eq!(fs::read_link(tree.join("python")).expect("a link"), Path::new("/usr/bin/python3"));
    }

    #[test]
    fn nothing_leads_outside() {
        let link = |target| ("app/l", EntryType::Symlink, 0o777, target, "");
        let bad: &[&[Given]] = &[
            &[("../x", FILE, 0o644, "", "")],
            &[("app/../../x", FILE, 0o644, "", "")],
            &[("/app/x", FILE, 0o644, "", "")],
            &[("etc/x", FILE, 0o644, "", "")],
            &[("app", FILE, 0o644, "", "")],
            &[("app", EntryType::Symlink, 0o777, "/tmp", "")],
            &[link(".."), ("app/l/x", FILE, 0o644, "", "out")],
            &[link("/tmp"), ("app/l/x/", EntryType::Directory, 0o755, "", "")],
            &[link("/tmp"), ("app/l/", EntryType::Directory, 0o755, "", "")],
            &[("app/h", EntryType::Link, 0o644, "../archive", "")],
            &[("app/h", EntryType::Link, 0o644, "/etc/passwd", "")],
            &[link("/etc/passwd"), ("app/h", EntryType::Link, 0o644, "app/l", "")],
            &[link("/etc"), ("app/h", EntryType::Link, 0o644, "app/l/passwd", "")],
            &[("app/n", EntryType::Char, 0o666, "", "")],
            &[("app/n", EntryType::Block, 0o666, "", "")],
            &[("app/n", EntryType::Fifo, 0o666, "", "")],
            &[("app/.wh.x", FILE, 0o644, "", "")],
            &[("app/d/", EntryType::Directory, 0o755, "", ""), ("app/d", FILE, 0o644, "", "")],
        ];
        for entries in bad {
            let (here, result) = unpacked(&tarred(entries), MOST);
            assert!(matches!(result, Err(Error::Entry { .. })), "{entries:?}: {result:?}");
            let beside: Vec<_> = fs::read_dir(here.path()).expect("a directory").flatten().collect();
            assert_eq!(beside.len(), 2, "{entries:?}");
        }
    }

    #[test]
    fn a_file_in_place_of_a_link_leaves_what_the_link_points_at() {
        let (here, result) = unpacked(
            &tarred(&[("app/l", EntryType::Symlink, 0o777, "../archive", ""), ("app/l", FILE, 0o644, "", "mine")]),
            MOST,
        );
        result.expect("unpacked");
        assert_eq!(fs::read_to_string(here.path().join("tree/l")).expect("a file"), "mine");
        assert!(fs::read(here.path().join("archive")).expect("a file").starts_with(&[0x1f, 0x8b]));
    }

    #[test]
    fn bombs_are_counted() {
        let zeros = "\0".repeat(MOST as usize + 1);
        let many: Vec<String> = (0..300).map(|n| format!("app/{n}")).collect();
        let many: Vec<Given> = many.iter().map(|name| (name.as_str(), FILE, 0o644, "", "")).collect();
        let mut padded = GzEncoder::new(tarred(&[("app/x", FILE, 0o644, "", "x")]), Compression::fast());
        padded.write_all(zeros.as_bytes()).expect("gzip");
        for bytes in [tarred(&[("app/zeros", FILE, 0o644, "", &zeros)]), tarred(&many), padded.finish().expect("gzip")]
        {
            let (_here, result) = unpacked(&bytes, MOST);
            assert!(matches!(result, Err(Error::TooLarge(MOST))), "{result:?}");
        }
        let long = "x".repeat(70_000);
        let (_here, result) = unpacked(&tarred(&[("././@LongLink", EntryType::GNULongName, 0o644, "", &long)]), MOST);
        assert!(matches!(result, Err(Error::Unreadable(_))), "{result:?}");
        let deep = format!("app/{}", "d/".repeat(400));
        let entries = [("././@LongLink", EntryType::GNULongName, 0o644, "", deep.as_str()), ("x", FILE, 0o644, "", "")];
        let (_here, result) = unpacked(&tarred(&entries), MOST);
        assert!(matches!(result, Err(Error::Entry { .. })), "{result:?}");
    }

    #[test]
    fn half_an_archive_is_none() {
        let whole = tarred(&[("app/a", FILE, 0o644, "", &"text".repeat(1000)), ("app/b", FILE, 0o644, "", "b")]);
        for cut in [whole.len() / 2, whole.len() - 4] {
            let (_here, result) = unpacked(&whole[..cut], MOST);
            assert!(matches!(result, Err(Error::Unreadable(_))), "{cut}: {result:?}");
        }
        for bytes in [&b"PK\x03\x04"[..], b""] {
            let (_here, result) = unpacked(bytes, MOST);
            assert!(matches!(result, Err(Error::Unreadable(_))), "{result:?}");
        }
        let (_here, result) = unpacked(&tarred(&[("./", EntryType::Directory, 0o755, "", "")]), MOST);
        assert!(matches!(result, Err(Error::Empty)), "{result:?}");
    }
}
