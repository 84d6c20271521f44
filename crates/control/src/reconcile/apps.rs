//! Task `apps`: hands every app's wanted state to the engine, and clears up after destroyed apps.
//!
//! An app's destruction is recorded by the database itself (`removals`), in the transaction that removes its row; what
//! is left of it in engine, artefact store, log history and data directory goes here, as often as it takes.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{
    engine::{HealthCheck, Process, Wanted},
    frame,
    logs::Hello,
};
use dozen_domain::{ids::AppId, settings};

use super::driver::{Scope, Task};
use crate::{Context, ops, store};

/// The task.
pub struct Apps {
    context: Context,
    applied: Mutex<HashMap<AppId, Wanted>>,
}

impl Apps {
    /// A task that has applied nothing yet.
    pub fn new(context: Context) -> Self {
        Self { context, applied: Mutex::default() }
    }

    /// Applies one app's wanted state unless the engine has it already. Says whether it did.
    async fn apply(&self, app: AppId) -> ops::Result<bool> {
        let Some(wanted) = wanted(&self.context, app).await? else { return Ok(false) };
        let is_applied = |applied: &HashMap<_, _>| applied.get(&app) == Some(&wanted);
        if is_applied(&self.applied.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(false);
        }
        self.context.engine.apply(wanted.clone()).await?;
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(app, wanted);
        Ok(true)
    }

    /// Removes what a destroyed app left behind, the record of its destruction last.
    async fn clear(&self, app: AppId) -> ops::Result<()> {
        let context = &self.context;
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).remove(&app);
        context.engine.remove(app).await?;
        if context.building.is_busy(app) {
            // It would put back what is removed now, for good.
            let running = io::Error::other("a build of it has not ended yet");
            return Err(ops::Error::platform(format!("remove what is left of app {app}"), running));
        }
        context
            .builds
            .retain(app, &[])
            .await
            .map_err(|error| ops::Error::platform("remove the app's images", error))?;
        let failed = |source| ops::Error::platform(format!("remove what is left of app {app}"), source);
        forget_logs(context, app).await.map_err(failed)?;
        let left = context.settings.data_dir.join("apps").join(app.to_string());
        let removed = tokio::task::spawn_blocking(move || dozen_api::removal::remove_all(&left)).await;
        match removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut db = context.store.write().await?;
        store::removals::delete(&mut db, app).await?;
        db.commit().await?;
        Ok(())
    }
}

#[async_trait]
impl Task for Apps {
    fn name(&self) -> &'static str {
        "apps"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn run(&self, scope: &Scope) -> ops::Result<String> {
        let (mut apps, gone) = {
            let mut db = self.context.store.read().await?;
            let apps = store::apps::all(&mut db).await?;
            (apps.into_iter().map(|app| app.id).collect::<Vec<_>>(), store::removals::all(&mut db).await?)
        };
        match scope {
            Scope::Apps(some) => apps.retain(|app| some.contains(app)),
            // Only their processes: what lies on the disk may belong to a database that somebody will restore.
            Scope::All => {
                for stranger in self.context.engine.apps().into_iter().filter(|app| !apps.contains(app)) {
                    self.context.engine.remove(stranger).await?;
                }
            }
        }
        let (mut applied, mut failure) = (0_u32, None);
        for app in apps {
            match self.apply(app).await {
                Ok(true) => applied += 1,
                Ok(false) => {}
                // One app's trouble is not another's.
                Err(error) => failure = Some(error),
            }
        }
        let cleared = gone.len();
        for app in gone {
            if let Err(error) = self.clear(app).await {
                failure = Some(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(format!("{applied} applied, {cleared} cleared")),
        }
    }
}

/// What an app should be running; `None` when there is nothing to run yet.
///
/// # Errors
/// When the store fails.
pub async fn wanted(context: &Context, id: AppId) -> ops::Result<Option<Wanted>> {
    let mut db = context.store.read().await?;
    let Some(app) = store::apps::by_id(&mut db, id).await? else { return Ok(None) };
    let Some(release) = store::releases::current(&mut db, id).await? else { return Ok(None) };
    let Some(slug) = release.slug else { return Ok(None) };
    let Some(slug) = store::slugs::by_id(&mut db, slug).await? else { return Ok(None) };
    let Some(image) = slug.image.clone() else { return Ok(None) };
    let formation = store::formation::of_app(&mut db, id).await?;
    let features = store::features::of_app(&mut db, id).await?;
    drop(db);

    let env = ops::environment::of(context, &app, &release, &slug)?;
    let (config, limits) = (ops::releases::config(context, &release)?, context.limits());
    let is_on = |name| ops::features::is_on(&features, name);
    let health_check = settings::health_check(&config)
        .or_else(|| slug.health_check.clone())
        .map(|path| HealthCheck { host: ops::apps::own_hostname(context, &app.name), path });
    let processes = slug
        .process_types
        .iter()
        .filter(|(process_type, _)| !process_type.is_release())
        .filter_map(|(process_type, command)| {
            let wanted = formation.iter().find(|formation| formation.process_type == *process_type)?;
            Some(Process {
                process_type: process_type.clone(),
                command: command.clone(),
                quantity: wanted.quantity,
                size: wanted.size,
                stop: settings::stop(&config, process_type, limits),
            })
        })
        .collect();
    Ok(Some(Wanted {
        app: id,
        app_name: app.name,
        release: release.id,
        version: release.version,
        image,
        env,
        processes,
        preboot: is_on(ops::features::PREBOOT),
        runtime_metrics: is_on(ops::features::RUNTIME_METRICS),
        boot_timeout: settings::boot_timeout(&config, limits),
        health_check,
        cycle: !is_on(ops::features::NO_CYCLING),
    }))
}

/// Has the logs role forget an app.
async fn forget_logs(context: &Context, app: AppId) -> io::Result<()> {
    let socket = context.settings.data_dir.join("run/logs.sock");
    let mut logs = match dozen_api::socket::connect(&socket).await {
        Ok(logs) => logs,
        // Where there is no logs role there is no history either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    frame::write(&mut logs, &Hello::Remove(app)).await?;
    frame::read_bytes(&mut logs).await?;
    Ok(())
}
