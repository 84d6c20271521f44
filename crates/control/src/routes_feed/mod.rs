//! The router's table as it follows from store and engine, sent to every router that connects to `run/routes.sock`.
//!
//! An app's entry is put together from two halves: what the store says (names, mode, wanted web dynos) and what the
//! engine says (its web dynos and their addresses). [`Feed::refresh`] looks at both, [`Feed::follow`] at the engine's
//! alone. Every change gets a generation; [`Feed::published`] waits until all connected routers have acknowledged one.
//! As the engine's [`Gate`] it holds a web dyno's stop back until requests go elsewhere and those that it was sent just
//! before have ended, or have at least been taken up. The table is not stored here:
//! a router keeps its own copy for when control is away.

mod half;
mod link;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{
    engine::{Dyno, Gate},
    routes::{Ack, App, Generation, Message},
    traffic::Traffic,
};
use dozen_domain::{
    ids::{AppId, DynoId},
    limits::millis,
};
use tokio::sync::{broadcast, mpsc, watch};

use self::half::Half;
use crate::{Context, ops, store};

/// Messages that wait for one router; one that is further behind is cut off and gets a snapshot when it returns.
const BEHIND: usize = 10_000;
/// Longest wait for a router before a dyno's stop. A router answers within a millisecond; one that does not is
/// restarting, and starts from this table, or has lost this role and tries every second to find it again, which on a
/// machine that is short of processors may take a few.
const PATIENCE: Duration = Duration::from_secs(5);

/// The table and the routers that follow it.
pub struct Feed {
    context: Context,
    /// Held while an app's entry is worked out, so that entries are published in the order they were read.
    halves: tokio::sync::Mutex<HashMap<AppId, Half>>,
    table: Mutex<Table>,
    acknowledged: watch::Sender<BTreeMap<u64, Ack>>,
}

#[derive(Default)]
struct Table {
    generation: Generation,
    apps: BTreeMap<AppId, App>,
    followers: Vec<mpsc::Sender<Message>>,
}

impl Feed {
    /// An empty table.
    pub fn new(context: Context) -> Arc<Self> {
        Arc::new(Self {
            context,
            halves: tokio::sync::Mutex::default(),
            table: Mutex::default(),
            acknowledged: watch::Sender::new(BTreeMap::new()),
        })
    }

    /// Reads all apps and then serves routers at `socket`, following the engine, until cancelled.
    ///
    /// # Errors
    /// When the store or the socket cannot be used.
    pub async fn run(self: Arc<Self>, socket: &Path) -> Result<(), crate::Error> {
        let events = self.context.engine.watch();
        self.refresh_all().await?;
        let failed = |source| crate::Error::Io { operation: format!("listen at {}", socket.display()), source };
        let listener = dozen_api::socket::bind(socket).map_err(failed)?;
        tokio::join!(self.clone().follow_engine(events), link::serve(self, listener));
        Ok(())
    }

    /// The number of the table's last change.
    pub fn generation(&self) -> Generation {
        self.table().generation
    }

    /// An app's entry as routers have been told.
    pub fn app(&self, app: AppId) -> Option<App> {
        self.table().apps.get(&app).cloned()
    }

    /// Waits until every connected router serves this generation or a later one.
    pub async fn published(&self, generation: Generation) {
        let mut acknowledged = self.acknowledged.subscribe();
        // It fails only when the sender is gone, and the sender is ours.
        let _ = acknowledged.wait_for(|routers| routers.values().all(|ack| ack.generation >= generation)).await;
    }

    /// As [`Feed::published`], and there is one: after a restart of this role the router still serves what it was told
    /// by the one before, and takes a moment to come back.
    async fn served(&self, generation: Generation) {
        let mut acknowledged = self.acknowledged.subscribe();
        let all = |routers: &BTreeMap<u64, Ack>| routers.values().all(|ack| ack.generation >= generation);
        // It fails only when the sender is gone, and the sender is ours.
        let _ = acknowledged.wait_for(|routers| !routers.is_empty() && all(routers)).await;
    }

    /// Waits until no connected router has requests on this dyno that it was sent before it left the table.
    async fn settled(&self, dyno: DynoId) {
        let mut acknowledged = self.acknowledged.subscribe();
        // It fails only when the sender is gone, and the sender is ours.
        let _ = acknowledged.wait_for(|routers| !routers.values().any(|ack| ack.busy.contains(&dyno))).await;
    }

