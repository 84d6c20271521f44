//! The route table: from host to app, and for each app what control last said of it.
//!
//! Lookups take no lock. Hosts are spread over shards and the whole set is swapped in one step, so that an update
//! among a hundred thousand hosts copies a few hundred entries. Most updates change no host at all (a dyno came up):
//! they swap the app's [`View`] and wake the requests that wait for it. What outlives an update hangs on [`App`] (the
//! count of requests in flight) and on [`Upstream`] (kept connections, quarantine).
//!
//! The table knows nothing of sockets or files: `feed` brings it up to date and keeps it on disk.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use dozen_api::routes::{self, DynoState, Generation, Message};
use dozen_domain::ids::AppId;
use tokio::sync::{Notify, watch};

use crate::{edge::certificates::Certificates, metrics::Tally, upstreams::Upstream};

const SHARDS: usize = 256; // a power of two; at 100,000 hosts one holds about 400

/// One app, the same object for as long as control knows the app.
pub(crate) struct App {
    pub(crate) id: AppId,
    view: ArcSwap<View>,
    changed: Notify,
    waiting: AtomicU64,
    open: AtomicU64,
    /// Its requests since control was told last.
    pub(crate) tally: Tally,
}

/// What control last said of an app.
pub(crate) struct View {
    pub(crate) app: routes::App,
    /// Its dynos in the same order as in `app`, with what the router itself knows of each.
    pub(crate) dynos: Vec<(Arc<Upstream>, DynoState)>,
    /// Its certificates, loaded as they are needed.
    pub(crate) certificates: Certificates,
    /// The app was removed; requests that still wait for it get the page of an unknown host.
    pub(crate) gone: bool,
}

/// Counts one request as waiting for its app's answer, until dropped.
pub(crate) struct Waiting(Arc<App>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request as open, until dropped.
pub(crate) struct Open(Arc<App>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl App {
    /// What is known now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Fires when the view changes.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// Requests that wait for their answer to begin.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts a request in, unless `limit` requests wait already.
    pub(crate) fn wait(self: &Arc<Self>, limit: u64) -> Option<Waiting> {
        let waiting = Waiting(self.clone());
        (self.waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(waiting)
    }

    /// Counts a request in, unless `limit` are open already.
    pub(crate) fn enter(self: &Arc<Self>, limit: u64) -> Option<Open> {
        let open = Open(self.clone());
        (self.open.fetch_add(1, Ordering::Relaxed) < limit).then_some(open)
    }

    fn swap(&self, view: View) {
        self.view.store(Arc::new(view));
        self.changed.notify_waiters();
    }
}

type Shard = HashMap<Box<str>, Arc<App>>;

#[derive(Clone)]
struct Hosts {
    shards: Box<[Arc<Shard>]>,
    /// How many of the hosts are wildcards: without any, a miss costs one look.
    wildcards: usize,
}

impl Hosts {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Arc::default()).collect(), wildcards: 0 }
    }
}

#[derive(Default)]
struct Known {
    generation: Generation,
    apps: HashMap<AppId, Arc<App>>,
}

/// The table.
pub(crate) struct Table {
    hosts: ArcSwap<Hosts>,
    hasher: RandomState,
    known: Mutex<Known>,
    ready: watch::Sender<bool>,
    apps_domain: String,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

impl Table {
    /// An empty table; every app answers at `<name>.<apps_domain>` besides the hosts that control lists.
    pub(crate) fn new(apps_domain: &str) -> Self {
        Self {
            hosts: ArcSwap::from_pointee(Hosts::new()),
            hasher: RandomState::new(),
            known: Mutex::default(),
            ready: watch::Sender::new(false),
            apps_domain: apps_domain.to_ascii_lowercase(),
        }
    }

    /// The app of a host in lower case without port; the most specific wildcard where no exact name fits.
    pub(crate) fn find(&self, host: &str) -> Option<Arc<App>> {
        let hosts = self.hosts.load();
        let find = |name: &str| hosts.shards[self.shard(name)].get(name).cloned();
        if let Some(app) = find(host) {
            return Some(app);
        }
        if hosts.wildcards == 0 {
            return None;
        }
        host.match_indices('.').find_map(|(dot, _)| find(&["*", &host[dot..]].concat()))
    }

    /// Waits until a first table is known.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as this table, so that this cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Says whether a first table is known.
    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Starts from this message unless a table is known already.
    pub(crate) fn start_from(&self, message: Message) {
        let known = self.lock();
        if !self.is_ready() {
            self.put(known, message);
        }
    }

    /// Puts a message of control into force; requests that arrive after this see it.
    pub(crate) fn apply(&self, message: Message) -> Generation {
        self.put(self.lock(), message)
    }

