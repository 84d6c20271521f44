//! The folder that a build's container sees as `/build`: what is asked of the builder, and what it answers.

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use dozen_api::build::{Error, Spec};
use dozen_domain::{
    buildpack::{BuildLimits, BuildSpec, Reference, Submodule},
    ids::AppId,
};
use serde::{Serialize, de::DeserializeOwned};

use super::platform;
use crate::{artefacts::remove_tree, engine::Host};

/// What the builder may answer at most; a Procfile of a megabyte is none.
const ANSWER: u64 = 4 << 20;
/// Memory file system for config vars, which must not be on the disk.
const MEMORY: &str = "/dev/shm";

/// The folder of one build; removed with this value.
pub(super) struct Folder {
    host: Arc<Host>,
    app: AppId,
    /// Bound as `/build`, writable.
    pub(super) path: PathBuf,
    /// Bound as `/build/env`.
    pub(super) env: PathBuf,
    /// Bound as `/build/source.tar`.
    pub(super) source: PathBuf,
    /// Folders on this machine that are buildpacks: outside, inside.
    pub(super) buildpacks: Vec<(PathBuf, PathBuf)>,
    /// Whether the analysis needs the network.
    pub(super) foreign: bool,
}

/// Start of the names of config var directories of this data directory.
fn prefix(host: &Host) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, host.options.data.as_os_str().as_encoded_bytes());
    format!("dozen-{}-", data_encoding::HEXLOWER.encode(&hash.as_ref()[..6]))
}

/// Removes config vars that builds of an earlier process left in memory.
pub(super) fn clear(host: &Host) {
    let prefix = prefix(host);
    for entry in fs::read_dir(MEMORY).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            remove_tree(&entry.path());
        }
    }
}

fn private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// A buildpack on this machine, by its real path, which must be in one of the directories that the operator lists. What
/// an app can write could be another place by the time it is bound, or another app's, so nothing in the data directory
/// is one in any case.
fn local_buildpack(path: &Path, listed: &[PathBuf], data: &Path) -> Option<PathBuf> {
    let (path, data) = (fs::canonicalize(path).ok()?, fs::canonicalize(data).ok()?);
    let is_listed = listed.iter().filter_map(|listed| fs::canonicalize(listed).ok()).any(|it| path.starts_with(it));
    let is_buildpack = path.join("bin/detect").is_file() && path.join("bin/compile").is_file();
    (is_listed && is_buildpack && !path.starts_with(data) && !path.starts_with("/proc")).then_some(path)
}

impl Folder {
    pub(super) fn make(host: &Arc<Host>, spec: &Spec) -> Result<Self, Error> {
        let name = spec.build.to_string();
        let path = host.options.data.join("tmp").join(&name);
        let memory = Path::new(MEMORY).join(prefix(host) + &name);
        let env = match private(&memory) {
            Ok(()) => memory,
            Err(_) => host.options.data.join("tmp").join(format!("{name}.env")),
        };
        let mut folder = Self {
            host: host.clone(),
            app: spec.app,
            path,
            env,
            source: spec.source.clone(),
            buildpacks: Vec::new(),
            foreign: !spec.submodules.is_empty(),
        };
        folder.fill(spec)?;
        Ok(folder)
    }

