//! Task `upkeep`: what passes with time. Expired source uploads go, and builds, outputs and slugs beyond what is kept;
//! certificates that near their end are renewed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::driver::{Scope, Task};
use crate::{
    Context,
    ops::{self, builds::Turn},
    store, tls,
};

/// The task.
pub struct Upkeep {
    context: Context,
    certificate: Arc<tls::Certificate>,
}

impl Upkeep {
    /// Renews this listener's certificate among others.
    pub fn new(context: Context, certificate: Arc<tls::Certificate>) -> Self {
        Self { context, certificate }
    }
}

impl Upkeep {
    async fn history(&self) -> ops::Result<u64> {
        let apps = store::apps::all(&mut *self.context.store.read().await?).await?;
        let mut forgotten = 0;
        for app in apps {
            forgotten += ops::builds::forget(&self.context, app.id).await?;
            ops::cron_jobs::sweep(&self.context, app.id).await?;
            // While a build runs its image is no release's yet; it prunes by itself when it has ended.
            if let Some(turn) = Turn::take_free(&self.context, app.id).await {
                ops::slugs::prune(&self.context, app.id).await?;
                drop(turn);
            }
        }
        Ok(forgotten)
    }
}

#[async_trait]
impl Task for Upkeep {
    fn name(&self) -> &'static str {
        "upkeep"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    async fn run(&self, scope: &Scope) -> ops::Result<String> {
        if *scope != Scope::All {
            return Ok("nothing to do for single apps".to_owned());
        }
        let expired = ops::sources::expire(&self.context).await?;
        let forgotten = self.history().await?;
        let (context, certificate) = (self.context.clone(), self.certificate.clone());
        let renewed = tokio::task::spawn_blocking(move || {
            tls::ensure_at(&context.settings.data_dir, &context.settings.certificates, context.now())?;
            certificate.reload()
        });
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ops::Error::platform("renew certificates", error);
        renewed.await.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))?;
        Ok(format!("{expired} sources expired, {forgotten} builds forgotten"))
    }
}
