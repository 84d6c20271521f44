//! When jobs run: presets and cron expressions in a time zone, and what `app.json` says of them.
//!
//! Daylight saving: a schedule for times of the day (`30 2 * * *`, `daily at 02:30`) runs once at each of them, whatever the
//! clocks do: a time that is skipped runs at the moment of the change, one that comes twice runs the first time. A schedule
//! whose minute or hour begins with `*` (`*/10 * * * *`, `0 */2 * * *`) follows the clock on the wall as it is: in an hour
//! that is skipped nothing runs, in one that comes twice it runs twice. This is what Debian's cron does. The time zone
//! database is built in, so that the same version gives the same times on every machine.

mod expression;

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};

pub use expression::{Expression, Invalid as InvalidExpression};

use crate::{name::ProcessType, size::Size};

/// Most characters of a job's name and of its command.
const NAME_CHARS: usize = 64;
const COMMAND_CHARS: usize = 4_096;

/// A job that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Neither preset nor expression.
    #[error(
        "\"{text}\" is no schedule: {why}. Use \"every 10 minutes\", \"hourly at :30\", \"daily at 13:30\", or a cron \
         expression such as \"0 9 * * 1-5\""
    )]
    Schedule {
        /// As it was given.
        text: String,
        /// Why.
        why: InvalidExpression,
    },
    /// No such zone.
    #[error("there is no time zone \"{0}\"; use a name such as UTC or Europe/Berlin")]
    Zone(String),
    /// The name is no name.
    #[error("\"{0}\" cannot be a job's name: use up to 64 lower-case letters, digits, - and _, with a letter first")]
    Name(String),
    /// The command is none.
    #[error("a job's command must have 1 to 4096 characters")]
    Command,
    /// No such policy.
    #[error("{field} is \"{text}\", and must be one of {choices}")]
    Choice {
        /// Which.
        field: &'static str,
        /// As it was given.
        text: String,
        /// What it may be.
        choices: &'static str,
    },
    /// No such size.
    #[error("there is no dyno size \"{0}\"")]
    Size(String),
    /// Two jobs with one name.
    #[error("two jobs are called \"{0}\"; give each a \"name\" of its own")]
    Twice(String),
    /// `app.json` cannot be read.
    #[error("{0}")]
    Format(String),
}

/// When something happens, in some time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    expression: Expression,
}

impl FromStr for Schedule {
    type Err = Invalid;

    /// Accepts `every 10 minutes`, `hourly`, `hourly at :MM`, `daily at HH:MM`, `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`
    /// and five fields.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let words = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let lower = words.to_ascii_lowercase();
        let clock = |time: &str| {
            let (hour, minute) = time.split_once(':')?;
            let digits = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            (digits(hour) && minute.len() == 2 && digits(minute)).then(|| (hour.to_owned(), minute.to_owned()))
        };
        let fields = match lower.as_str() {
            "every 10 minutes" => Some("*/10 * * * *".to_owned()),
            "hourly" | "@hourly" => Some("0 * * * *".to_owned()),
            "daily" | "@daily" | "@midnight" => Some("0 0 * * *".to_owned()),
            "@weekly" => Some("0 0 * * 0".to_owned()),
            "@monthly" => Some("0 0 1 * *".to_owned()),
            "@yearly" | "@annually" => Some("0 0 1 1 *".to_owned()),
            other => match (other.strip_prefix("hourly at "), other.strip_prefix("daily at ")) {
                (Some(time), _) => clock(time).filter(|(hour, _)| hour.is_empty()).map(|(_, m)| format!("{m} * * * *")),
                (_, Some(time)) => {
                    clock(time).filter(|(hour, _)| !hour.is_empty()).map(|(h, m)| format!("{m} {h} * * *"))
                }
                _ => None,
            },
        };
        let preset = fields.is_some();
        let wrong = |why| Invalid::Schedule { text: words.clone(), why };
        let expression = Expression::parse(fields.as_deref().unwrap_or(&words)).map_err(wrong)?;
        let text = if preset { lower } else { expression.to_string() };
        Ok(Self { text, expression })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Schedule {
    /// The expression behind a preset.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// The first time after `after`; nothing when there is none within some years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.expression.fixes_times() { self.next_fixed(after, zone) } else { self.next_running(after, zone) }
    }

    /// Every matching time of the calendar is one moment: the first of two, the end of a gap.
    fn next_fixed(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut civil = self.expression.next(start_of_minute(zone.to_datetime(after)))?;
        loop {
            let at = moment(civil, zone)?;
            if at > after {
                return Some(at);
            }
            civil = self.expression.next(civil.checked_add(jiff::Span::new().minutes(1)).ok()?)?;
        }
    }

