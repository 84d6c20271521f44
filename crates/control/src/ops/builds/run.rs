//! One build from its source to its release.
//!
//! Up to the image it can be cancelled, which ends everything it started; from the slug on it runs to its end, so that
//! a client that goes away leaves no half release.

use dozen_api::build::{self, Built, Spec};
use dozen_domain::{
    config::{Secret, Vars},
    ids::SlugId,
    name::ConfigKey,
    release::Status as ReleaseStatus,
};
use sqlx::SqliteConnection;
use tokio_util::sync::CancellationToken;

use super::{Source, Turn, buildpacks};
use crate::{
    Context,
    ops::{
        self, apps,
        output::Writer,
        releases::{self, Made},
        slugs,
    },
    reconcile::driver::chain,
    store::{
        self,
        accounts::Account,
        apps::App,
        builds::{Build, Status},
        releases::Release,
        slugs::Slug,
    },
};

/// A build under way.
pub(crate) struct Job {
    context: Context,
    app: App,
    account: Account,
    pub(crate) build: Build,
    output: Writer,
    cancel: CancellationToken,
}

/// Why there is no release, already told in the output.
struct Failed;

impl Job {
    pub(crate) fn new(context: Context, app: App, account: Account, build: Build, output: Writer) -> Self {
        Self { context, app, account, build, output, cancel: CancellationToken::new() }
    }

