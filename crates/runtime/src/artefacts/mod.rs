//! The artefact store: OCI images as content-addressed blobs, and their layers unpacked for mounting.
//!
//! ```text
//! store/oci-layout, store/blobs/sha256/<hex>   manifests, configs, compressed layers: fsynced, shared by all apps
//! apps/<app>/images/<hex>                      a file for each image the app has: what its blobs were when last checked
//! apps/<app>/layers/<hex>/app/...              a layer unpacked, owned by the app's user: a cache of its blob
//! apps/<app>/layers.json                       which layer has which name and key, for the next build
//! ```
//!
//! [`commit`] makes an image from what a build wrote, [`Store::mounts`] says how to run one, [`Store::retain`] throws
//! away what nothing needs; [`Store::import`] and [`Store::export`] take and give images as Heroku's slug archives. All of it blocks; async callers use a blocking thread. The store trusts blobs by their
//! digest and trees only after they are known to be on disk ([`tree`]). It does not build, and does not serve a
//! registry.

mod commit;
mod export;
mod gc;
mod manifest;
mod owner;
mod pack;
mod tree;
mod unpack;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use dozen_domain::{
    ids::AppId,
    image::{BuildResult, Digest, LayerPlan},
};
use serde::{Deserialize, Serialize};
use verify::Seal;

pub use owner::Owners;
pub(crate) use tree::remove_tree;
pub use unpack::Error as Unpack;

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused something.
    #[error("{operation} {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is no such blob.
    #[error("{0} is not in the store")]
    Missing(String),
    /// A blob's bytes do not have its digest (R17). Both are in hexadecimal digits.
    #[error("sha256:{expected} is damaged: its bytes have the digest sha256:{actual}")]
    Checksum {
        /// The digest that names it.
        expected: String,
        /// The digest that it has.
        actual: String,
    },
    /// A blob does not say what it should (R17).
    #[error("{digest} is damaged: {reason}")]
    Damaged {
        /// Which blob.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A build's result names a layer in a way that could reach outside `/app`.
    #[error("the build's layer {0:?} is not a plain path below /app")]
    LayerPath(String),
    /// An archive was given as a slug and is none.
    #[error("the slug cannot be unpacked: {0}")]
    Archive(#[source] Unpack),
    /// The image is larger than `slug_bytes` allows.
    #[error("the slug is {size} bytes, over the limit of {limit} (DOZEN_LIMIT_SLUG_BYTES)")]
    TooLarge {
        /// Compressed size of all layers.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}

/// How an image is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounts {
    /// Layer roots from lowest to highest, each holding `app/`.
    pub layers: Vec<PathBuf>,
    /// Environment that goes below config vars.
    pub launch_env: BTreeMap<String, String>,
}

/// An image that was made.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The manifest's digest.
    pub image: Digest,
    /// Compressed size of all layers.
    pub size: u64,
    /// Compressed layers, lowest first.
    pub layers: Vec<Digest>,
}

/// A layer in the index of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Indexed {
    name: String,
    key: String,
    path: String,
    /// Hexadecimal digits of the compressed blob's digest.
    digest: String,
    /// The same of the uncompressed tar.
    diff_id: String,
    /// Compressed size in bytes.
    size: u64,
}

/// The artefact store of one data directory.
pub struct Store {
    data: PathBuf,
    owners: Arc<Owners>,
    slug_bytes: u64,
    /// Held shared while an image is made or taken up, alone while rubbish is removed.
    collect: RwLock<()>,
    /// Held while an app's index is read and written back.
    index: Mutex<()>,
    known: Mutex<HashMap<(AppId, Digest), Known>>,
}

/// An image that was made ready before.
#[derive(Clone)]
struct Known {
    mounts: Arc<Mounts>,
    seal: Seal,
}