    fn put(&self, mut known: MutexGuard<'_, Known>, message: Message) -> Generation {
        match message {
            // Parts are put together where they are received.
            Message::Part { .. } => return known.generation,
            Message::Snapshot { generation, apps } => {
                known.generation = generation;
                self.replace(&mut known, apps);
            }
            Message::Upsert { generation, app } => {
                known.generation = generation;
                self.upsert(&mut known, *app);
            }
            Message::Remove { generation, app } => {
                known.generation = generation;
                self.remove(&mut known, app);
            }
        }
        self.ready.send_replace(true);
        known.generation
    }

    /// The table as a message that brings another router to the same state.
    pub(crate) fn snapshot(&self) -> Message {
        // Copying the apps of a large table takes longer than an update may wait.
        let (generation, views): (_, Vec<Arc<View>>) = {
            let known = self.lock();
            (known.generation, known.apps.values().map(|app| app.view()).collect())
        };
        Message::Snapshot { generation, apps: views.iter().map(|view| view.app.clone()).collect() }
    }

    /// Generation, apps and hosts, for people to see.
    pub(crate) fn size(&self) -> (Generation, u64, u64) {
        let hosts = self.hosts.load().shards.iter().map(|shard| shard.len() as u64).sum();
        let known = self.lock();
        (known.generation, known.apps.len() as u64, hosts)
    }

    /// An app's dynos.
    pub(crate) fn upstreams_of(&self, app: AppId) -> Vec<Arc<Upstream>> {
        let view = self.lock().apps.get(&app).map(|app| app.view());
        view.map_or_else(Vec::new, |view| view.dynos.iter().map(|(dyno, _)| dyno.clone()).collect())
    }

    /// All dynos, for the closing of idle connections.
    pub(crate) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        // Looking at the apps of a large table takes longer than an update may wait.
        let apps: Vec<Arc<App>> = self.lock().apps.values().cloned().collect();
        let dynos = |app: &Arc<App>| app.view().dynos.iter().map(|(dyno, _)| dyno.clone()).collect::<Vec<_>>();
        apps.iter().flat_map(dynos).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, host: &str) -> usize {
        self.hasher.hash_one(host) as usize & (SHARDS - 1)
    }

    fn hosts_of<'a>(&self, app: &'a routes::App) -> HashSet<Cow<'a, str>> {
        let own = Cow::Owned(format!("{}.{}", app.name, self.apps_domain));
        app.hosts.iter().map(|host| lower(host)).chain([own]).collect()
    }

    fn replace(&self, known: &mut Known, apps: Vec<routes::App>) {
        let mut former = std::mem::take(&mut known.apps);
        let mut hosts = Hosts::new();
        for app in apps {
            let entry = revive(former.remove(&app.id), app);
            let view = entry.view();
            // An app that is told twice is what it is told last.
            if let Some(twin) = known.apps.insert(entry.id, entry.clone()) {
                self.hosts_of(&twin.view().app).iter().for_each(|host| self.release(&mut hosts, host, &twin));
            }
            for host in self.hosts_of(&view.app) {
                self.claim(&mut hosts, &host, &entry);
            }
        }
        self.hosts.store(Arc::new(hosts));
        former.into_values().for_each(|app| dismiss(&app));
    }

    fn upsert(&self, known: &mut Known, app: routes::App) {
        let former = known.apps.get(&app.id).cloned();
        let before = former.as_ref().map(|app| app.view());
        let old = before.as_ref().map(|view| self.hosts_of(&view.app)).unwrap_or_default();
        let entry = revive(former, app);
        let view = entry.view();
        let new = self.hosts_of(&view.app);
        if old != new {
            let mut hosts = (**self.hosts.load()).clone();
            old.difference(&new).for_each(|host| self.release(&mut hosts, host, &entry));
            new.difference(&old).for_each(|host| self.claim(&mut hosts, host, &entry));
            self.hosts.store(Arc::new(hosts));
        }
        known.apps.insert(entry.id, entry);
    }

    fn remove(&self, known: &mut Known, app: AppId) {
        let Some(entry) = known.apps.remove(&app) else { return };
        let view = entry.view();
        let mut hosts = (**self.hosts.load()).clone();
        self.hosts_of(&view.app).iter().for_each(|host| self.release(&mut hosts, host, &entry));
        self.hosts.store(Arc::new(hosts));
        dismiss(&entry);
    }

    fn claim(&self, hosts: &mut Hosts, host: &str, app: &Arc<App>) {
        let shard = Arc::make_mut(&mut hosts.shards[self.shard(host)]);
        if shard.insert(host.into(), app.clone()).is_none() {
            hosts.wildcards += usize::from(host.starts_with("*."));
        }
    }

    /// Takes a host away from an app, unless another one has claimed it since.
    fn release(&self, hosts: &mut Hosts, host: &str, app: &Arc<App>) {
        let shard = Arc::make_mut(&mut hosts.shards[self.shard(host)]);
        if shard.get(host).is_some_and(|owner| Arc::ptr_eq(owner, app)) {
            shard.remove(host);
            hosts.wildcards -= usize::from(host.starts_with("*."));
        }
    }
}

fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

/// Gives an app its new view, keeping what the router knows of dynos that are still the same.
fn revive(former: Option<Arc<App>>, app: routes::App) -> Arc<App> {
    let before = former.as_ref().map(|former| former.view());
    let dynos = app
        .dynos
        .iter()
        .map(|dyno| {
            let known = before.iter().flat_map(|view| &view.dynos).map(|(upstream, _)| upstream);
            let same = |upstream: &&Arc<Upstream>| upstream.id == dyno.id && upstream.addresses == dyno.addresses;
            (known.into_iter().find(same).cloned().unwrap_or_else(|| Arc::new(Upstream::new(dyno))), dyno.state)
        })
        .collect();
    let certificates = Certificates::new(&app.edge, before.as_ref().map(|view| &view.certificates));
    let view = View { dynos, certificates, gone: false, app };
    match former {
        Some(former) => {
            former.swap(view);
            former
        }
        None => Arc::new(App {
            id: view.app.id,
            view: ArcSwap::from_pointee(view),
            changed: Notify::new(),
            waiting: AtomicU64::new(0),
            open: AtomicU64::new(0),
            tally: Tally::default(),
        }),
    }
}

/// Tells the requests that wait for a removed app that it is gone, and lets go of its connections.
fn dismiss(app: &App) {
    let app_then = app.view().app.clone();
    app.swap(View { app: app_then, dynos: Vec::new(), certificates: Certificates::default(), gone: true });
}

#[cfg(test)]
mod tests {
    use dozen_api::routes::Dyno;
    use dozen_domain::ids::DynoId;

    use super::*;

    fn app(name: &str, hosts: &[&str]) -> routes::App {
        crate::fuzzing::named_app(AppId::random(), name, hosts.iter().copied())
    }

    fn table(apps: &[&routes::App]) -> Table {
        let table = Table::new("apps.test");
        table.apply(Message::Snapshot { generation: 1, apps: apps.iter().map(|app| (*app).clone()).collect() });
        table
    }

    fn found(table: &Table, host: &str) -> Option<String> {
        table.find(host).map(|app| app.view().app.name.to_string())
    }

    #[test]
    fn an_exact_host_beats_a_wildcard_and_a_deep_wildcard_a_shallow_one() {
        let (one, two, three) =
            (app("one", &["*.example.com"]), app("two", &["www.example.com"]), app("three", &["*.b.example.com"]));
        let table = table(&[&one, &two, &three]);
        assert_eq!(found(&table, "www.example.com").as_deref(), Some("two"));
        assert_eq!(found(&table, "x.example.com").as_deref(), Some("one"));
        assert_eq!(found(&table, "x.y.example.com").as_deref(), Some("one"));
        assert_eq!(found(&table, "a.b.example.com").as_deref(), Some("three"));
        assert_eq!(found(&table, "example.com"), None);
        assert_eq!(found(&table, "one.apps.test").as_deref(), Some("one"));
    }

    #[test]
    fn an_upsert_moves_hosts_and_keeps_what_is_known_of_a_dyno() {
        let mut one = app("one", &["a.test"]);
        let id = DynoId::random();
        let name = "web.1".parse().expect("a dyno name");
        one.dynos = vec![Dyno { id, name, addresses: vec![([127, 0, 0, 1], 1).into()], state: DynoState::Starting }];
        let table = table(&[&one]);
        let before = table.find("a.test").expect("the app");
        let dyno = before.view().dynos[0].0.clone();
        one.hosts = vec!["b.test".to_owned()];
        one.dynos[0].state = DynoState::Up;
        assert_eq!(table.apply(Message::Upsert { generation: 7, app: Box::new(one) }), 7);
        assert!(table.find("a.test").is_none());
        let after = table.find("b.test").expect("the app");
        assert!(Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(&dyno, &after.view().dynos[0].0));
        assert_eq!(after.view().dynos[0].1, DynoState::Up);
    }

    #[test]
    fn a_removed_app_frees_its_hosts_but_not_those_that_another_has_claimed() {
        let (one, two) = (app("one", &["a.test", "b.test", "*.c.test"]), app("two", &["b.test"]));
        let table = table(&[&one]);
        table.apply(Message::Upsert { generation: 2, app: Box::new(two) });
        let held = table.find("a.test").expect("the app");
        table.apply(Message::Remove { generation: 3, app: one.id });
        assert_eq!((found(&table, "a.test"), found(&table, "x.c.test")), (None, None));
        assert_eq!(found(&table, "b.test").as_deref(), Some("two"));
        assert!(held.view().gone);
    }

    #[test]
    fn requests_over_the_limit_are_not_counted_in() {
        let one = app("one", &[]);
        let table = table(&[&one]);
        let app = table.find("one.apps.test").expect("the app");
        let first = app.wait(1);
        assert!(first.is_some() && app.wait(1).is_none());
        drop(first);
        assert!(app.wait(1).is_some());
    }
}
