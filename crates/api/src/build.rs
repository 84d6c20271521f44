//! The seam to where builds run: control hands over a source and gets an image, or a reason that the pusher can act on.

pub mod memory;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use dozen_domain::{
    buildpack::Reference,
    config::Vars,
    ids::{AppId, BuildId},
    image::{BuildResult, Digest},
};
use tokio::io::AsyncWrite;

/// What to build.
#[derive(Debug)]
pub struct Spec {
    /// Which build.
    pub build: BuildId,
    /// Whose; the caches are kept by app.
    pub app: AppId,
    /// The source, an uncompressed or gzipped tar. Not removed by the build.
    pub source: PathBuf,
    /// Submodules that the source names but does not hold.
    pub submodules: Vec<Submodule>,
    /// Buildpacks in order; empty: detect among the built-in ones.
    pub buildpacks: Vec<Reference>,
    /// The app's config vars (`ENV_DIR`).
    pub env: Vars,
    /// Further environment of the build: `STACK`, `SOURCE_VERSION`, the operator's `DOZEN_BUILD_ENV` variables.
    pub platform_env: Vars,
}

/// A submodule of the source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Submodule {
    /// Where it belongs, relative to the root.
    pub path: String,
    /// Its repository.
    pub url: String,
    /// The commit.
    pub commit: String,
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The OCI manifest's digest in the artefact store.
    pub image: Digest,
    /// What the builder found out.
    pub result: BuildResult,
    /// Compressed size of all layers.
    pub size: u64,
    /// Digests of the compressed layers, lowest first.
    pub layers: Vec<Digest>,
    /// Time spent in package managers and other foreign programs, milliseconds (for `bench/push`).
    pub foreign_ms: u64,
}

/// Why there is no image. Everything a person needs was already written to the output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source or its build is at fault.
    #[error("the build failed")]
    Failed,
    /// A limit was hit; the text names it.
    #[error("{0}")]
    Limit(String),
    /// An archive holds no slug; the text says why.
    #[error("{0}")]
    Archive(String),
    /// The platform is at fault.
    #[error("{operation}")]
    Platform {
        /// What was attempted.
        operation: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where builds run and images are kept.
#[async_trait]
pub trait Builds: Send + Sync + 'static {
    /// Builds. Output is written as it comes; dropping the future ends the build and everything it started.
    async fn build(&self, spec: Spec, output: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Built, Error>;

    /// Makes an image of a slug that was made elsewhere: `archive` is a gzipped tar with everything below `./app`, and is
    /// looked at as from an enemy. It is not removed. `result` is what its maker says about it; it names no layers.
    async fn import(&self, app: AppId, archive: &Path, result: BuildResult) -> Result<Built, Error>;

    /// Writes an app's image as such an archive, in place of what `archive` holds. Its launch environment goes along as
    /// a script of `.profile.d`.
    async fn export(&self, app: AppId, image: &Digest, archive: &Path) -> Result<(), Error>;

    /// Throws an app's build caches away.
    async fn purge_cache(&self, app: AppId) -> Result<(), Error>;

    /// Removes every image of an app but these; an app without images to keep is removed whole.
    async fn retain(&self, app: AppId, keep: &[Digest]) -> Result<(), Error>;
}
