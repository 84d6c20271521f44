//! Looks at what dynos use, again and again: says R14 of those over their memory, and writes the two lines of
//! `log-runtime-metrics` for apps that want them.
//!
//! It only reads and tells. That a dyno does not go far over its quota is the kernel's work ([`crate::cgroup`]), which
//! needs nobody to look.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use dozen_api::{
    clock,
    engine::Dyno,
    logs::{Line, Source},
};
use dozen_domain::ids::{AppId, DynoId};

use super::{View, host::Host, say};
use crate::cgroup::{Cgroup, Place, hierarchy};

/// Apps whose dynos' figures are written into their logs.
pub(super) type Metered = Arc<RwLock<HashSet<AppId>>>;

/// The load is looked at so often between two lines, as the kernel does for the whole machine (every 5 s).
const LOAD_LOOKS: u32 = 4;
/// Minutes over which the load is averaged.
const MINUTES: [f64; 3] = [1.0, 5.0, 15.0];

/// Number of running threads, averaged over each of [`MINUTES`].
#[derive(Debug, Clone, Copy, Default)]
struct Load([f64; 3]);

impl Load {
    /// Takes in one more look, made this long after the one before.
    fn add(&mut self, running: usize, after: Duration) {
        for (average, minutes) in self.0.iter_mut().zip(MINUTES) {
            let kept = (-after.as_secs_f64() / (60.0 * minutes)).exp();
            *average = *average * kept + running as f64 * (1.0 - kept);
        }
    }
}

/// Measures until the engine that `view` belongs to is gone.
pub(super) async fn run(host: Arc<Host>, view: Weak<RwLock<HashMap<AppId, Vec<Dyno>>>>, metered: Metered) {
    let pause = Duration::from_millis(host.options.limits.dyno_metrics_ms) / LOAD_LOOKS;
    let mut loads = HashMap::new();
    for look in 1_u32.. {
        tokio::time::sleep(pause).await;
        let Some(view) = view.upgrade() else { return };
        let (on, metered) = (host.clone(), metered.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let live = live(&view);
            let metered = metered.read().unwrap_or_else(PoisonError::into_inner).clone();
            Look { host: &on, places: hierarchy::places(), metered, pause }.take(
                &live,
                &mut loads,
                look % LOAD_LOOKS == 0,
            );
            loads
        });
        loads = looked.await.unwrap_or_default();
    }
}

fn live(view: &View) -> Vec<Dyno> {
    let view = view.read().unwrap_or_else(PoisonError::into_inner);
    view.values().flatten().filter(|dyno| dyno.state.is_live()).cloned().collect()
}

/// One round of looking.
struct Look<'a> {
    host: &'a Host,
    places: Vec<Place>,
    metered: HashSet<AppId>,
    pause: Duration,
}

impl Look<'_> {
    fn take(&self, live: &[Dyno], loads: &mut HashMap<DynoId, Load>, tell: bool) {
        loads.retain(|id, _| live.iter().any(|dyno| dyno.id == *id));
        for dyno in live {
            let metered = self.metered.contains(&dyno.app);
            let Some(path) = self.host.cgroup(dyno.id).filter(|_| metered || tell) else { continue };
            let cgroup = Cgroup::open_at(&self.places, &path);
            if metered {
                loads.entry(dyno.id).or_default().add(cgroup.running(), self.pause);
            }
            if tell {
                self.tell(dyno, &cgroup, loads.get(&dyno.id).filter(|_| metered));
            }
        }
    }

    fn tell(&self, dyno: &Dyno, cgroup: &Cgroup, load: Option<&Load>) {
        let memory = cgroup.memory_usage();
        let quota = dyno.size.quota().memory;
        if let Some(load) = load {
            self.say(dyno, say::load(dyno, load.0));
        }
        let Some(memory) = memory else { return };
        if load.is_some() {
            self.say(dyno, say::memory_sample(dyno, &memory, quota));
        }
        if memory.held() > quota {
            say::over_quota(memory.held(), quota).into_iter().for_each(|line| self.say(dyno, line));
        }
    }

    fn say(&self, dyno: &Dyno, text: String) {
        let process = dyno.name.to_string();
        self.host.options.logs.send(Line { app: dyno.app, at: clock::now(), source: Source::Heroku, process, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_follows_slowly() {
        let mut load = Load::default();
        (0..12).for_each(|_| load.add(2, Duration::from_secs(5)));
        let [one, five, fifteen] = load.0;
        assert!((1.2..1.3).contains(&one) && (0.36..0.37).contains(&five) && fifteen < 0.13, "{:?}", load.0);
    }
}
