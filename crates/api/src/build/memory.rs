//! Builds that build nothing, for tests of whoever calls them: each answers at once what the test has said.
//!
//! Left alone, a build prints one line and yields a new image each time, with one `web` process. The image exists
//! nowhere; only [`crate::engine::memory::Memory`] can run it.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use dozen_domain::{
    ids::AppId,
    image::{BuildResult, Digest},
    name::ProcessType,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Builds, Built, Error, Spec};

/// What the next build does.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Prints and succeeds with these process types.
    Image {
        /// What it prints.
        output: String,
        /// Commands by process type.
        process_types: Vec<(ProcessType, String)>,
    },
    /// Prints and fails through the pusher's fault.
    Failed {
        /// What it prints.
        output: String,
    },
    /// Prints nothing and fails through the platform's fault.
    Platform,
}

#[derive(Default)]
struct Inner {
    answers: VecDeque<Answer>,
    seen: Vec<(AppId, Vec<u8>)>,
    made: u64,
    kept: Vec<(AppId, Vec<Digest>)>,
    purged: Vec<AppId>,
    imported: HashMap<Digest, Vec<u8>>,
}

/// Builds that build nothing.
#[derive(Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

impl Memory {
    /// Builds that all succeed.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an answer; each is used once, in order.
    pub fn answer(&self, answer: Answer) {
        self.inner().answers.push_back(answer);
    }

    /// Whose builds ran, with the bytes of their sources, oldest first.
    pub fn seen(&self) -> Vec<(AppId, Vec<u8>)> {
        self.inner().seen.clone()
    }

    /// Calls of [`Builds::retain`], oldest first.
    pub fn kept(&self) -> Vec<(AppId, Vec<Digest>)> {
        self.inner().kept.clone()
    }

    /// Apps whose caches were purged, oldest first.
    pub fn purged(&self) -> Vec<AppId> {
        self.inner().purged.clone()
    }
}

fn platform(operation: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Platform { operation: operation.to_owned(), source: source.into() }
}

/// The image of the build or import with this number.
fn digest(kind: u64, number: u64) -> Digest {
    Digest(format!("sha256:{kind:032x}{number:032x}"))
}

#[async_trait]
impl Builds for Memory {
    async fn build(&self, spec: Spec, output: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Built, Error> {
        let source = tokio::fs::read(&spec.source).await.map_err(|error| platform("read the source", error))?;
        let (answer, number) = {
            let mut inner = self.inner();
            inner.seen.push((spec.app, source));
            inner.made += 1;
            let answer = inner.answers.pop_front().unwrap_or_else(|| Answer::Image {
                output: "-----> Building on the Heroku-24 stack\n".to_owned(),
                process_types: vec![(ProcessType::web(), "./serve".to_owned())],
            });
            (answer, inner.made)
        };
        let (text, result) = match answer {
            Answer::Image { output, process_types } => (output, Ok(process_types)),
            Answer::Failed { output } => (output, Err(Error::Failed)),
            Answer::Platform => (String::new(), Err(platform("start the build", "the test said so"))),
        };
        output.write_all(text.as_bytes()).await.map_err(|error| platform("write the output", error))?;
        let process_types = result?;
        Ok(Built {
            image: digest(1, number),
            result: BuildResult {
                language: "Procfile".to_owned(),
                detected: None,
                process_types,
                launch_env: Default::default(),
                config_defaults: Default::default(),
                cron: None,
                health_check: None,
                layers: Vec::new(),
            },
            size: 1_000,
            layers: vec![digest(2, number)],
            foreign_ms: 0,
        })
    }

    async fn import(&self, _: AppId, archive: &Path, result: BuildResult) -> Result<Built, Error> {
        const GZIP: &[u8] = &[0x1f, 0x8b];
        let bytes = tokio::fs::read(archive).await.map_err(|error| platform("read the archive", error))?;
        if !bytes.starts_with(GZIP) {
            return Err(Error::Archive("The slug is no gzipped tar.".to_owned()));
        }
        let mut inner = self.inner();
        inner.made += 1;
        let (image, layer) = (digest(1, inner.made), digest(2, inner.made));
        let size = bytes.len() as u64;
        inner.imported.insert(image.clone(), bytes);
        Ok(Built { image, result, size, layers: vec![layer], foreign_ms: 0 })
    }

    async fn export(&self, _: AppId, image: &Digest, archive: &Path) -> Result<(), Error> {
        let bytes = self.inner().imported.get(image).cloned();
        let bytes = bytes.unwrap_or_else(|| format!("what {} holds", image.0).into_bytes());
        tokio::fs::write(archive, bytes).await.map_err(|error| platform("write the archive", error))
    }

    async fn purge_cache(&self, app: AppId) -> Result<(), Error> {
        self.inner().purged.push(app);
        Ok(())
    }

    async fn retain(&self, app: AppId, keep: &[Digest]) -> Result<(), Error> {
        self.inner().kept.push((app, keep.to_vec()));
        Ok(())
    }
}
