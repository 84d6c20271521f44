//! Makes an image from what a build left in the upper directory of its overlay.
//!
//! Planned subtrees are renamed out into layers of their own, the rest is the last layer; nothing is copied. A layer
//! that the build only had mounted costs nothing: its digests come from the app's index.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
    sync::PoisonError,
};

use dozen_domain::{
    ids::AppId,
    image::{BuildResult, LayerPlan},
};

use super::{
    Batch, Committed, Error, Indexed, Store, digest_of, failed, manifest::Layer, pack, partial, tree::remove_tree,
};

/// A layer that was packed: its place in the index and its tree, not yet in place.
struct Made {
    packed: pack::Packed,
    staged: PathBuf,
}

impl Store {
    /// Makes an image of `upper`, the directory that a build has filled as `/app`, and takes it apart on the way.
    /// `restored` are the planned layers that were mounted below it.
    ///
    /// # Errors
    /// When a layer's path leads outside, the image is too large, or the disk refuses.
    pub fn commit(
        &self,
        app: AppId,
        upper: &Path,
        result: &BuildResult,
        restored: &[LayerPlan],
    ) -> Result<Committed, Error> {
        let _no_collection = self.collect.read().unwrap_or_else(PoisonError::into_inner);
        let directory = self.layers(app);
        fs::create_dir_all(&directory).map_err(failed("make directory", &directory))?;
        let index = self.indexed(app);
        let mut layers: Vec<Layer> = Vec::new();
        let mut batch = Batch::default();
        let mut trees = Vec::new();
        let mut fresh = Vec::new();
        for plan in &result.layers {
            let old = index.iter().find(|layer| restored.contains(plan) && layer.fits(plan));
            if let Some(old) = old {
                layers.push(old.layer());
                continue;
            }
            let staged = partial(&directory.join("layer"));
            if !self.take_out(app, upper, &plan.path, &staged)? {
                continue;
            }
            let made = self.pack(staged, &mut batch)?;
            let entry = made.packed.index(plan);
            layers.push(entry.layer());
            fresh.push(entry);
            trees.push(self.place_tree(app, &made.staged, &made.packed.digest)?);
        }
        let staged = partial(&directory.join("layer"));
        make_root(&staged)?;
        fs::rename(upper, staged.join("app")).map_err(failed("move", upper))?;
        let made = self.pack(staged, &mut batch)?;
        layers.push(made.packed.layer());
        trees.push(self.place_tree(app, &made.staged, &made.packed.digest)?);

        let size = layers.iter().map(|layer| layer.size).sum();
        if size > self.slug_bytes {
            return Err(Error::TooLarge { size, limit: self.slug_bytes });
        }
        self.change_index(app, |index| {
            index.retain(|old| !fresh.iter().any(|new| new.name == old.name && new.key == old.key));
            index.extend(fresh);
        })?;
        let image = self.write_image(&layers, result, &mut batch)?;
        self.mark_fresh(app, &image, &mut batch)?;
        batch.sync()?;
        Self::sync_trees(trees);
        Ok(Committed { image, size, layers: layers.into_iter().map(|layer| layer.digest).collect() })
    }

    /// Packs a staged tree into a blob under its digest.
    fn pack(&self, staged: PathBuf, batch: &mut Batch) -> Result<Made, Error> {
        let temporary = partial(&self.blob("layer"));
        let file = fs::File::create(&temporary).map_err(failed("make", &temporary))?;
        let packed = pack::pack(&staged, file).map_err(failed("pack", &staged));
        let packed = packed.inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
            remove_tree(&staged);
        })?;
        batch.place(&temporary, &self.blob(&packed.digest))?;
        Ok(Made { packed, staged })
    }

    /// Moves `upper/<path>` to `staged/app/<path>`; says whether there was anything.
    fn take_out(&self, app: AppId, upper: &Path, path: &str, staged: &Path) -> Result<bool, Error> {
        let relative = Path::new(path);
        let parts: Vec<_> = relative.components().collect();
        if parts.is_empty() || !parts.iter().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::LayerPath(path.to_owned()));
        }
        // The build's processes owned this tree: a symbolic link on the way would lead the rename elsewhere.
        let mut here = upper.to_owned();
        for part in &parts {
            here.push(part);
            match here.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(metadata) if metadata.is_symlink() => return Err(Error::LayerPath(path.to_owned())),
                _ => return Ok(false),
            }
        }
        make_root(staged)?;
        let mut parent = staged.join("app");
        self.make_parent(app, &parent)?;
        for part in &parts[..parts.len() - 1] {
            parent.push(part);
            self.make_parent(app, &parent)?;
        }
        fs::rename(&here, staged.join("app").join(relative)).map_err(failed("move", &here))?;
        // Directories that were only there for it would tell a build that made it from one that had it mounted.
        for _ in 1..parts.len() {
            here.pop();
            if fs::remove_dir(&here).is_err() {
                break;
            }
        }
        Ok(true)
    }

    fn make_parent(&self, app: AppId, path: &Path) -> Result<(), Error> {
        self.owners.directory(app, path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed("make directory", path))
    }
}

/// A layer's root: passable for the app's user, who owns only `app` in it.
fn make_root(path: &Path) -> Result<(), Error> {
    fs::create_dir(path).map_err(failed("make directory", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed("make directory", path))
}

impl Indexed {
    fn layer(&self) -> Layer {
        Layer { digest: digest_of(&self.digest), diff_id: digest_of(&self.diff_id), size: self.size }
    }
}

impl pack::Packed {
    fn layer(&self) -> Layer {
        Layer { digest: digest_of(&self.digest), diff_id: digest_of(&self.diff_id), size: self.size }
    }

    fn index(&self, plan: &LayerPlan) -> Indexed {
        Indexed {
            name: plan.name.clone(),
            key: plan.key.clone(),
            path: plan.path.clone(),
            digest: self.digest.clone(),
            diff_id: self.diff_id.clone(),
            size: self.size,
        }
    }
}
