//! A cron expression: five fields that say at which minutes of the calendar something happens.
//!
//! `minute hour day-of-month month day-of-week`, each `*`, a number, a range `1-5`, a step `*/10` or `8-18/2`, or a list of
//! these with commas; months and weekdays by their English names too, Sunday as 0 or 7. When both days are restricted,
//! either is enough (crontab(5)). This knows the calendar only; clocks and time zones are [`super::Schedule`]'s.

use std::fmt;

use jiff::civil::{Date, DateTime};

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Years that are searched for the next time: two leap years can be eight years apart (1896 and 1904, 2096 and 2104).
const YEARS: i16 = 9;

/// A text that is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not five fields.
    #[error("it has {0} fields, and must have five: minute, hour, day of month, month, day of week")]
    Fields(usize),
    /// A field that makes no sense.
    #[error("{field} is \"{text}\", and must be *, or numbers from {least} to {most} such as 5, 1-5, */10 or 1,15")]
    Field {
        /// Which.
        field: &'static str,
        /// As it was given.
        text: String,
        /// Its smallest number.
        least: u8,
        /// Its largest number.
        most: u8,
    },
    /// There is no such day (31 February).
    #[error("no day is ever like that")]
    Never,
}

/// One field as the set of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Field {
    /// Bit n is set when n is meant.
    bits: u64,
    /// It begins with `*`: it restricts nothing, or only by a step.
    star: bool,
}

struct Kind {
    name: &'static str,
    least: u8,
    most: u8,
    words: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind { name: "the minute", least: 0, most: 59, words: &[] },
    Kind { name: "the hour", least: 0, most: 23, words: &[] },
    Kind { name: "the day of month", least: 1, most: 31, words: &[] },
    Kind { name: "the month", least: 1, most: 12, words: MONTHS },
    Kind { name: "the day of week", least: 0, most: 7, words: WEEKDAYS },
];

impl Kind {
    fn parse(&self, text: &str) -> Result<Field, Invalid> {
        let invalid = || Invalid::Field { field: self.name, text: text.to_owned(), least: self.least, most: self.most };
        let mut bits = 0_u64;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, step.parse::<u8>().ok().filter(|step| *step > 0).ok_or_else(invalid)?),
                None => (part, 1),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((from, to)) => (self.number(from).ok_or_else(invalid)?, self.number(to).ok_or_else(invalid)?),
                // A single number with a step begins there.
                None if part.contains('/') => (self.number(range).ok_or_else(invalid)?, self.most),
                None => self.number(range).map(|one| (one, one)).ok_or_else(invalid)?,
            };
            if from > to {
                return Err(invalid());
            }
            (from..=to).step_by(step.into()).for_each(|number| bits |= 1 << number);
        }
        // Sunday is 0 and 7.
        if self.most == 7 && bits & (1 << 7) != 0 {
            bits = (bits | 1) & !(1 << 7);
        }
        Ok(Field { bits, star: text.starts_with('*') })
    }

    fn number(&self, text: &str) -> Option<u8> {
        let named = self.words.iter().position(|word| word.eq_ignore_ascii_case(text));
        if let Some(index) = named {
            return u8::try_from(index).ok().map(|index| index + self.least);
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && (self.least..=self.most).contains(number))
    }
}

impl Field {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }

    /// The smallest number that is not below `from`.
    fn from(self, from: i8) -> Option<i8> {
        let rest = self.bits >> u32::try_from(from).ok()?;
        (rest != 0).then(|| from + rest.trailing_zeros() as i8)
    }
}

