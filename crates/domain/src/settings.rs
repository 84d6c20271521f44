//! What an app's config vars say to the platform about how its dynos run: boot timeout, stop signal and grace, health
//! check.
//!
//! [`check`] refuses a value when somebody sets it; the readers pass over one that was set before the rule was there.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::Vars,
    limits::{Limits, seconds},
    name::ProcessType,
};

/// Config var with the seconds in which a web dyno must bind its port.
pub const BOOT_TIMEOUT: &str = "BOOT_TIMEOUT";
/// Config var with the path that a new web dyno must answer before it gets requests.
pub const HEALTH_CHECK: &str = "DOZEN_HEALTH_CHECK_PATH";
/// Config var with a process type's stop signal, less the type: `DOZEN_STOP_SIGNAL_WEB`.
pub const STOP_SIGNAL: &str = "DOZEN_STOP_SIGNAL_";
/// Config var with a process type's seconds between stop signal and SIGKILL, less the type: `DOZEN_STOP_GRACE_WEB`.
pub const STOP_GRACE: &str = "DOZEN_STOP_GRACE_";

/// A config var whose value the platform cannot act on; the text is for the person who set it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Config var {key} must be {expected}; it is {value:?}.")]
pub struct Invalid {
    /// Which.
    pub key: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub value: String,
}

/// A signal that may ask a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// 1
    Hup,
    /// 2
    Int,
    /// 3, nginx' graceful stop
    Quit,
    /// 9, for what need not end well
    Kill,
    /// 10
    Usr1,
    /// 12
    Usr2,
    /// 15, the default
    Term,
    /// 28, Apache's graceful stop
    Winch,
}