    /// Ends the build before its slug.
    pub(crate) fn canceller(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Adds to the output.
    pub(crate) fn say(&mut self, text: &str) {
        self.output.say(text);
    }

    /// Builds and releases; answers the release, whose release phase may be under way. The source is removed.
    pub(crate) async fn run(mut self, source: Source, mut turn: Turn) -> Option<Release> {
        let path = source.path.clone();
        let built = self.image(source).await;
        let _ = tokio::fs::remove_file(&path).await;
        let released = match built {
            Ok(built) => self.release(built).await,
            Err(Failed) => Err(Failed),
        };
        let release = match released {
            Ok(release) => release,
            Err(Failed) => {
                self.failed().await;
                return None;
            }
        };
        turn.built();
        let (context, app) = (self.context.clone(), self.app.id);
        tokio::spawn(async move {
            // The app's turn is kept: another build's new image is no release's yet.
            if let Err(error) = slugs::prune(&context, app).await {
                tracing::warn!(%app, error = %chain(&error), "cannot remove old slugs");
            }
            drop(turn);
        });
        Some(release)
    }

    /// Fails the build for a reason outside it.
    pub(crate) async fn fail(mut self, why: &str) {
        self.output.complain(why);
        self.failed().await;
    }

    async fn failed(&mut self) {
        self.build.status = Status::Failed;
        (self.build.slug, self.build.release) = (None, None);
        if let Err(error) = self.record().await {
            tracing::error!(build = %self.build.id, error = %chain(&error), "cannot record a failed build");
        }
        self.context.log_api(self.app.id, "Build failed -- check your build output".to_owned());
    }

    async fn record(&mut self) -> ops::Result<()> {
        self.build.updated_at = self.context.now();
        let mut db = self.context.store.write().await?;
        store::builds::update(&mut db, &self.build).await?;
        db.commit().await?;
        Ok(())
    }

    async fn image(&mut self, source: Source) -> Result<Built, Failed> {
        let cancel = self.cancel.clone();
        let cancelled = tokio::select! {
            built = self.image_uncancelled(source) => return built,
            () = cancel.cancelled() => Failed,
        };
        self.output.complain("The client went away; the build was ended.");
        Err(cancelled)
    }

    async fn image_uncancelled(&mut self, source: Source) -> Result<Built, Failed> {
        let slots = self.context.building.slots.clone();
        let _slot = match slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                self.output.say("-----> Waiting for other builds to end\n");
                slots.acquire_owned().await.map_err(|_| Failed)?
            }
        };
        let spec = match self.spec(source).await {
            Ok(spec) => spec,
            Err(ops::Error::NotFound(_)) => {
                self.output.complain("The app was destroyed; nothing is built.");
                return Err(Failed);
            }
            Err(ops::Error::Invalid(why)) => {
                self.output.complain(&why);
                return Err(Failed);
            }
            Err(error) => return Err(self.ours(&error)),
        };
        let built = self.context.builds.build(spec, &mut self.output).await;
        self.output.end_line();
        let built = match built {
            Ok(built) => built,
            // Both were told in the output.
            Err(build::Error::Failed | build::Error::Limit(_)) => return Err(Failed),
            Err(error @ (build::Error::Platform { .. } | build::Error::Archive(_))) => return Err(self.ours(&error)),
        };
        let most = self.context.limits().slug_bytes;
        self.output.say("\n-----> Compressing...\n");
        if built.size > most {
            let (size, most) = (human(built.size), human(most));
            self.output.complain(&format!(
                "Compiled slug size: {size} is too large (max is {most}). List what the app does not need to run in .slugignore."
            ));
            return Err(Failed);
        }
        self.output.say(&format!("       Done: {}\n", human(built.size)));
        Ok(built)
    }

    fn ours(&mut self, error: &(dyn std::error::Error + 'static)) -> Failed {
        tracing::error!(build = %self.build.id, error = %chain(error), "a build failed through the platform's fault");
        self.output.complain("The platform failed during this build; its own log says why. Nothing was released.");
        self.output.complain(&chain(error));
        Failed
    }

    async fn spec(&self, source: Source) -> ops::Result<Spec> {
        // Looked at while this build has the app's turn: what is left of a destroyed app goes only when nobody has it.
        apps::by_id(&self.context, self.app.id).await?;
        let newest = store::releases::newest(&mut *self.context.store.read().await?, self.app.id).await?;
        let env = match newest {
            Some(release) => releases::config(&self.context, &release)?,
            None => Vars::new(),
        };
        let mut platform_env = self.context.settings.build_env.clone();
        platform_env.insert("STACK".to_owned(), Secret::new(self.build.stack.clone()));
        if let Some(version) = &self.build.source_version {
            platform_env.insert("SOURCE_VERSION".to_owned(), Secret::new(version.clone()));
        }
        Ok(Spec {
            build: self.build.id,
            app: self.app.id,
            source: source.path,
            submodules: source.submodules,
            buildpacks: buildpacks(&self.context, &self.build).await?,
            env,
            platform_env,
        })
    }

    async fn release(&mut self, built: Built) -> Result<Release, Failed> {
        let (defaults, jobs) = (built.result.config_defaults.clone(), built.result.cron.clone());
        let detected = built.result.detected.clone();
        self.build.foreign_ms = built.foreign_ms;
        let slug = self.slug(built);
        let released = async {
            self.build.slug = Some(slug.id);
            self.build.status = Status::Succeeded;
            self.build.updated_at = self.context.now();
            // One transaction: a build that has succeeded has its release, whenever the role is killed.
            let mut db = self.context.store.write().await?;
            store::slugs::insert(&mut db, &slug).await?;
            let mut made: Vec<Made> = self.set_defaults(&mut db, defaults).await?.into_iter().collect();
            let change = releases::Change::Deploy { slug: slug.id, description: None };
            let lost = releases::lost(&mut db, &slug).await?;
            let deployed = releases::append(&self.context, &mut db, self.app.id, &self.account, change).await?;
            let release = deployed.release.clone();
            made.push(deployed);
            self.build.release = Some(release.id);
            store::builds::update(&mut db, &self.build).await?;
            if let Some(detected) = detected {
                ops::buildpack_installations::pin(&self.context, &mut db, self.app.id, &detected).await?;
            }
            if let Some(jobs) = jobs {
                ops::cron_jobs::sync(&self.context, &mut db, self.app.id, &jobs).await?;
            }
            db.commit().await?;
            self.context.cron.ring();
            made.iter().for_each(|made| made.announce(&self.context, &self.account));
            Ok::<_, ops::Error>((release, lost))
        };
        let (release, lost) = match released.await {
            Ok(released) => released,
            Err(error) => return Err(self.ours(&error)),
        };
        self.output.say("-----> Launching...\n");
        for entry in lost {
            self.output.complain(&format!(
                "Warning: the Procfile has no {0} any more, so this release ends its {1} running dyno{2}. If that is \
                 not meant, add {0} to the Procfile, push again, and scale: heroku ps:scale {0}={1}",
                entry.process_type,
                entry.quantity,
                if entry.quantity == 1 { "" } else { "s" }
            ));
        }
        if release.status == ReleaseStatus::Pending {
            let note = "Release command declared: this new release will not be available until the command succeeds.";
            self.output.complain(note);
        }
        let url = apps::web_url(&self.context, &self.app.name);
        self.output.say(&format!("       Released {}\n       {url} deployed to Dozen\n\n", release.version));
        self.context.log_api(self.app.id, "Build succeeded".to_owned());
        Ok(release)
    }

    fn slug(&self, built: Built) -> Slug {
        let now = self.context.now();
        Slug {
            id: SlugId::random(),
            app: self.app.id,
            // Of an archive, which is made only when somebody wants it ([`slugs::find`]).
            checksum: None,
            image: Some(built.image),
            commit: self.build.source_version.clone(),
            commit_description: self.build.source_version_description.clone(),
            buildpack_description: Some(built.result.language).filter(|language| !language.is_empty()),
            process_types: built.result.process_types,
            launch_env: built.result.launch_env,
            health_check: built.result.health_check,
            layers: built.layers,
            size: i64::try_from(built.size).ok(),
            stack: self.build.stack.clone(),
            created_at: now,
            updated_at: now,
            deleted_at: None,
        }
    }

    /// Config vars that a buildpack gives an app at its first deploy; those that are set stay.
    async fn set_defaults(
        &self,
        db: &mut SqliteConnection,
        defaults: std::collections::BTreeMap<String, String>,
    ) -> ops::Result<Option<Made>> {
        if defaults.is_empty() {
            return Ok(None);
        }
        let newest = store::releases::newest(db, self.app.id).await?;
        let Some(newest) = newest.filter(|release| release.slug.is_none()) else { return Ok(None) };
        let have = releases::config(&self.context, &newest)?;
        let mut changes = Vec::new();
        for (key, value) in defaults.into_iter().filter(|(key, _)| !have.contains_key(key)) {
            changes.push((ConfigKey::try_from(key)?, Some(Secret::new(value))));
        }
        if changes.is_empty() {
            return Ok(None);
        }
        let change = releases::Change::Config(changes);
        releases::append(&self.context, db, self.app.id, &self.account, change).await.map(Some)
    }
}

/// `10.4M`, as Heroku writes sizes.
fn human(bytes: u64) -> String {
    const KB: f64 = 1024.0;
    let bytes = bytes as f64;
    match bytes {
        b if b < KB * KB => format!("{:.1}K", b / KB),
        b if b < KB * KB * KB => format!("{:.1}M", b / KB / KB),
        b => format!("{:.1}G", b / KB / KB / KB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_on_heroku() {
        assert_eq!(human(10_905_190), "10.4M");
        assert_eq!(human(512), "0.5K");
        assert_eq!(human(524_288_000), "500.0M");
    }
}
