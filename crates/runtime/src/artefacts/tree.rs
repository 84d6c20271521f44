//! Unpacked layers. A tree is a cache of its blob: it is used when it is known to be whole, else made again.
//!
//! Beside the tree `<hex>` stands `<hex>.state`: the id of the boot in which it was made, or `synced` once its files
//! are known to be on disk. A tree of an earlier boot that was never synced may have lost files with the power, so it
//! is thrown away. Syncing happens in the background; nobody waits for it.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Component, Path, PathBuf},
};

use dozen_api::removal::remove_all;
use dozen_domain::ids::AppId;
use ring::digest::{Context, SHA256};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat, syncfs};

use super::{
    Error, Store, digest_of, failed,
    manifest::damaged,
    pack::{OPAQUE, OPAQUE_MARKS, WHITEOUT},
    partial,
    verify::same,
};

const SYNCED: &str = "synced";

/// Identifies this boot of the machine.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn state_path(tree: &Path) -> PathBuf {
    tree.with_extension("state")
}

fn is_whole(tree: &Path) -> bool {
    let Ok(state) = fs::read_to_string(state_path(tree)) else { return false };
    tree.is_dir() && (state == SYNCED || state == boot_id())
}

impl Store {
    /// Puts a staged tree in its place, or drops it when the same is there already.
    pub(super) fn place_tree(&self, app: AppId, staged: &Path, hex: &str) -> Result<PathBuf, Error> {
        let tree = self.layers(app).join(hex);
        if is_whole(&tree) {
            remove_tree(staged);
            return Ok(tree);
        }
        if tree.exists() {
            let rubbish = partial(&tree);
            fs::rename(&tree, &rubbish).map_err(failed("move", &tree))?;
            remove_tree(&rubbish);
        }
        fs::rename(staged, &tree).map_err(failed("move", staged))?;
        fs::write(state_path(&tree), boot_id()).map_err(failed("write", &state_path(&tree)))?;
        Ok(tree)
    }

    /// Syncs trees to disk in the background and notes that they are.
    pub(super) fn sync_trees(trees: Vec<PathBuf>) {
        let Some(first) = trees.first().cloned() else { return };
        let sync = move || -> io::Result<()> {
            syncfs(File::open(&first)?)?;
            for tree in trees.iter().filter(|tree| tree.is_dir()) {
                fs::write(state_path(tree), SYNCED)?;
            }
            Ok(())
        };
        std::thread::spawn(move || {
            if let Err(error) = sync() {
                tracing::warn!(%error, "could not sync image layers; they will be unpacked again after a reboot");
            }
        });
    }

    /// The tree of a layer, unpacked from its blob when it is not there.
    pub(super) fn ensure_tree(&self, app: AppId, hex: &str) -> Result<PathBuf, Error> {
        let tree = self.layers(app).join(hex);
        if is_whole(&tree) {
            return Ok(tree);
        }
        let layers = self.layers(app);
        fs::create_dir_all(&layers).map_err(failed("make directory", &layers))?;
        let staged = partial(&tree);
        let made = self.unpack(hex, &staged).and_then(|()| self.owners.give_tree(app, &staged.join("app")));
        if let Err(error) = made {
            remove_tree(&staged);
            return Err(error);
        }
        let tree = self.place_tree(app, &staged, hex)?;
        Self::sync_trees(vec![tree.clone()]);
        Ok(tree)
    }

    fn unpack(&self, hex: &str, to: &Path) -> Result<(), Error> {
        let path = self.blob(hex);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(digest_of(hex).0)),
            opened => opened.map_err(failed("open", &path))?,
        };
        fs::create_dir_all(to).map_err(failed("make directory", to))?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(failed("make directory", to))?;
        let mut hashing = Hashing { inner: file, context: Context::new(&SHA256) };
        unpack_tar(&mut hashing, to).map_err(|error| damaged(&digest_of(hex), &error))?;
        io::copy(&mut hashing, &mut io::sink()).map_err(failed("read", &path))?;
        let actual = data_encoding::HEXLOWER.encode(hashing.context.finish().as_ref());
        same(hex, &actual)
    }
}

struct Hashing {
    inner: File,
    context: Context,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.context.update(&buffer[..n]);
        Ok(n)
    }
}

fn unpack_tar(from: impl Read, to: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(zstd::stream::Decoder::new(from)?);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_unpack_xattrs(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("entry {} leads outside", name.display())));
        }
        let (parent, file) = (name.parent().unwrap_or(Path::new("")), name.file_name().unwrap_or_default());
        if file == OPAQUE {
            make_opaque(&to.join(parent))?;
        } else if let Some(hidden) = file.as_bytes().strip_prefix(WHITEOUT.as_bytes()) {
            let place = to.join(parent).join(OsStr::from_bytes(hidden));
            mknodat(CWD, CString::new(place.as_os_str().as_bytes())?, FileType::CharacterDevice, Mode::empty(), 0)?;
        } else {
            entry.unpack_in(to)?;
        }
    }
    Ok(())
}

/// Sets the marks that this process may set: the second works for anybody, the first for root alone.
fn make_opaque(directory: &Path) -> io::Result<()> {
    let set = |mark| lsetxattr(directory, mark, b"y", XattrFlags::empty());
    let results = OPAQUE_MARKS.map(set);
    if results.iter().all(Result::is_err) { results[1].map_err(Into::into) } else { Ok(()) }
}

/// Removes a tree, whatever modes and depth its directories have; what cannot be removed is left and told.
pub(crate) fn remove_tree(path: &Path) {
    match remove_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "could not remove a directory");
        }
        _ => {}
    }
}