/// A cron expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression {
    text: String,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Expression {
    /// Reads five fields.
    ///
    /// # Errors
    /// When it has others, or can never come true.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else { return Err(Invalid::Fields(fields.len())) };
        let expression = Self {
            text: fields.join(" "),
            minute: KINDS[0].parse(minute)?,
            hour: KINDS[1].parse(hour)?,
            day: KINDS[2].parse(day)?,
            month: KINDS[3].parse(month)?,
            weekday: KINDS[4].parse(weekday)?,
        };
        // From a leap year's beginning on, every date comes within eight years.
        match expression.next(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)) {
            Some(_) => Ok(expression),
            None => Err(Invalid::Never),
        }
    }

    /// Whether it is for times of the day, and not for every minute or hour or every so many: neither of these fields
    /// begins with `*` (as Debian's cron tells them apart).
    pub(super) fn fixes_times(&self) -> bool {
        !self.minute.star && !self.hour.star
    }

    /// Whether it means this minute of the calendar.
    pub fn matches(&self, at: DateTime) -> bool {
        self.minute.has(at.minute()) && self.hour.has(at.hour()) && self.matches_day(at.date())
    }

    fn matches_day(&self, date: Date) -> bool {
        let (day, weekday) = (self.day.has(date.day()), self.weekday.has(date.weekday().to_sunday_zero_offset()));
        // crontab(5): a day field that begins with * does not restrict, so the other one decides.
        let days = if self.day.star || self.weekday.star { day && weekday } else { day || weekday };
        self.month.has(date.month()) && days
    }

    /// The first minute that is not before `from`; nothing when none comes within some years.
    pub(super) fn next(&self, from: DateTime) -> Option<DateTime> {
        let whole = from.date().at(from.hour(), from.minute(), 0, 0);
        let from = if whole < from { whole.checked_add(jiff::Span::new().minutes(1)).ok()? } else { whole };
        let (mut date, mut hour, mut minute) = (from.date(), from.hour(), from.minute());
        let last = date.year().saturating_add(YEARS);
        while date.year() <= last {
            if !self.month.has(date.month()) {
                date = date.first_of_month().checked_add(jiff::Span::new().months(1)).ok()?;
            } else if !self.matches_day(date) {
                date = date.tomorrow().ok()?;
            } else if let Some(time) = self.time(hour, minute) {
                return Some(date.at(time.0, time.1, 0, 0));
            } else {
                date = date.tomorrow().ok()?;
            }
            (hour, minute) = (0, 0);
        }
        None
    }

    /// The first hour and minute of a day that are not before these.
    fn time(&self, hour: i8, minute: i8) -> Option<(i8, i8)> {
        let first = self.hour.from(hour)?;
        if first == hour {
            if let Some(minute) = self.minute.from(minute) {
                return Some((hour, minute));
            }
            return Some((self.hour.from(hour + 1)?, self.minute.from(0)?));
        }
        Some((first, self.minute.from(0)?))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime {
        text.parse().expect(text)
    }

    #[test]
    fn fields_are_read_as_crontab_has_them() {
        for (expression, yes, no) in [
            ("*/15 * * * *", "2026-03-01T10:45", "2026-03-01T10:46"),
            ("5/20 * * * *", "2026-03-01T10:45", "2026-03-01T10:15"),
            ("0 8-18/5 * * *", "2026-03-01T13:00", "2026-03-01T12:00"),
            ("0 0 1,15 * *", "2026-03-15T00:00", "2026-03-14T00:00"),
            ("0 0 * JAN-mar *", "2026-03-14T00:00", "2026-04-14T00:00"),
            ("0 0 * * 7", "2026-03-01T00:00", "2026-03-02T00:00"),
            ("0 0 * * Mon-Fri", "2026-03-02T00:00", "2026-03-01T00:00"),
            ("0 0 * * 5-7", "2026-03-01T00:00", "2026-03-02T00:00"),
            // Either day is enough when both are restricted; a step of * restricts as well as a list, but not alone.
            ("0 0 13 * 5", "2026-03-06T00:00", "2026-03-07T00:00"),
            ("0 0 13 * 5", "2026-04-13T00:00", "2026-04-14T00:00"),
            ("0 0 */2 * 1", "2026-03-09T00:00", "2026-03-02T00:00"),
        ] {
            let parsed = Expression::parse(expression).expect(expression);
            assert!(parsed.matches(at(yes)), "{expression} {yes}");
            assert!(!parsed.matches(at(no)), "{expression} {no}");
        }
    }

    #[test]
    fn what_is_no_expression_says_which_field_is_wrong() {
        for text in ["", "* * * *", "* * * * * *"] {
            assert!(matches!(Expression::parse(text), Err(Invalid::Fields(_))), "{text}");
        }
        for (text, wrong) in [
            ("60 * * * *", "the minute"),
            ("* 24 * * *", "the hour"),
            ("* * 0 * *", "the day of month"),
            ("* * * 13 *", "the month"),
            ("* * * * 8", "the day of week"),
            ("*/0 * * * *", "the minute"),
            ("5-1 * * * *", "the minute"),
            ("+5 * * * *", "the minute"),
            ("1,,2 * * * *", "the minute"),
            ("*/300 * * * *", "the minute"),
            ("* * * foo *", "the month"),
            ("@often * * * *", "the minute"),
        ] {
            match Expression::parse(text) {
                Err(Invalid::Field { field, .. }) => assert_eq!(field, wrong, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(Expression::parse("0 0 31 2 *"), Err(Invalid::Never));
        assert!(Expression::parse("0 0 29 2 *").is_ok());
        assert!(Expression::parse("0 0 31 2 1").is_ok(), "Mondays in February");
    }

    #[test]
    fn the_next_minute_is_found_over_years() {
        for (expression, from, next) in [
            ("0 0 29 2 *", "2096-03-01T00:00", Some("2104-02-29T00:00")),
            ("59 23 31 12 *", "2026-12-31T23:59", Some("2026-12-31T23:59")),
            ("59 23 31 12 *", "2026-12-31T23:59:01", Some("2027-12-31T23:59")),
            ("30 5 * * *", "2026-01-01T05:31", Some("2026-01-02T05:30")),
        ] {
            let parsed = Expression::parse(expression).expect(expression);
            assert_eq!(parsed.next(at(from)), next.map(at), "{expression} from {from}");
        }
    }
}
