//! Which dynos are too old: those of the formation are replaced, one of a type at a time; one-offs end.

use dozen_api::clock::{self, Micros};
use dozen_domain::{
    cycle::{self, Candidate},
    dyno::State,
    ids::{AppId, DynoId},
};

use super::{
    actor::Actor,
    entry::{Entry, Kind},
    say,
};

impl Actor {
    fn cycles(&self, app: AppId) -> bool {
        self.wanted.get(&app).is_none_or(|wanted| wanted.cycle)
    }

    /// Asks for the replacement of those dynos of an app's formation that are due; says when the next one is.
    pub(super) fn cycle(&mut self, app: AppId, now: Micros) -> Option<Micros> {
        if !self.cycles(app) {
            return None;
        }
        let limits = &self.host.options.limits;
        let runs = |entry: &&Entry| {
            let live = matches!(entry.dyno.state, State::Starting { .. } | State::Up { .. });
            entry.dyno.app == app && entry.kind == Kind::Formation && live && !entry.leaving
        };
        let candidates = self.dynos.values().filter(runs).map(|entry| Candidate {
            dyno: entry.dyno.id,
            process_type: entry.dyno.name.process_type().clone(),
            due_at: entry.cycle_at(limits),
            settled: matches!(entry.dyno.state, State::Up { .. }) && !entry.replace,
        });
        let (due, next) = cycle::choose(&candidates.collect::<Vec<_>>(), now);
        for dyno in due {
            if let Some(entry) = self.dynos.get_mut(&dyno) {
                entry.cycle();
            }
            self.say(dyno, now, say::CYCLING.to_owned());
        }
        next
    }

    /// When a one-off is to end by the machine's uptime, and whether for its age rather than because it was asked to.
    pub(super) fn one_off_ends(&self, entry: &Entry) -> Option<(Micros, bool)> {
        entry.ends_at(self.cycles(entry.dyno.app), &self.host.options.limits)
    }

    /// One-offs whose time is over, each with whether that is for its age.
    pub(super) fn one_offs_over(&self) -> Vec<(DynoId, bool)> {
        let now = clock::uptime();
        let over = |entry: &Entry| self.one_off_ends(entry).filter(|(at, _)| *at <= now);
        self.dynos.values().filter_map(|entry| Some((entry.dyno.id, over(entry)?.1))).collect()
    }
}
