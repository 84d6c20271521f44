//! Throws away images, layers and blobs that nothing needs.

use std::{collections::HashSet, fs, io, path::Path, sync::PoisonError};

use dozen_domain::{ids::AppId, image::Digest};

use super::{Batch, Error, PARTIAL, Store, failed, hex_of, tree::remove_tree};

impl Store {
    /// Keeps these images of an app and no others; an app that keeps none loses its layers, index and caches too. Its
    /// other files (`repo.git`) are not the store's.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retain(&self, app: AppId, keep: &[Digest]) -> Result<(), Error> {
        let _alone = self.collect.write().unwrap_or_else(PoisonError::into_inner);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| *of != app);
        let kept: HashSet<String> = keep.iter().filter_map(|image| hex_of(image).ok().map(str::to_owned)).collect();
        let mut batch = Batch::default();
        for hex in &kept {
            if self.blob(hex).exists() {
                self.take_up(app, &super::digest_of(hex), &mut batch)?;
            }
        }
        batch.sync()?;
        let marks = self.app(app).join("images");
        for hex in names(&marks)?.into_iter().filter(|hex| !kept.contains(hex)) {
            let mark = marks.join(hex);
            fs::remove_file(&mark).map_err(failed("remove", &mark))?;
        }
        if kept.is_empty() {
            for part in ["layers", "cache", "images"] {
                remove_tree(&self.app(app).join(part));
            }
            for part in ["layers.json", "uid"] {
                let _ = fs::remove_file(self.app(app).join(part));
            }
            let _ = fs::remove_dir(self.app(app)); // stays when others keep something in it
        } else {
            let needed = self.needed(&kept)?;
            self.change_index(app, |index| index.retain(|layer| needed.contains(&layer.digest)))?;
            let layers = self.layers(app);
            for name in names(&layers)? {
                let hex = name.split('.').next().unwrap_or_default();
                if !needed.contains(hex) {
                    remove(&layers.join(&name));
                }
            }
        }
        self.sweep()
    }

    /// Removes blobs that no app's images need.
    fn sweep(&self) -> Result<(), Error> {
        let mut images = HashSet::new();
        for app in names(&self.data.join("apps"))? {
            images.extend(names(&self.data.join("apps").join(app).join("images"))?);
        }
        let needed = self.needed(&images)?;
        for name in names(&self.blobs())? {
            if !needed.contains(&name) && !name.ends_with(PARTIAL) {
                let path = self.blob(&name);
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Digits of every blob that these images consist of. A damaged manifest keeps itself and nothing else.
    ///
    /// What cannot be read at the moment is no proof that it needs nothing: then there is no answer.
    fn needed(&self, images: &HashSet<String>) -> Result<HashSet<String>, Error> {
        let mut needed = images.clone();
        for hex in images {
            match self.manifest(&super::digest_of(hex)) {
                Ok(manifest) => {
                    needed.insert(manifest.config.hex().to_owned());
                    needed.extend(manifest.layers.iter().map(|layer| layer.hex().to_owned()));
                }
                Err(Error::Missing(_) | Error::Checksum { .. } | Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(needed)
    }
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let list = || -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            entries => entries?.collect::<io::Result<Vec<_>>>()?,
        };
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    };
    list().map_err(failed("list", directory))
}

fn remove(path: &Path) {
    if path.is_dir() {
        remove_tree(path);
    } else {
        let _ = fs::remove_file(path);
    }
}