    /// Brings every app's entry up to date.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn refresh_all(&self) -> ops::Result<()> {
        let apps: Vec<AppId> = {
            let mut db = self.context.store.read().await?;
            store::apps::all(&mut db).await?.into_iter().map(|app| app.id).collect()
        };
        let known: Vec<AppId> = self.table().apps.keys().copied().collect();
        for app in known.into_iter().filter(|app| !apps.contains(app)).chain(apps.iter().copied()) {
            self.refresh(app).await?;
        }
        Ok(())
    }

    /// Brings one app's entry up to date with store and engine; removes it when the app is gone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn refresh(&self, app: AppId) -> ops::Result<Generation> {
        let mut halves = self.halves.lock().await;
        match half::read(&self.context, app).await? {
            Some(half) => {
                let entry = half.with(&self.context.engine.dynos(app));
                halves.insert(app, half);
                Ok(self.publish(entry))
            }
            None => {
                halves.remove(&app);
                Ok(self.withdraw(app))
            }
        }
    }

    /// Takes in how requests went, and has apps woken whose requests wait while they sleep.
    async fn take(&self, traffic: Traffic) {
        let waiting = traffic.apps.iter().filter(|(_, counts)| counts.waiting > 0).map(|(app, _)| *app);
        let waiting: Vec<AppId> = waiting.collect();
        self.context.traffic.record(traffic, self.context.now());
        if waiting.is_empty() {
            return;
        }
        let halves = self.halves.lock().await;
        let asleep = waiting.into_iter().filter(|app| halves.get(app).is_some_and(Half::is_asleep));
        asleep.for_each(|app| self.context.nudge.nudge(app));
    }

    /// Brings one app's entry up to date with the engine.
    pub async fn follow(&self, app: AppId) -> Generation {
        let halves = self.halves.lock().await;
        match halves.get(&app) {
            Some(half) => self.publish(half.with(&self.context.engine.dynos(app))),
            None => self.generation(),
        }
    }

    async fn follow_engine(self: Arc<Self>, mut events: broadcast::Receiver<dozen_api::engine::Event>) {
        loop {
            match events.recv().await {
                Ok(event) if event.dyno.name.process_type().is_web() => {
                    self.follow(event.dyno.app).await;
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let apps: Vec<AppId> = self.halves.lock().await.keys().copied().collect();
                    for app in apps {
                        self.follow(app).await;
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, app: App) -> Generation {
        let mut table = self.table();
        if table.apps.get(&app.id) != Some(&app) {
            table.generation += 1;
            let generation = table.generation;
            table.tell(&Message::Upsert { generation, app: Box::new(app.clone()) });
            table.apps.insert(app.id, app);
        }
        table.generation
    }

    fn withdraw(&self, app: AppId) -> Generation {
        let mut table = self.table();
        if table.apps.remove(&app).is_some() {
            table.generation += 1;
            let generation = table.generation;
            table.tell(&Message::Remove { generation, app });
        }
        table.generation
    }

    /// The table as it is, and everything that changes from here on.
    fn subscribe(&self) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(BEHIND);
        let mut table = self.table();
        let apps = table.apps.values().cloned().collect();
        // A router takes a snapshot whatever its generation; 0 is not in use for a table that was sent.
        table.generation = table.generation.max(1);
        let _ = sender.try_send(Message::Snapshot { generation: table.generation, apps });
        table.followers.push(sender);
        receiver
    }

    fn acknowledge(&self, router: u64, ack: Ack) {
        self.acknowledged.send_modify(|routers| {
            routers.insert(router, ack);
        });
    }

    fn leave(&self, router: u64) {
        self.acknowledged.send_modify(|routers| {
            routers.remove(&router);
        });
    }
}

impl Table {
    fn tell(&mut self, message: &Message) {
        self.followers.retain(|follower| follower.try_send(message.clone()).is_ok());
    }
}

#[async_trait]
impl Gate for Feed {
    async fn before_stop(&self, dyno: &Dyno) {
        let told = async {
            let generation = self.follow(dyno.app).await;
            self.served(generation).await;
        };
        if tokio::time::timeout(PATIENCE, told).await.is_err() {
            tracing::warn!(dyno = %dyno.name, app = %dyno.app, "the router has not answered; the dyno stops all the same");
            return;
        }
        // A request that it was sent a moment ago may wait in its listen queue, which closes with the signal. What takes
        // longer than this has been taken up, and is the dyno's to finish within its grace.
        let settle = millis(self.context.limits().router_settle_ms);
        let _ = tokio::time::timeout(settle, self.settled(dyno.id)).await;
    }
}
