//! Task `upkeep`: what passes with time. Expired source uploads go; certificates that near their end are renewed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::driver::{Scope, Task};
use crate::{Context, ops, tls};

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
        let (context, certificate) = (self.context.clone(), self.certificate.clone());
        let renewed = tokio::task::spawn_blocking(move || {
            tls::ensure_at(&context.settings.data_dir, &context.settings.certificates, context.now())?;
            certificate.reload()
        });
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ops::Error::platform("renew certificates", error);
        renewed.await.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))?;
        Ok(format!("{expired} sources expired"))
    }
}
