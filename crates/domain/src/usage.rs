//! Dyno-seconds: how long dynos ran within a month.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const DAY: i64 = 86_400_000_000; // microseconds

/// A calendar month of UTC: `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: i32,
    month: u8,
}

/// No month is written so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("A month is written as 2026-11; this is {0:?}.")]
pub struct Invalid(pub String);

impl Month {
    /// The month of a time, microseconds since 1970.
    pub fn of(at: i64) -> Self {
        // Howard Hinnant's civil_from_days, years beginning in March.
        let days = at.div_euclid(DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Self { year: i32::try_from(year).unwrap_or(i32::MAX), month: u8::try_from(month).unwrap_or(1) }
    }

    /// The month after this one.
    fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            month => Self { month: month + 1, ..self },
        }
    }

    /// Its first instant, microseconds since 1970.
    pub fn start(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let month = i64::from(self.month);
        let march_month = if month > 2 { month - 3 } else { month + 9 };
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * march_month + 2) / 5;
        (era * 146_097 + day_of_era - 719_468) * DAY
    }

    /// The first instant after it.
    pub fn end(self) -> i64 {
        self.next().start()
    }

    /// Microseconds of it in which something ran from `started_at` until `ended_at`, or `now` if it still does.
    pub fn overlap(self, started_at: i64, ended_at: Option<i64>, now: i64) -> i64 {
        let until = ended_at.unwrap_or(now).min(self.end());
        (until - started_at.max(self.start())).max(0)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid(text.to_owned());
        let (year, month) = text.split_once('-').ok_or_else(invalid)?;
        let digits = |text: &str, n| text.len() == n && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(invalid());
        }
        let month = month.parse().ok().filter(|month| (1..=12).contains(month)).ok_or_else(invalid)?;
        Ok(Self { year: year.parse().map_err(|_| invalid())?, month })
    }
}

impl TryFrom<String> for Month {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

/// Whole seconds of a sum of microseconds, rounded to the nearest.
pub fn whole_seconds(micros: i64) -> i64 {
    (micros + 500_000).div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(text: &str) -> Month {
        text.parse().expect("a month")
    }

    #[test]
    fn a_month_begins_and_ends_where_the_calendar_says() {
        assert_eq!(month("1970-01").start(), 0);
        assert_eq!(month("2026-11").start(), 1_793_491_200_000_000); // date -ud 2026-11-01 +%s
        assert_eq!(month("2026-12").end(), month("2027-01").start());
        assert_eq!((month("2024-02").end() - month("2024-02").start()) / DAY, 29);
        assert_eq!((month("2100-02").end() - month("2100-02").start()) / DAY, 28);
        for text in ["1999-12", "2000-02", "2026-11"] {
            assert_eq!(Month::of(month(text).start()).to_string(), text);
            assert_eq!(Month::of(month(text).end() - 1).to_string(), text);
        }
        for bad in ["2026", "2026-13", "26-11", "2026-1", "2026-00", "+026-11"] {
            assert!(bad.parse::<Month>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_lies_in_the_month_counts() {
        let (month, second) = (month("2026-11"), 1_000_000);
        let (start, end) = (month.start(), month.end());
        assert_eq!(month.overlap(start - second, Some(start + second), 0), second);
        assert_eq!(month.overlap(end - second, None, end + second), second);
        assert_eq!(month.overlap(start, None, start + 7), 7);
        assert_eq!(month.overlap(end, Some(end + 9), 0), 0);
        assert_eq!(month.overlap(start - 9, Some(start), 0), 0);
    }

    #[test]
    fn seconds_are_rounded() {
        assert_eq!((whole_seconds(1_499_999), whole_seconds(1_500_000), whole_seconds(0)), (1, 2, 0));
    }
}