impl Store {
    /// Opens the store in the data directory, making what is missing; removes half-made trees and blobs.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn open(data: &Path, owners: Arc<Owners>, slug_bytes: u64) -> Result<Self, Error> {
        let store = Self {
            data: data.to_owned(),
            owners,
            slug_bytes,
            collect: RwLock::default(),
            index: Mutex::default(),
            known: Mutex::default(),
        };
        let blobs = store.blobs();
        fs::create_dir_all(&blobs).map_err(failed("make directory", &blobs))?;
        let layout = data.join("store/oci-layout");
        if !layout.exists() {
            write_whole(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        remove_leftovers(&blobs);
        Ok(store)
    }

    /// The data directory that this store is part of.
    pub fn directory(&self) -> &Path {
        &self.data
    }

    fn blobs(&self) -> PathBuf {
        self.data.join("store/blobs/sha256")
    }

    fn blob(&self, hex: &str) -> PathBuf {
        self.blobs().join(hex)
    }

    fn app(&self, app: AppId) -> PathBuf {
        self.data.join("apps").join(app.to_string())
    }

    fn layers(&self, app: AppId) -> PathBuf {
        self.app(app).join("layers")
    }

    fn image_mark(&self, app: AppId, hex: &str) -> PathBuf {
        self.app(app).join("images").join(hex)
    }

    /// The tree of the app's layer with this name, path and key, ready to be mounted; `None` when it must be made.
    pub fn layer(&self, app: AppId, plan: &LayerPlan) -> Option<PathBuf> {
        let found = self.indexed(app).into_iter().find(|layer| layer.fits(plan))?;
        self.ensure_tree(app, &found.digest).ok()
    }

    fn index_path(&self, app: AppId) -> PathBuf {
        self.app(app).join("layers.json")
    }

    /// The app's index; an unreadable one is as good as none, for it only saves work.
    fn indexed(&self, app: AppId) -> Vec<Indexed> {
        let bytes = fs::read(self.index_path(app)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn change_index(&self, app: AppId, change: impl FnOnce(&mut Vec<Indexed>)) -> Result<(), Error> {
        let _one_at_a_time = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.indexed(app);
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(());
        }
        let path = self.index_path(app);
        let bytes = serde_json::to_vec(&after).map_err(|error| failed("write", &path)(error.into()))?;
        // It only saves work: not worth waiting for the disk.
        Batch::default().write(&path, &bytes)
    }

    /// How to run the image as the app: its layers, unpacked now if they are not, and its launch environment. The image
    /// counts as the app's from here on (a promotion).
    ///
    /// # Errors
    /// When the image is not in the store or damaged.
    pub fn mounts(&self, app: AppId, image: &Digest) -> Result<Arc<Mounts>, Error> {
        let key = (app, image.clone());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let usable =
            |known: &Known| known.mounts.layers.iter().all(|tree| tree.is_dir()) && self.is_sealed(&known.seal);
        if let Some(known) = known.filter(usable) {
            return Ok(known.mounts);
        }
        let _no_collection = self.collect.read().unwrap_or_else(PoisonError::into_inner);
        let manifest = self.manifest(image)?;
        let seal = self.mark_verified(app, image, &manifest)?;
        let layers =
            manifest.layers.iter().map(|layer| self.ensure_tree(app, layer.hex())).collect::<Result<Vec<_>, _>>()?;
        let mounts = Arc::new(Mounts { layers, launch_env: self.result(&manifest)?.launch_env });
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Known { mounts: mounts.clone(), seal });
        Ok(mounts)
    }

    /// What the builder found out about an image.
    ///
    /// # Errors
    /// When the image is not in the store or damaged.
    pub fn build_result(&self, image: &Digest) -> Result<BuildResult, Error> {
        self.result(&self.manifest(image)?)
    }

    /// Makes an image of a slug's archive, unpacked at `scratch` on the way, within `most` bytes of disk.
    ///
    /// # Errors
    /// When the archive is no slug, what it holds too large, or the disk refuses.
    pub fn import(
        &self,
        app: AppId,
        archive: &Path,
        scratch: &Path,
        most: u64,
        result: &BuildResult,
    ) -> Result<Committed, Error> {
        let file = fs::File::open(archive).map_err(failed("open", archive))?;
        let imported = unpack::unpack(file, scratch, most).map_err(|error| match error {
            Unpack::Io { path, source } => failed("unpack into", &path)(source),
            error => Error::Archive(error),
        });
        let imported = imported
            .and_then(|()| self.owners.give_tree(app, scratch))
            .and_then(|()| self.commit(app, scratch, result, &[]));
        remove_tree(scratch); // what is left of it after a failure
        imported
    }

    /// Writes an app's image as such an archive.
    ///
    /// # Errors
    /// When the image is not in the store or damaged, or the disk refuses.
    pub fn export(&self, app: AppId, image: &Digest, archive: &Path) -> Result<(), Error> {
        let mounts = self.mounts(app, image)?;
        let file = fs::File::create(archive).map_err(failed("make", archive))?;
        let _no_collection = self.collect.read().unwrap_or_else(PoisonError::into_inner);
        export::write(&mounts.layers, &mounts.launch_env, file).map_err(failed("export to", archive))
    }

    /// Notes that the app has the image.
    fn take_up(&self, app: AppId, image: &Digest, batch: &mut Batch) -> Result<(), Error> {
        let mark = self.image_mark(app, hex_of(image)?);
        if mark.exists() {
            return Ok(());
        }
        if let Some(parent) = mark.parent() {
            fs::create_dir_all(parent).map_err(failed("make directory", parent))?;
        }
        batch.write(&mark, b"")
    }
}

impl Indexed {
    fn fits(&self, plan: &LayerPlan) -> bool {
        self.name == plan.name && self.key == plan.key && self.path == plan.path
    }
}

/// The hexadecimal digits of a digest, checked, so that they can be a file name.
fn hex_of(digest: &Digest) -> Result<&str, Error> {
    let hex =
        digest.0.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.ok_or_else(|| Error::Missing(digest.0.clone()))
}

fn digest_of(hex: &str) -> Digest {
    Digest(format!("sha256:{hex}"))
}

const PARTIAL: &str = ".partial"; // suffix of what is not whole yet

/// A name beside `path` for making it; never the same twice.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}{PARTIAL}", uuid::Uuid::new_v4().simple()));
    path.with_file_name(name)
}

