//! Phase 3: chooses a web dyno at random among those that are up, or waits for one.
//!
//! A request waits while dynos are starting, or while all that are up are in quarantine; changes of the table wake it.
//! It gives up after `router_connect_total_ms`, which is also the budget for all connection attempts together. A dyno's
//! quarantine grows with every refusal, so that requests that find all dynos in one try again ever more rarely.

use std::sync::Arc;

use dozen_api::routes::DynoState;
use dozen_domain::{
    ids::DynoId,
    limits::{Limits, millis},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    error::{Error, Kind},
    exchange::Exchange,
    phases::lookup,
    table::{App, View},
    upstreams::Upstream,
};

/// What one request has tried so far.
pub(crate) struct Attempts {
    /// When the request gives up connecting.
    pub(crate) deadline: Instant,
    /// A kept connection was stale: only a fresh one will do.
    pub(crate) fresh: bool,
    /// The dyno that goes first, if it can.
    wanted: Option<DynoId>,
    tried: Vec<DynoId>,
    count: u64,
    most: u64,
    last: Option<Error>,
    /// All dynos were in quarantine when it came: it goes on trying whichever is let out first.
    held: bool,
}

impl Attempts {
    pub(crate) fn new(exchange: &Exchange) -> Self {
        let limits: &Limits = &exchange.router.limits;
        Self {
            deadline: exchange.started + millis(limits.router_connect_total_ms),
            fresh: false,
            wanted: exchange.wanted,
            tried: Vec::new(),
            count: 0,
            most: limits.router_connect_attempts,
            last: None,
            held: false,
        }
    }

    /// Notes that a dyno did not take the connection.
    ///
    /// # Errors
    /// The same error, when that was the last attempt.
    pub(crate) fn failed(&mut self, dyno: &Upstream, error: Error) -> Result<(), Error> {
        self.count += 1;
        let over = self.count >= self.most || Instant::now() >= self.deadline;
        if self.held {
            return if over { Err(Error::router(Kind::Quarantined)) } else { Ok(()) };
        }
        self.tried.push(dyno.id);
        self.last = Some(error);
        if over { Err(error) } else { Ok(()) }
    }
}

enum Choice {
    Dyno(Arc<Upstream>),
    /// Nothing now; perhaps after a change of the table, or at the time when a quarantine ends.
    Wait(Option<Instant>),
}

/// Chooses a dyno that was not tried yet.
pub(crate) async fn run(app: &App, attempts: &mut Attempts) -> Result<Arc<Upstream>, Error> {
    if let Choice::Dyno(dyno) = choose(&app.view(), attempts)? {
        return Ok(dyno);
    }
    loop {
        // Listens before it looks, so that no change is missed between the two.
        let mut changed = std::pin::pin!(app.changed().notified());
        changed.as_mut().enable();
        let until = match choose(&app.view(), attempts)? {
            Choice::Dyno(dyno) => return Ok(dyno),
            Choice::Wait(until) => until,
        };
        attempts.held |= until.is_some();
        let wake = until.map_or(attempts.deadline, |until| until.min(attempts.deadline));
        tokio::select! {
            () = changed => {}
            () = sleep_until(wake) => {
                if Instant::now() >= attempts.deadline {
                    let kind = if until.is_some() { Kind::Quarantined } else { Kind::Booting };
                    return Err(attempts.last.unwrap_or(Error::router(kind)));
                }
            }
        }
    }
}

fn choose(view: &View, attempts: &Attempts) -> Result<Choice, Error> {
    lookup::serves(view)?;
    let now = Instant::now();
    let (mut chosen, mut fit, mut up, mut starting) = (None, 0, 0, 0);
    let mut free: Option<Instant> = None;
    for (dyno, state) in &view.dynos {
        match state {
            DynoState::Up => {
                up += 1;
                if attempts.tried.contains(&dyno.id) {
                    continue;
                }
                if let Some(until) = dyno.quarantined(now) {
                    free = Some(free.map_or(until, |free| free.min(until)));
                    continue;
                }
                if attempts.wanted == Some(dyno.id) {
                    return Ok(Choice::Dyno(dyno.clone()));
                }
                // Each of n fit dynos ends up chosen with probability 1/n.
                fit += 1;
                if fastrand::u32(..fit) == 0 {
                    chosen = Some(dyno);
                }
            }
            DynoState::Starting => starting += 1,
            DynoState::Crashed => {}
        }
    }
    match (chosen, attempts.last) {
        (Some(dyno), _) => Ok(Choice::Dyno(dyno.clone())),
        // Every dyno that is up and not in quarantine has been tried.
        (None, Some(last)) => Err(last),
        (None, None) if up > 0 => Ok(Choice::Wait(free)),
        // Wanted, and none is listed: control is about to start them.
        (None, None) if starting > 0 || view.dynos.is_empty() => Ok(Choice::Wait(None)),
        (None, None) => Err(Error::dyno(Kind::Crashed)),
    }
}
