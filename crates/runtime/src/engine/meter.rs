//! Tells when dynos ran to whoever keeps the record, and lets a shim go only when its dyno's end is on it.
//!
//! A queue of its own, so that a disk that is slow or full holds back shims and nothing else: what is not recorded is
//! told again by the shims to the next control process.

use std::sync::{Arc, OnceLock};

use dozen_api::{
    engine::{Meter, Run},
    shim::Command,
};
use dozen_domain::ids::DynoId;
use tokio::sync::mpsc;

use super::host::Host;

/// Most that is recorded in one go.
const BATCH: usize = 256;

/// What the queue holds.
pub(super) enum Item {
    /// A dyno was started or has ended.
    Run(Run),
    /// What runs after the engine has looked.
    Adopted(Vec<DynoId>),
    /// A shim may go once everything before this is recorded.
    Forget(mpsc::Sender<Command>),
    /// What a dyno without a shim has left may go then.
    Clean(DynoId),
}

/// Works the queue off until the engine is gone.
pub(super) async fn work(
    host: Arc<Host>,
    meter: Arc<OnceLock<Arc<dyn Meter>>>,
    mut items: mpsc::UnboundedReceiver<Item>,
) {
    let mut batch = Vec::new();
    while items.recv_many(&mut batch, BATCH).await > 0 {
        let runs = batch.iter().filter_map(|item| match item {
            Item::Run(run) => Some(run.clone()),
            _ => None,
        });
        let runs: Vec<Run> = runs.collect();
        let meter = meter.get();
        if let (Some(meter), false) = (meter, runs.is_empty()) {
            meter.record(runs).await;
        }
        for item in batch.drain(..) {
            match item {
                Item::Run(_) => {}
                Item::Adopted(present) => {
                    if let Some(meter) = meter {
                        meter.adopted(present).await;
                    }
                }
                Item::Forget(commands) => drop(commands.send(Command::Forget).await),
                Item::Clean(dyno) => host.clean_later(dyno),
            }
        }
    }
}