/// Removes what a killed run left half-made in a directory.
fn remove_leftovers(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().ends_with(PARTIAL.as_bytes()) {
            let _ = dozen_api::removal::remove_all(&entry.path());
        }
    }
}

/// Files written together, made durable together: the disk is waited for once and not for each.
#[derive(Default)]
struct Batch {
    written: Vec<PathBuf>,
}

impl Batch {
    /// Writes a file that is whole as soon as it has its name.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let temporary = partial(path);
        fs::write(&temporary, bytes).map_err(failed("write", path))?;
        self.place(&temporary, path)
    }

    /// Gives a finished file its name.
    fn place(&mut self, temporary: &Path, path: &Path) -> Result<(), Error> {
        fs::rename(temporary, path).map_err(failed("move", temporary))?;
        self.written.push(path.to_owned());
        Ok(())
    }

    /// Returns when everything is on the disk.
    fn sync(self) -> Result<(), Error> {
        let parents: BTreeSet<PathBuf> =
            self.written.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        let sync = |path: &PathBuf| fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path));
        std::thread::scope(|scope| {
            // The file system joins flushes that are asked for at the same time.
            let syncing: Vec<_> =
                self.written.iter().chain(&parents).map(|path| scope.spawn(move || sync(path))).collect();
            syncing.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })
    }
}

/// Writes a file so that after a crash it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut batch = Batch::default();
    batch.write(path, bytes)?;
    batch.sync()
}

#[cfg(test)]
mod tests;
