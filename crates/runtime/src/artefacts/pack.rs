//! A tree as a layer blob: a tar that depends on nothing but the tree's contents, compressed with zstd, hashed on the way.
//!
//! Names are sorted, owners are 0, times are one fixed time, extended attributes are left out. An overlay's
//! whiteouts (character devices 0:0) become `.wh.<name>` and opaque directories get a `.wh..wh..opq`, as the OCI
//! image specification has them.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, BufWriter, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};
use rustix::fs::lgetxattr;
use tar::{Builder, EntryType, Header};

/// Modification time of every entry, seconds since 1970: 1980-01-01T00:00:01Z, which ZIP files can hold too.
pub(super) const MTIME: u64 = 315_532_801;
/// Fastest level; a push waits for it.
const LEVEL: i32 = 1;

/// Prefix of a whiteout's name.
pub(super) const WHITEOUT: &str = ".wh.";
/// Name of the entry that makes its directory opaque.
pub(super) const OPAQUE: &str = ".wh..wh..opq";
/// Attributes with which an overlay marks an opaque directory: mounted by root, and in a user namespace.
pub(super) const OPAQUE_MARKS: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Digits of digests and the size of a packed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) digest: String,
    pub(super) diff_id: String,
    pub(super) size: u64,
}

/// Hashes and counts what goes through.
struct Hashing<W> {
    inner: W,
    context: Context,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, context: Context::new(&SHA256), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, data_encoding::HEXLOWER.encode(self.context.finish().as_ref()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.context.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Packs `root/app` into `to`.
pub(super) fn pack(root: &Path, to: File) -> io::Result<Packed> {
    let outer = Hashing::new(BufWriter::with_capacity(256 << 10, to));
    let compress = zstd::stream::Encoder::new(outer, LEVEL)?;
    let inner = Hashing::new(BufWriter::with_capacity(128 << 10, compress));
    let mut packer = Packer { tar: Builder::new(inner), links: HashMap::new() };
    packer.directory(&root.join("app"), Path::new("app"), &root.join("app").symlink_metadata()?)?;
    let (compress, diff_id, _) = packer.tar.into_inner()?.finish();
    let compress = compress.into_inner().map_err(io::IntoInnerError::into_error)?;
    let (file, digest, size) = compress.finish()?.finish();
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Packed { digest, diff_id, size })
}

struct Packer<W: Write> {
    tar: Builder<W>,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut header = header(EntryType::Directory, metadata);
        self.tar.append_data(&mut header, name.join(""), io::empty())?;
        if OPAQUE_MARKS.iter().any(|mark| is_marked(path, mark)) {
            self.whiteout(&name.join(OPAQUE))?;
        }
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self.entry(&entry.path(), name, &entry.file_name(), &entry.metadata()?)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, parent: &Path, name: &OsStr, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        let full = parent.join(name);
        if kind.is_dir() {
            self.directory(path, &full, metadata)
        } else if kind.is_symlink() {
            let mut header = header(EntryType::Symlink, metadata);
            header.set_mode(0o777);
            self.tar.append_link(&mut header, full, fs::read_link(path)?)
        } else if kind.is_file() {
            self.file(path, full, metadata)
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            let mut whiteout = std::ffi::OsString::from(WHITEOUT);
            whiteout.push(name);
            self.whiteout(&parent.join(whiteout))
        } else {
            Ok(()) // sockets, pipes and devices belong to processes, not to images
        }
    }

    fn file(&mut self, path: &Path, full: PathBuf, metadata: &Metadata) -> io::Result<()> {
        if metadata.nlink() > 1 {
            let id = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&id) {
                return self.tar.append_link(&mut header(EntryType::Link, metadata), full, first);
            }
            self.links.insert(id, full.clone());
        }
        let mut header = header(EntryType::Regular, metadata);
        header.set_size(metadata.len());
        let file = File::open(path)?;
        // Nobody writes here any more; a file that changed all the same must not shift what follows it.
        let mut exactly = io::Read::take(file, metadata.len());
        self.tar.append_data(&mut header, full, &mut exactly)?;
        if exactly.limit() > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} shrank", path.display())));
        }
        Ok(())
    }

    fn whiteout(&mut self, name: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(MTIME);
        header.set_size(0);
        self.tar.append_data(&mut header, name, io::empty())
    }
}

pub(super) fn header(kind: EntryType, metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(0);
    header
}

pub(super) fn is_marked(path: &Path, mark: &str) -> bool {
    let mut value = [0_u8; 4];
    lgetxattr(path, mark, &mut value[..]).is_ok_and(|n| value[..n.min(4)].starts_with(b"y"))
}