    /// Every moment at which the clock on the wall shows a matching time.
    fn next_running(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let seconds = after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let mut from = Timestamp::from_second(seconds).ok()?;
        loop {
            let shown = zone.to_datetime(from);
            let civil = self.expression.next(shown)?;
            let at = from.checked_add(civil.duration_since(shown)).ok()?;
            // The clock may be changed before that.
            match zone.following(from).next().map(|change| change.timestamp()).filter(|change| *change <= at) {
                Some(change) => from = change,
                None => return Some(at),
            }
        }
    }
}

fn start_of_minute(at: DateTime) -> DateTime {
    at.date().at(at.hour(), at.minute(), 0, 0)
}

/// The moment of a time of the calendar.
fn moment(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    use jiff::tz::AmbiguousOffset;
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // The time as it would be by the new clock lies just before the change.
            let near = after.to_timestamp(civil).ok()?;
            zone.following(near).next().map(|change| change.timestamp())
        }
    }
}

/// A time zone by its name.
///
/// # Errors
/// When there is none.
pub fn zone(name: &str) -> Result<TimeZone, Invalid> {
    TimeZone::get(name).map_err(|_| Invalid::Zone(name.to_owned()))
}

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident, $field:literal, $all:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Invalid::Choice { field: $field, text: text.to_owned(), choices: $all }),
                }
            }
        }
    };
}

choices! {
    /// What happens when a run is due and the one before has not ended.
    Overlap, "overlap", "forbid, allow, replace" {
        /// The new run is left out.
        #[default]
        Forbid = "forbid",
        /// Both run.
        Allow = "allow",
        /// The old one is stopped first.
        Replace = "replace",
    }
}

choices! {
    /// What happens with runs whose time passed while the platform was not running.
    Missed, "missed", "skip, run" {
        /// Nothing; the history says so.
        #[default]
        Skip = "skip",
        /// One run at the next start of the platform, for all of them.
        Run = "run",
    }
}

/// A job as it is asked for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name, one of its app's.
    pub name: String,
    /// When.
    pub schedule: Schedule,
    /// The schedule's time zone.
    pub zone: String,
    /// What is run, by a shell; the name of a process type stands for that type's command.
    pub command: String,
    /// How large a dyno.
    pub size: Size,
    /// When the one before still runs.
    pub overlap: Overlap,
    /// When it was missed.
    pub missed: Missed,
}

/// A job as people write it: an element of `cron` in `app.json`, a body of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its name; told from the command when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When.
    pub schedule: String,
    /// What.
    pub command: String,
    /// `UTC` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// `basic` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// `forbid` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// `skip` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
}

impl Asked {
    /// Checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<Job, Invalid> {
        let command = self.command.trim();
        if command.is_empty() || command.chars().count() > COMMAND_CHARS || command.contains('\0') {
            return Err(Invalid::Command);
        }
        let name = match self.name.as_deref() {
            Some(name) => name.to_owned(),
            None => named_after(command),
        };
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if name.len() > NAME_CHARS || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.bytes().all(good) {
            return Err(Invalid::Name(name));
        }
        let zone_name = self.timezone.as_deref().unwrap_or("UTC");
        zone(zone_name)?;
        let size = self
            .size
            .as_deref()
            .map_or(Ok(Size::Basic), |size| size.parse().map_err(|_| Invalid::Size(size.to_owned())))?;
        Ok(Job {
            name,
            schedule: self.schedule.parse()?,
            zone: zone_name.to_owned(),
            command: command.to_owned(),
            size,
            overlap: self.overlap.as_deref().map_or(Ok(Overlap::default()), str::parse)?,
            missed: self.missed.as_deref().map_or(Ok(Missed::default()), str::parse)?,
        })
    }
}

/// A name from what a command begins with: `python manage.py clearsessions` becomes `python-manage-py-clearsessions`.
fn named_after(command: &str) -> String {
    let mut name = String::new();
    for c in command.chars().take(200) {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let name = name.chars().take(40).collect::<String>();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "job".to_owned() } else { name.to_owned() }
}

/// What `app.json` says under `cron`: nothing (the app's jobs are left alone), or all of them.
///
/// # Errors
/// When it is no JSON object, or a job cannot be.
pub fn of_app_json(text: &str) -> Result<Option<Vec<Asked>>, Invalid> {
    #[derive(Deserialize)]
    struct Manifest {
        cron: Option<Vec<Asked>>,
    }
    let wrong = |error: serde_json::Error| Invalid::Format(error.to_string());
    let Some(all) = serde_json::from_str::<Manifest>(text).map_err(wrong)?.cron else { return Ok(None) };
    let mut names = std::collections::BTreeSet::new();
    for asked in &all {
        let job = asked.check()?;
        if !names.insert(job.name.clone()) {
            return Err(Invalid::Twice(job.name));
        }
    }
    Ok(Some(all))
}

/// The process type of jobs' dynos: `scheduler.4711`.
#[expect(clippy::expect_used, reason = "a literal that follows the rules for process types")]
pub fn process_type() -> ProcessType {
    "scheduler".parse().expect("a process type")
}

#[cfg(test)]
mod tests;
