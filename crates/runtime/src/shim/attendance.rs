//! Whether the client of a one-off dyno is there, and what is due when it is not.
//!
//! It is kept by the shim so that it holds whatever happens to control, through which a client comes: a control role
//! that dies takes its clients' connections with it, and their dynos are hung up like those of any client that is gone.
//! Pure: told what happens and when, it says what is to be done.

use std::time::{Duration, Instant};

use dozen_api::shim::Client;

/// How often a dyno is sent SIGHUP after its client is gone.
const HANGUPS: u32 = 3;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nobody came in time: the dyno is to be stopped.
    NobodyCame,
    /// Nothing was said for too long: the client's connection is to be closed.
    Idle,
    /// SIGHUP is to be sent, for the nth time.
    HangUp(u32),
    /// It goes on for all that.
    Detached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Awaited,
    Attached,
    Gone {
        hangups: u32,
    },
    /// Nothing more is due.
    Over,
}

/// The client of one dyno.
#[derive(Debug)]
pub(super) struct Attendance {
    client: Client,
    phase: Phase,
    due: Option<Instant>,
}

impl Attendance {
    pub(super) fn new(client: Client, now: Instant) -> Self {
        Self { client, phase: Phase::Awaited, due: now.checked_add(Duration::from_millis(client.wait_ms)) }
    }

    /// A client wants to attach: only the first one may.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let first = self.phase == Phase::Awaited;
        if first {
            self.phase = Phase::Attached;
            self.heard(now);
        }
        first
    }

    /// Bytes went in either direction.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.phase == Phase::Attached {
            self.due = now.checked_add(Duration::from_millis(self.client.idle_ms));
        }
    }

    /// The client's connection is no more.
    pub(super) fn gone(&mut self, now: Instant) {
        if self.phase == Phase::Attached {
            (self.phase, self.due) = (Phase::Gone { hangups: 0 }, Some(now));
        }
    }

    /// The dyno has ended: nothing is due any more, but what it printed is still for the client.
    pub(super) fn ended(&mut self) {
        self.due = None;
    }

    /// Whether there is a client.
    pub(super) fn is_attached(&self) -> bool {
        self.phase == Phase::Attached
    }

    /// Whether output waits for a client that has yet to come.
    pub(super) fn is_awaited(&self) -> bool {
        self.phase == Phase::Awaited
    }

    /// When to look next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Milliseconds between SIGTERM and SIGKILL when nobody came.
    pub(super) fn grace_ms(&self) -> u64 {
        self.client.grace_ms
    }

    /// What is due now; each thing is said once.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        self.due.filter(|due| *due <= now)?;
        let pause = now.checked_add(Duration::from_millis(self.client.hangup_ms));
        let (phase, due, what) = match self.phase {
            Phase::Awaited => (Phase::Over, None, Due::NobodyCame),
            Phase::Attached => (Phase::Gone { hangups: 0 }, Some(now), Due::Idle),
            Phase::Gone { hangups } if hangups < HANGUPS => {
                (Phase::Gone { hangups: hangups + 1 }, pause, Due::HangUp(hangups + 1))
            }
            Phase::Gone { .. } => (Phase::Over, None, Due::Detached),
            Phase::Over => {
                self.due = None;
                return None;
            }
        };
        (self.phase, self.due) = (phase, due);
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client = Client { wait_ms: 30_000, idle_ms: 3_600_000, hangup_ms: 5_000, grace_ms: 30_000 };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn nobody_may_attach_after_the_time_or_second() {
        let start = Instant::now();
        let mut attendance = Attendance::new(CLIENT, start);
        assert_eq!(attendance.take(start + seconds(29)), None);
        assert_eq!(attendance.take(start + seconds(30)), Some(Due::NobodyCame));
        assert_eq!((attendance.take(start + seconds(99)), attendance.admit(start + seconds(31))), (None, false));
        let mut attendance = Attendance::new(CLIENT, start);
        assert!(attendance.admit(start + seconds(29)));
        assert!(!attendance.admit(start + seconds(29)));
    }

    #[test]
    fn a_client_that_is_gone_is_followed_by_three_hangups_and_r16() {
        let start = Instant::now();
        let mut attendance = Attendance::new(CLIENT, start);
        attendance.admit(start);
        attendance.gone(start + seconds(100));
        let at = |n: u64| start + seconds(100 + n);
        assert_eq!((attendance.take(at(0)), attendance.take(at(4))), (Some(Due::HangUp(1)), None));
        assert_eq!((attendance.take(at(5)), attendance.take(at(10))), (Some(Due::HangUp(2)), Some(Due::HangUp(3))));
        assert_eq!((attendance.take(at(14)), attendance.take(at(15))), (None, Some(Due::Detached)));
        assert_eq!((attendance.take(at(99)), attendance.due()), (None, None));
    }

    #[test]
    fn an_hour_of_silence_ends_the_session_and_a_byte_begins_it_anew() {
        let start = Instant::now();
        let mut attendance = Attendance::new(CLIENT, start);
        attendance.admit(start);
        attendance.heard(start + seconds(3_000));
        assert_eq!(attendance.take(start + seconds(3_600)), None);
        assert_eq!(attendance.take(start + seconds(6_600)), Some(Due::Idle));
        assert_eq!(attendance.take(start + seconds(6_600)), Some(Due::HangUp(1)));
    }

    #[test]
    fn what_ended_before_its_client_came_waits_for_it() {
        let start = Instant::now();
        let mut attendance = Attendance::new(CLIENT, start);
        attendance.ended();
        assert_eq!(attendance.take(start + seconds(40)), None);
        assert!(attendance.is_awaited() && attendance.admit(start + seconds(20)));
    }
}
