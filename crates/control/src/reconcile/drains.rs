//! Task `drains`: tells the logs role which drains there are. It keeps them and drains on while control is away.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::drains::{self, Drain};

use super::driver::{Scope, Task};
use crate::{Context, ops};

/// The task.
pub struct Drains {
    context: Context,
    told: Mutex<Option<Vec<Drain>>>,
}

impl Drains {
    /// A task that has told nothing yet.
    pub fn new(context: Context) -> Self {
        Self { context, told: Mutex::default() }
    }
}

#[async_trait]
impl Task for Drains {
    fn name(&self) -> &'static str {
        "drains"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn run(&self, scope: &Scope) -> ops::Result<String> {
        let wanted = ops::drains::wanted(&self.context).await?;
        // A full run tells again what was told: the logs role may have lost it with its disk.
        let known = self.told.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&wanted);
        if known && *scope != Scope::All {
            return Ok("nothing new".to_owned());
        }
        let socket = self.context.settings.data_dir.join("run/logs.sock");
        match drains::replace(&socket, wanted.clone()).await {
            // Where there is no logs role nothing is drained either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok("no logs role".to_owned()),
            Err(error) => return Err(ops::Error::platform("tell the logs role of drains", error)),
            Ok(()) => {}
        }
        let count = wanted.len();
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        Ok(format!("{count} drains"))
    }
}
