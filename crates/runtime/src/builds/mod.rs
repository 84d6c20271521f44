//! Builds on this machine: two runs of the builder in a container, then an image made of what it left.
//!
//! The first run only reads the source and names the layers it would make; the second has those mounted that the app
//! has already, and the network. Both see the same folder as `/build` ([`folder`]) and the app's caches as `/cache`.
//! Their container is a dyno's ([`container`]), with a build's limits, which are kept here: time, disk and log size by
//! watching, memory and processes by the kernel. What the code of the pusher did inside is looked at as from an enemy.

mod container;
mod disk;
mod folder;

use std::{
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::build::{Builds, Built, Error, Spec};
use dozen_domain::{
    dyno::Exit,
    ids::{AppId, DynoId},
    image::{Analysis, BuildPlan, BuildResult, Digest, LayerPlan},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
};

use crate::{artefacts, engine::Host, sandbox::UPPER};
use container::{Outcome, Phase};
use folder::Folder;

/// Builds of one machine.
pub struct MachineBuilds {
    host: Arc<Host>,
    /// Builds that may run; waiters are served in the order in which they came.
    slots: Semaphore,
    active: Arc<Mutex<HashMap<AppId, usize>>>,
}

/// Counts a build of an app while it lives.
struct Ticket {
    app: AppId,
    active: Arc<Mutex<HashMap<AppId, usize>>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = active.get_mut(&self.app) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.app);
            }
        }
    }
}

type Sink<'a> = &'a mut (dyn AsyncWrite + Send + Unpin);

impl MachineBuilds {
    /// Builds on this host, as many at once as its limits say. Clears away what builds of an earlier process left.
    pub fn new(host: Arc<Host>) -> Self {
        let most = usize::try_from(host.options.limits.builds_concurrent).unwrap_or(1).max(1);
        folder::clear(&host);
        Self { host, slots: Semaphore::new(most), active: Arc::default() }
    }

    fn ticket(&self, app: AppId) -> Ticket {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner).entry(app).or_default() += 1;
        Ticket { app, active: self.active.clone() }
    }

    async fn phases(&self, spec: &Spec, folder: &Folder, output: Sink<'_>, ticket: Ticket) -> Result<Built, Error> {
        let limits = &self.host.options.limits;
        let mut phase = Phase::new(&self.host, folder, spec);
        let outcome = phase.run("analyze", DynoId::random(), Vec::new(), output).await?;
        judge(&self.host, outcome, output).await?;
        let analysis: Analysis = folder.read("analysis.json").map_err(platform("read the builder's analysis"))?;

        let (host, app) = (self.host.clone(), spec.app);
        let wanted = analysis.layers.clone();
        let found = blocking("look for layers", move || {
            let tree = |plan: LayerPlan| host.store.layer(app, &plan).map(|tree| (plan, tree));
            Ok(wanted.into_iter().filter_map(tree).collect::<Vec<_>>())
        });
        let (restored, trees): (Vec<LayerPlan>, Vec<PathBuf>) = found.await?.into_iter().unzip();
        let plan = BuildPlan { analysis, restored: restored.iter().map(|layer| layer.name.clone()).collect() };
        folder.write("plan.json", &plan).map_err(platform("write the plan of the build"))?;

        let dyno = DynoId::random();
        let scratch = Scratch { host: self.host.clone(), dyno };
        let outcome = phase.run("build", dyno, trees, output).await?;
        judge(&self.host, outcome, output).await?;
        let result: BuildResult = folder.read("result.json").map_err(platform("read the builder's result"))?;
        let foreign_ms = folder.read::<Timing>("timing.json").map_or(0, |timing| timing.foreign_ms);

        let (host, upper) = (self.host.clone(), self.host.scratch(dyno).join(UPPER));
        let kept = result.clone();
        let committed = blocking("make the image", move || {
            let _counted = ticket;
            Ok(host.store.commit(app, &upper, &result, &restored))
        });
        let committed = match committed.await? {
            Err(artefacts::Error::TooLarge { size, limit }) => {
                return Err(over(too_large(size, limit), output).await);
            }
            committed => committed.map_err(platform("make the image"))?,
        };
        drop(scratch);
        debug_assert!(limits.slug_bytes >= committed.size, "the store keeps this limit");
        Ok(Built { image: committed.image, result: kept, size: committed.size, layers: committed.layers, foreign_ms })
    }
}

/// A scratch directory that outlives its container and goes with this.
struct Scratch {
    host: Arc<Host>,
    dyno: DynoId,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = self.host.scratch(self.dyno);
        // A build that is dropped is being killed meanwhile; its shim does not remove this directory.
        tokio::task::spawn_blocking(move || artefacts::remove_tree(&path));
    }
}

#[derive(serde::Deserialize)]
struct Timing {
    foreign_ms: u64,
}

fn platform<E: std::error::Error + Send + Sync + 'static>(operation: &str) -> impl FnOnce(E) -> Error {
    let operation = operation.to_owned();
    move |source| Error::Platform { operation, source: Box::new(source) }
}

fn too_large(size: u64, limit: u64) -> String {
    format!(
        "The slug is too large: {} MB, and {} MB are allowed (DOZEN_LIMIT_SLUG_BYTES). Leave files out with a \
         .slugignore, or use fewer dependencies.",
        size >> 20,
        limit >> 20
    )
}

async fn blocking<T: Send + 'static>(
    operation: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(platform(operation))?
}

