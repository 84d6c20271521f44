//! Builds that build nothing, for tests of whoever calls them: each answers at once what the test has said.
//!
//! Left alone, a build prints one line and yields a new image each time, with one `web` process. The image exists
//! nowhere; only [`crate::engine::memory::Memory`] can run it.

use std::{
    collections::VecDeque,
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
        let digest = |kind: u64| Digest(format!("sha256:{:032x}{number:032x}", kind));
        Ok(Built {
            image: digest(1),
            result: BuildResult {
                language: "Procfile".to_owned(),
                process_types,
                launch_env: Default::default(),
                config_defaults: Default::default(),
                layers: Vec::new(),
            },
            size: 1_000,
            layers: vec![digest(2)],
            foreign_ms: 0,
        })
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
