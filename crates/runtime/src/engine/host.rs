//! What engine and builds share: where things are, how the machine is used, the store, the network.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use dozen_api::logs::Sender;
use dozen_domain::{
    ids::{AppId, DynoId},
    limits::Limits,
};
use ring::digest::{SHA256, digest};

use crate::{
    artefacts::{self, Owners, Store},
    cgroup::Cgroup,
    network::{self, Network, Prefix},
    sandbox::{System, disk},
};

/// Where the platform's executable is inside.
pub(crate) const EXECUTABLE: &str = "/opt/dozen/bin/dozen";

/// How this machine is used. Nothing is read from the environment here.
#[derive(Clone)]
pub struct Options {
    /// The data directory.
    pub data: PathBuf,
    /// The `dozen` executable, started as `<exe> shim <directory>` and bound into builds.
    pub exe: PathBuf,
    /// The platform's limits.
    pub limits: Limits,
    /// Takes the platform's own lines about dynos.
    pub logs: Sender,
    /// Whether the process is root: apps get users, control groups and networks of their own.
    pub root: bool,
    /// Private networks that dynos and builds may reach (`DOZEN_DYNO_ALLOW_NETWORKS`).
    pub allow_networks: Vec<Prefix>,
    /// Where folders may be that are buildpacks (`DOZEN_BUILDPACK_DIRS`).
    pub buildpack_dirs: Vec<PathBuf>,
    /// Toolchains for builds: directory outside, directory inside (`/opt/dozen/rust`, `/opt/dozen/go`).
    pub toolchains: Vec<(PathBuf, PathBuf)>,
    /// The trust store that programs in builds are pointed at, usually `/etc/ssl/certs/ca-certificates.crt`.
    pub ca_bundle: Option<PathBuf>,
}

/// Why the machine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the data directory cannot be made.
    #[error("make directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The artefact store cannot be opened.
    #[error("open the artefact store")]
    Store(#[source] artefacts::Error),
    /// The network of the dynos cannot be set up.
    #[error("set up the network of the dynos")]
    Network(#[source] network::Error),
}

/// The machine, ready for dynos and builds.
pub struct Host {
    pub(crate) options: Options,
    pub(crate) owners: Arc<Owners>,
    pub(crate) store: Store,
    pub(crate) network: Network,
    /// Parent of the dynos' control groups, `dozen-1a2b3c`; none when there are no control groups for us.
    pub(crate) cgroup: Option<String>,
    /// What is ready of dynos' roots; none when this machine cannot do that.
    system: Mutex<Option<Arc<System>>>,
    /// What dynos' disks are copied from; none when this machine cannot bound them.
    pub(crate) disk: Option<PathBuf>,
    /// What was in the scratch directory before this process put anything there.
    pub(crate) found: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Host {
    /// Makes directories, store and network ready. Everything here may be done again at each start.
    ///
    /// # Errors
    /// When the disk or the kernel refuses; a missing packet filter is a warning ([`Host::warnings`]).
    pub async fn prepare(options: Options) -> Result<Self, Error> {
        for name in ["run/dynos", "tmp", "apps", "store"] {
            let path = options.data.join(name);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| Error::Directory { path, source })?;
        }
        let scratch = fs::read_dir(options.data.join("tmp")).into_iter().flatten().flatten();
        let found = scratch.map(|entry| entry.path()).collect();
        let owners = Arc::new(Owners::open(&options.data, options.root).map_err(Error::Store)?);
        let store = Store::open(&options.data, owners.clone(), options.limits.slug_bytes).map_err(Error::Store)?;
        let mut warnings = Vec::new();
        let network = if options.root {
            match Network::setup(&options.data, &options.allow_networks).await {
                Err(error @ network::Error::NoFilter) => {
                    warnings.push(format!("{error}; until then apps share this machine's network"));
                    Network::host()
                }
                network => network.map_err(Error::Network)?,
            }
        } else {
            Network::host()
        };
        let (bytes, files) = (options.limits.dyno_disk_bytes, options.limits.dyno_disk_files);
        let disk = if options.root { Some(disk::template(&options.data.join("store"), bytes, files)) } else { None };
        let disk = disk.transpose().unwrap_or_else(|error| {
            warnings.push(format!("what dynos write to disk is not bounded: {error}"));
            None
        });
        let hash = digest(&SHA256, options.data.as_os_str().as_encoded_bytes());
        let hex = data_encoding::HEXLOWER.encode(&hash.as_ref()[..3]);
        let cgroup = options.root.then(|| format!("dozen-{hex}"));
        let host = Self { options, owners, store, network, cgroup, system: Mutex::default(), disk, found, warnings };
        host.system(); // for the first dyno
        Ok(host)
    }

    /// What an operator should know about this machine, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The artefact store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The network of the dynos.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What is ready of a dyno's root, as the machine is now; none where each root is made whole. The dyno's init finds
    /// it while this is kept. Blocks.
    pub(crate) fn system(&self) -> Option<Arc<System>> {
        if !self.options.root {
            return None;
        }
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if system.as_ref().is_none_or(|system| system.is_stale()) {
            let made = System::make(&self.options.data.join("run/system"), &[Path::new(EXECUTABLE)]);
            let made = made.inspect_err(|error| tracing::warn!(%error, "every dyno's root is made whole"));
            *system = made.ok().map(Arc::new);
        }
        system.clone()
    }

    /// Where all dynos' directories are.
    pub(crate) fn dynos(&self) -> PathBuf {
        self.options.data.join("run/dynos")
    }

    /// Where a dyno's shim lives.
    pub(crate) fn directory(&self, dyno: DynoId) -> PathBuf {
        self.dynos().join(dyno.to_string())
    }

    /// Where a dyno writes.
    pub(crate) fn scratch(&self, dyno: DynoId) -> PathBuf {
        self.options.data.join("tmp").join(dyno.to_string())
    }

    /// A dyno's control group, relative to each controller's root.
    pub fn cgroup(&self, dyno: DynoId) -> Option<String> {
        self.cgroup.as_ref().map(|parent| format!("{parent}/{dyno}"))
    }

    /// An app's build caches.
    pub(crate) fn cache(&self, app: AppId) -> PathBuf {
        self.options.data.join("apps").join(app.to_string()).join("cache")
    }

    /// Removes what a dyno whose shim is gone has left. Blocks.
    pub(crate) fn clean(&self, dyno: DynoId) {
        if let Some(cgroup) = self.cgroup(dyno) {
            let cgroup = Cgroup::open(&cgroup);
            cgroup.kill();
            let _ = cgroup.remove();
        }
        artefacts::remove_tree(&self.scratch(dyno));
        artefacts::remove_tree(&self.directory(dyno));
    }

    /// The same without waiting for it.
    pub(crate) fn clean_later(self: &Arc<Self>, dyno: DynoId) {
        self.network.release(dyno);
        let host = self.clone();
        tokio::task::spawn_blocking(move || host.clean(dyno));
    }
}

/// Where a dyno's shim listens.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("shim.sock")
}
