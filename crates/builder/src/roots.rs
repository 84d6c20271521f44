//! Where the builder finds and leaves things. A struct, so that tests build in folders of their own.
//!
//! Nothing else in this crate names `/app`, `/build` or `/cache` for reading or writing; texts meant for the running
//! app (`PATH`, commands) always say [`LAUNCH_APP`], because that is where the app will find itself.

use std::path::{Path, PathBuf};

/// Where the app lives in a dyno.
pub(crate) const LAUNCH_APP: &str = "/app";

/// Where the platform's own executable is found in builds and dynos.
pub(crate) const LAUNCH_EXECUTABLE: &str = "/opt/dozen/bin/dozen";

/// The folders a build works in.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The app being made: `/app`.
    pub app: PathBuf,
    /// Requests and results: `/build`.
    pub build: PathBuf,
    /// What survives until the app's next build: `/cache`.
    pub cache: PathBuf,
    /// Toolchains that the operator provides: `/opt/dozen`.
    pub toolchains: PathBuf,
    /// Folders of the system's programs, in order of preference: `/usr/local/bin`, `/usr/bin`, `/bin`.
    pub system_bin: Vec<PathBuf>,
}

impl Roots {
    /// The folders inside a build's container.
    pub fn container() -> Self {
        Self {
            app: PathBuf::from(LAUNCH_APP),
            build: PathBuf::from("/build"),
            cache: PathBuf::from("/cache"),
            toolchains: PathBuf::from("/opt/dozen"),
            system_bin: ["/usr/local/bin", "/usr/bin", "/bin"].iter().map(PathBuf::from).collect(),
        }
    }

    /// `app`, `build` and `cache` below one folder, toolchains and programs of this machine.
    pub fn below(folder: &Path) -> Self {
        Self { app: folder.join("app"), build: folder.join("build"), cache: folder.join("cache"), ..Self::container() }
    }
}