/// Writes what a person needs to know about a limit, and makes it the error.
async fn over(text: String, output: Sink<'_>) -> Error {
    // A pusher who has gone away does not read it; the build's record has it as well.
    let _ = output.write_all(format!("\n !     {text}\n\n").as_bytes()).await;
    let _ = output.flush().await;
    Error::Limit(text)
}

/// What a phase's end means.
async fn judge(host: &Host, outcome: Outcome, output: Sink<'_>) -> Result<(), Error> {
    let limits = &host.options.limits;
    let text = match outcome {
        Outcome::Exited { exit: Exit::Code(0), .. } => return Ok(()),
        Outcome::Exited { exit: Exit::Code(1), out_of_memory: false } => return Err(Error::Failed),
        Outcome::Exited { exit, out_of_memory: false } => {
            let said = format!("the builder ended with status {}", exit.status());
            return Err(Error::Platform { operation: "run the builder".to_owned(), source: said.into() });
        }
        Outcome::Exited { out_of_memory: true, .. } => format!(
            "The build needed more than {} MB of memory (DOZEN_LIMIT_BUILD_MEMORY_BYTES).",
            limits.build_memory_bytes >> 20
        ),
        Outcome::TimeOver => {
            format!("The build took longer than {} seconds (DOZEN_LIMIT_BUILD_SECONDS).", limits.build_seconds)
        }
        Outcome::DiskOver => format!(
            "The build filled more than {} MB of disk (DOZEN_LIMIT_BUILD_DISK_BYTES).",
            limits.build_disk_bytes >> 20
        ),
        Outcome::LogOver => {
            format!("The build printed more than {} bytes (DOZEN_LIMIT_BUILD_LOG_BYTES).", limits.build_log_bytes)
        }
    };
    Err(over(text, output).await)
}

#[async_trait]
impl Builds for MachineBuilds {
    async fn build(&self, spec: Spec, output: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Built, Error> {
        let ticket = self.ticket(spec.app);
        let _slot = match self.slots.try_acquire() {
            Ok(slot) => slot,
            Err(_) => {
                let _ = output.write_all(b"-----> Waiting for other builds to finish\n").await;
                let _ = output.flush().await;
                self.slots.acquire().await.map_err(platform("wait for other builds"))?
            }
        };
        let folder = Folder::make(&self.host, &spec)?;
        self.phases(&spec, &folder, output, ticket).await
    }

    async fn import(&self, app: AppId, archive: &Path, result: BuildResult) -> Result<Built, Error> {
        let (ticket, host, archive) = (self.ticket(app), self.host.clone(), archive.to_owned());
        blocking("import a slug", move || {
            let _counted = ticket;
            let limits = &host.options.limits;
            let scratch = host.scratch(DynoId::random());
            let imported = host.store.import(app, &archive, &scratch, limits.build_disk_bytes, &result);
            let artefacts::Committed { image, size, layers } = imported.map_err(|error| match error {
                artefacts::Error::Archive(unpack @ artefacts::Unpack::TooLarge(_)) => {
                    Error::Limit(format!("The slug cannot be unpacked: {unpack} (DOZEN_LIMIT_BUILD_DISK_BYTES)."))
                }
                artefacts::Error::Archive(unpack) => Error::Archive(format!("The slug cannot be unpacked: {unpack}.")),
                artefacts::Error::TooLarge { size, limit } => Error::Limit(too_large(size, limit)),
                error => platform("import a slug")(error),
            })?;
            Ok(Built { image, result, size, layers, foreign_ms: 0 })
        })
        .await
    }

    async fn export(&self, app: AppId, image: &Digest, archive: &Path) -> Result<(), Error> {
        let (ticket, host, image, archive) = (self.ticket(app), self.host.clone(), image.clone(), archive.to_owned());
        blocking("export a slug", move || {
            let _counted = ticket;
            host.store.export(app, &image, &archive).map_err(platform("export a slug"))
        })
        .await
    }

    async fn purge_cache(&self, app: AppId) -> Result<(), Error> {
        let host = self.host.clone();
        blocking("purge the build cache", move || {
            let cache = host.cache(app);
            let rubbish = host.options.data.join("tmp").join(DynoId::random().to_string());
            match std::fs::rename(&cache, &rubbish) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                moved => {
                    moved.map_err(platform("purge the build cache"))?;
                    artefacts::remove_tree(&rubbish);
                    Ok(())
                }
            }
        })
        .await
    }

    async fn retain(&self, app: AppId, keep: &[Digest]) -> Result<(), Error> {
        let building = self.active.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&app);
        if keep.is_empty() && building {
            return Ok(()); // an app's first build has no image yet, and needs its user and caches
        }
        let (host, keep) = (self.host.clone(), keep.to_vec());
        blocking("remove old images", move || host.store.retain(app, &keep).map_err(platform("remove old images")))
            .await
    }
}

/// Time left of a build's allowance.
struct Deadline(tokio::time::Instant);

impl Deadline {
    fn after(seconds: u64) -> Self {
        let now = tokio::time::Instant::now();
        // A limit beyond what the clock can hold is no limit: a year.
        Self(now.checked_add(Duration::from_secs(seconds)).unwrap_or(now + Duration::from_secs(365 * 86_400)))
    }

    fn passed(&self) -> impl Future<Output = ()> + use<> {
        tokio::time::sleep_until(self.0)
    }
}
