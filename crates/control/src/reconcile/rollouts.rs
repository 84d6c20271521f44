//! Task `rollouts`: returns to the former release where a new one does not come up.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast::error::RecvError;

use super::driver::{Scope, Task};
use crate::{Context, ops};

/// The task.
pub struct Rollouts(pub Context);

impl Rollouts {
    /// Nudges for ever when a web dyno crashes so often that there may be something to do.
    pub async fn follow(context: Context) {
        let mut events = context.engine.watch();
        loop {
            match events.recv().await {
                Ok(event) if ops::rollout::is_given_up(&event.dyno) => context.nudge.nudge(event.dyno.app),
                // What was missed is seen on the next full run.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

#[async_trait]
impl Task for Rollouts {
    fn name(&self) -> &'static str {
        "rollouts"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn run(&self, scope: &Scope) -> ops::Result<String> {
        let apps = match scope {
            Scope::All => self.0.engine.apps(),
            Scope::Apps(apps) => apps.iter().copied().collect(),
        };
        let mut returned = 0_u32;
        for app in apps {
            returned += u32::from(ops::rollout::settle(&self.0, app).await?.is_some());
        }
        Ok(format!("{returned} returned"))
    }
}