    fn fill(&mut self, spec: &Spec) -> Result<(), Error> {
        let owners = &self.host.owners;
        let give = |path: &Path| owners.give(self.app, path).map_err(platform("give the build its folder"));
        remove_tree(&self.path); // of a build with this id that was killed half way
        private(&self.path).map_err(platform("make the build's folder"))?;
        if !self.env.is_dir() {
            private(&self.env).map_err(platform("make the build's folder"))?;
        }
        for (key, value) in &spec.env {
            // A key is one path component by the rules for config vars but for these.
            if key.contains('/') || key == "." || key == ".." {
                continue;
            }
            let path = self.env.join(key);
            let write = |path: &Path| -> io::Result<()> {
                let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
                file.write_all(value.expose().as_bytes())
            };
            write(&path).map_err(platform("hand over config vars"))?;
            give(&path)?;
        }
        give(&self.env)?;
        give(&self.path)?;
        // The container reads it as the app's user; whoever made it is root and still may.
        give(&self.source)?;
        let cache = self.host.cache(self.app);
        owners.directory(self.app, &cache).map_err(platform("make the build cache"))?;
        for (number, reference) in spec.buildpacks.iter().enumerate() {
            match reference {
                Reference::Path(path) => {
                    let options = &self.host.options;
                    let found = local_buildpack(Path::new(path), &options.buildpack_dirs, &options.data);
                    self.buildpacks.extend(found.map(|path| (path, format!("/build/buildpacks/{number}").into())));
                }
                Reference::Git { .. } | Reference::Tarball { .. } => self.foreign = true,
                Reference::BuiltIn(_) => {}
            }
        }
        let limits = &self.host.options.limits;
        let text = |key: &str| spec.platform_env.get(key).map(|value| value.expose().to_owned());
        let submodule = |module: &dozen_api::build::Submodule| Submodule {
            path: module.path.clone(),
            url: module.url.clone(),
            commit: module.commit.clone(),
        };
        let request = BuildSpec {
            buildpacks: spec.buildpacks.clone(),
            submodules: spec.submodules.iter().map(submodule).collect(),
            limits: BuildLimits { log_bytes: limits.build_log_bytes, source_bytes: limits.source_bytes },
            stack: text("STACK").unwrap_or_else(|| "heroku-24".to_owned()),
            source_version: text("SOURCE_VERSION").unwrap_or_default(),
        };
        self.write("spec.json", &request).map_err(platform("write what is asked of the build"))
    }

    /// Puts a file there for the builder to read.
    pub(super) fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let path = self.path.join(name);
        // Never through a link that a process of the first phase might have put there.
        let _ = fs::remove_file(&path);
        let mut file = fs::File::options().write(true).create_new(true).mode(0o644).open(&path)?;
        file.write_all(&serde_json::to_vec(value)?)
    }

    /// Reads a file that the builder, or code that it ran, has written.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        let path = self.path.join(name);
        let file = fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is no file")));
        }
        let mut bytes = Vec::new();
        file.take(ANSWER).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let (path, env) = (self.path.clone(), self.env.clone());
        tokio::task::spawn_blocking(move || {
            remove_tree(&env);
            remove_tree(&path);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_local_buildpack_is_bound_by_its_real_path_and_only_from_listed_directories() {
        let here = tempfile::tempdir().expect("a directory");
        let make = |path: &Path| {
            fs::create_dir_all(path.join("bin")).expect("a directory");
            for name in ["bin/detect", "bin/compile"] {
                fs::write(path.join(name), "").expect("a file");
            }
        };
        let real = here.path().canonicalize().expect("a path");
        let (data, listed) = (real.join("data"), [real.join("listed"), real.join("data"), real.join("missing")]);
        let (good, other, of_an_app) = (real.join("listed/good"), real.join("other"), real.join("data/apps/a/cache/b"));
        for path in [&good, &other, &of_an_app] {
            make(path);
        }
        let link = |to: &Path, name: &str| {
            symlink(to, real.join(name)).expect("a link");
            real.join(name)
        };
        let found = |path: &Path| local_buildpack(path, &listed, &data);
        assert_eq!(found(&good), Some(good.clone()));
        assert_eq!(found(&link(&good, "link")), Some(good.clone()));
        let inside = link(&of_an_app, "listed/leads-in");
        let outside = link(&other, "listed/leads-out");
        let around = real.join("listed/../other");
        for bad in [of_an_app, inside, outside, around, other, real.join("listed/none")] {
            assert_eq!(found(&bad), None, "{}", bad.display());
        }
        assert_eq!(local_buildpack(&good, &[], &data), None);
    }
}
