//! Task `routes`: brings the router's table up to date with the store. Changes of dynos reach it from the engine.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::driver::{Scope, Task};
use crate::{ops, routes_feed::Feed};

/// The task.
pub struct Routes(pub Arc<Feed>);

#[async_trait]
impl Task for Routes {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn run(&self, scope: &Scope) -> ops::Result<String> {
        match scope {
            Scope::All => self.0.refresh_all().await?,
            Scope::Apps(apps) => {
                for app in apps {
                    self.0.refresh(*app).await?;
                }
            }
        }
        Ok(format!("generation {}", self.0.generation()))
    }
}