impl Signal {
    /// All of them with their names.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Hup, "SIGHUP"),
        (Self::Int, "SIGINT"),
        (Self::Quit, "SIGQUIT"),
        (Self::Kill, "SIGKILL"),
        (Self::Usr1, "SIGUSR1"),
        (Self::Usr2, "SIGUSR2"),
        (Self::Term, "SIGTERM"),
        (Self::Winch, "SIGWINCH"),
    ];

    /// Its number on Linux.
    pub const fn number(self) -> i32 {
        match self {
            Self::Hup => 1,
            Self::Int => 2,
            Self::Quit => 3,
            Self::Kill => 9,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
            Self::Term => 15,
            Self::Winch => 28,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(signal, _)| signal == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// No signal of [`Signal::ALL`] has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no stop signal is called {0:?}")]
pub struct UnknownSignal(pub String);

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// `SIGQUIT`, `QUIT` or `quit`.
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let upper = text.trim().to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let found = Self::ALL.iter().find(|(_, name)| name[3..] == *bare);
        found.map(|(signal, _)| *signal).ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

/// How a dyno is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// What every process of it gets first.
    pub signal: Signal,
    /// Time until SIGKILL (R12).
    pub grace: Duration,
}

impl Stop {
    /// SIGTERM and the platform's grace.
    pub fn usual(limits: &Limits) -> Self {
        Self { signal: Signal::Term, grace: seconds(limits.stop_seconds) }
    }
}

/// `web-api` is `WEB_API` in names of config vars.
fn suffix(process_type: &ProcessType) -> String {
    process_type.as_str().to_ascii_uppercase().replace('-', "_")
}

/// How an app wants dynos of a process type to be stopped.
pub fn stop(vars: &Vars, process_type: &ProcessType, limits: &Limits) -> Stop {
    let usual = Stop::usual(limits);
    let suffix = suffix(process_type);
    let value = |prefix: &str| vars.get(&format!("{prefix}{suffix}")).map(|value| value.expose());
    let signal = value(STOP_SIGNAL).and_then(|text| text.parse().ok()).unwrap_or(usual.signal);
    let grace = value(STOP_GRACE).and_then(|text| number(text, limits.stop_max_seconds)).map_or(usual.grace, seconds);
    Stop { signal, grace }
}

/// The time that an app's web dynos have to bind their port.
pub fn boot_timeout(vars: &Vars, limits: &Limits) -> Duration {
    let own = vars.get(BOOT_TIMEOUT).and_then(|value| number(value.expose(), limits.boot_max_seconds));
    seconds(own.unwrap_or(limits.boot_seconds))
}

/// The path that a new web dyno of an app must answer before it gets requests, if there is one.
pub fn health_check(vars: &Vars) -> Option<String> {
    vars.get(HEALTH_CHECK).map(|path| path.expose().to_owned()).filter(|path| is_path(path))
}

/// A whole number from 1 to `most`.
fn number(text: &str, most: u64) -> Option<u64> {
    text.trim().parse().ok().filter(|number| (1..=most).contains(number))
}

pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Refuses a value that the platform could not act on; says nothing of config vars that are the app's own business.
///
/// # Errors
/// When it is one of the platform's and its value makes no sense.
pub fn check(key: &str, value: &str, limits: &Limits) -> Result<(), Invalid> {
    let within = |most: u64| (number(value, most).is_some(), format!("a whole number of seconds from 1 to {most}"));
    let (fits, expected) = match key {
        BOOT_TIMEOUT => within(limits.boot_max_seconds),
        HEALTH_CHECK => (is_path(value), "a path that begins with a slash and holds no space".to_owned()),
        _ if key.starts_with(STOP_GRACE) => within(limits.stop_max_seconds),
        _ if key.starts_with(STOP_SIGNAL) => {
            let names: Vec<&str> = Signal::ALL.iter().map(|(_, name)| *name).collect();
            (value.parse::<Signal>().is_ok(), format!("one of {}", names.join(", ")))
        }
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(Invalid { key: key.to_owned(), expected, value: value.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect()
    }

    #[test]
    fn a_process_type_has_its_own_stop() {
        let limits = Limits::default();
        let vars = vars(&[
            ("DOZEN_STOP_SIGNAL_WEB", "SIGQUIT"),
            ("DOZEN_STOP_GRACE_WEB", "5"),
            ("DOZEN_STOP_SIGNAL_SLOW_JOBS", "int"),
        ]);
        let stop = |name: &str| stop(&vars, &name.parse().expect("a type"), &limits);
        assert_eq!(stop("web"), Stop { signal: Signal::Quit, grace: Duration::from_secs(5) });
        assert_eq!(stop("slow-jobs"), Stop { signal: Signal::Int, grace: Duration::from_secs(30) });
        assert_eq!(stop("worker"), Stop::usual(&limits));
    }

    #[test]
    fn what_makes_no_sense_is_refused_when_it_is_set_and_passed_over_when_it_is_there() {
        let limits = Limits::default();
        for (key, value) in [
            ("BOOT_TIMEOUT", "181"),
            ("BOOT_TIMEOUT", "0"),
            ("BOOT_TIMEOUT", "soon"),
            ("DOZEN_STOP_SIGNAL_WEB", "SIGSTOP"),
            ("DOZEN_STOP_GRACE_WEB", "-1"),
            ("DOZEN_HEALTH_CHECK_PATH", "health"),
        ] {
            let error = check(key, value, &limits).expect_err(key).to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
        for (key, value) in [("BOOT_TIMEOUT", "180"), ("DOZEN_STOP_SIGNAL_WEB", "Quit"), ("ANYTHING", "else")] {
            assert_eq!(check(key, value, &limits), Ok(()));
        }
        let odd = vars(&[("BOOT_TIMEOUT", "soon"), ("DOZEN_STOP_GRACE_WEB", "x"), ("DOZEN_HEALTH_CHECK_PATH", "")]);
        assert_eq!(boot_timeout(&odd, &limits), Duration::from_secs(60));
        assert_eq!(stop(&odd, &ProcessType::web(), &limits), Stop::usual(&limits));
        assert_eq!(health_check(&odd), None);
    }

    #[test]
    fn every_signal_is_known_by_the_name_that_it_shows() {
        for (signal, name) in Signal::ALL {
            assert_eq!((name.parse(), signal.to_string().as_str()), (Ok(signal), name));
        }
    }
}
