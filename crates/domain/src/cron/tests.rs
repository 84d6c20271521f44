//! A year of times against a matcher that looks at every minute of it, across clock changes, of half an hour too;
//! `tests/it/cron.rs` has them from somebody else.

use super::*;

/// Minutes of a year and two days.
const MINUTES: i64 = 367 * 24 * 60;

/// One minute of real time and what a clock on the wall shows.
struct Minute {
    at: Timestamp,
    shown: DateTime,
    /// It was shown before: the clock was put back.
    again: bool,
    /// What the clock jumped over just now.
    skipped: Vec<DateTime>,
}

/// A year, minute by minute.
fn year(zone: &TimeZone, from: Timestamp) -> Vec<Minute> {
    let mut before = zone.to_datetime(minute(from, -1));
    let mut latest = before;
    let look = |passed: i64| {
        let at = minute(from, passed);
        let shown = zone.to_datetime(at);
        let again = shown <= latest;
        let mut skipped = Vec::new();
        while advance(before) < shown && !again {
            before = advance(before);
            skipped.push(before);
        }
        (before, latest) = (shown, latest.max(shown));
        Minute { at, shown, again, skipped }
    };
    (0..MINUTES).map(look).collect()
}

/// The moments of these at which the schedule is due.
fn looked_at(expression: &Expression, year: &[Minute]) -> Vec<Timestamp> {
    let is_due = |minute: &&Minute| {
        let shown = expression.matches(minute.shown);
        if expression.fixes_times() {
            // Once a day: not again, and not lost in what the clock jumped over.
            (shown && !minute.again) || minute.skipped.iter().any(|skipped| expression.matches(*skipped))
        } else {
            shown
        }
    };
    year.iter().filter(is_due).map(|minute| minute.at).collect()
}

fn advance(at: DateTime) -> DateTime {
    at.checked_add(jiff::Span::new().minutes(1)).expect("a minute later")
}

fn minute(from: Timestamp, number: i64) -> Timestamp {
    Timestamp::from_second(from.as_second() + number * 60).expect("a time")
}

#[test]
fn a_year_of_times_is_what_looking_at_every_minute_finds() {
    // Changes of an hour in March and October, in March and November, and of half an hour in the other hemisphere.
    for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"] {
        let zone = zone(name).expect(name);
        let from = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time");
        let until = minute(from, MINUTES - 1);
        let year = year(&zone, from);
        for text in [
            "every 10 minutes",
            "hourly at :30",
            "daily at 02:30",
            "0 2 * * *",
            "*/7 * * * *",
            "*/10 1-3 * * *",
            "0 */2 * * *",
            "15 2 * * 0",
            "0,30 0-23 * * *",
            "45 1 1,15 * 1",
            "0 9 * * 1-5",
            "59 23 31 12 *",
        ] {
            let schedule: Schedule = text.parse().expect(text);
            let expected = looked_at(schedule.expression(), &year);
            let mut found = Vec::new();
            let mut after = minute(from, -1);
            while let Some(next) = schedule.next(after, &zone).filter(|next| *next <= until) {
                found.push(next);
                after = next;
            }
            assert_eq!(found.len(), expected.len(), "{text} in {name}");
            assert_eq!(found, expected, "{text} in {name}");
        }
    }
}

#[test]
fn clock_changes_do_what_the_documentation_says() {
    let zone = zone("Europe/Berlin").expect("a zone");
    let next = |text: &str, after: &str| {
        let schedule: Schedule = text.parse().expect(text);
        schedule.next(after.parse().expect(after), &zone).expect("a time").to_string()
    };
    // 02:30 is skipped on 29 March 2026: the job runs at the change, which is 01:00 UTC.
    assert_eq!(next("daily at 02:30", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
    assert_eq!(next("daily at 02:30", "2026-03-29T01:00:00Z"), "2026-03-30T00:30:00Z");
    // 02:30 comes twice on 25 October 2026: the first is 00:30 UTC.
    assert_eq!(next("daily at 02:30", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
    assert_eq!(next("daily at 02:30", "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
    // An hourly one runs at both.
    assert_eq!(next("hourly at :30", "2026-10-25T00:30:00Z"), "2026-10-25T01:30:00Z");
    assert_eq!(next("0 2 * * *", "2026-10-25T00:30:00Z"), "2026-10-26T01:00:00Z");
    // After a second that is not a minute's first.
    assert_eq!(next("every 10 minutes", "2026-06-01T12:00:00.5Z"), "2026-06-01T12:10:00Z");
    assert_eq!(next("every 10 minutes", "2026-06-01T11:59:59.999Z"), "2026-06-01T12:00:00Z");
}

#[test]
fn presets_are_read_and_shown() {
    for (text, fields, shown) in [
        ("every 10 minutes", "*/10 * * * *", "every 10 minutes"),
        ("Hourly at :05", "05 * * * *", "hourly at :05"),
        ("daily  at 7:30", "30 7 * * *", "daily at 7:30"),
        ("@daily", "0 0 * * *", "@daily"),
        (" 0  9 * * MON ", "0 9 * * MON", "0 9 * * MON"),
    ] {
        let schedule: Schedule = text.parse().expect(text);
        assert_eq!(schedule.expression().to_string(), fields);
        assert_eq!(schedule.to_string(), shown);
        assert_eq!(shown.parse::<Schedule>().expect("what is shown can be given again"), schedule);
    }
    for text in ["", "every 5 minutes", "hourly at 5", "hourly at :60", "daily at :30", "daily at 25:00", "@reboot"] {
        assert!(matches!(text.parse::<Schedule>(), Err(Invalid::Schedule { .. })), "{text}");
    }
}

#[test]
fn jobs_are_checked() {
    let asked = |change: &dyn Fn(&mut Asked)| {
        let mut asked = Asked { schedule: "@daily".to_owned(), command: "rake cleanup".to_owned(), ..Asked::default() };
        change(&mut asked);
        asked.check()
    };
    let job = asked(&|_| {}).expect("a job");
    assert_eq!((job.name.as_str(), job.zone.as_str()), ("rake-cleanup", "UTC"));
    assert_eq!((job.overlap, job.missed), (Overlap::Forbid, Missed::Skip));
    assert!(matches!(asked(&|a| a.command = " ".to_owned()), Err(Invalid::Command)));
    assert!(matches!(asked(&|a| a.name = Some("Über".to_owned())), Err(Invalid::Name(_))));
    assert!(matches!(asked(&|a| a.timezone = Some("Mars/Olympus".to_owned())), Err(Invalid::Zone(_))));
    assert!(matches!(asked(&|a| a.size = Some("huge".to_owned())), Err(Invalid::Size(_))));
    assert!(matches!(asked(&|a| a.overlap = Some("maybe".to_owned())), Err(Invalid::Choice { .. })));
    assert_eq!(asked(&|a| a.command = "./42 --x=ü".to_owned()).expect("a job").name, "x");
}

#[test]
fn app_json_says_all_jobs_or_nothing() {
    assert_eq!(of_app_json("{\"name\": \"x\"}"), Ok(None));
    assert_eq!(of_app_json("{\"cron\": []}"), Ok(Some(Vec::new())));
    let two = "{\"cron\": [{\"schedule\": \"@daily\", \"command\": \"a\"}, {\"schedule\": \"0 1 * * *\", \"command\": \"a\"}]}";
    assert_eq!(of_app_json(two), Err(Invalid::Twice("a".to_owned())));
    for text in ["[]", "{", "{\"cron\": {}}", "{\"cron\": [{\"command\": \"a\"}]}"] {
        assert!(matches!(of_app_json(text), Err(Invalid::Format(_))), "{text}");
    }
    let typo = "{\"cron\": [{\"schedule\": \"@daily\", \"command\": \"a\", \"time_zone\": \"UTC\"}]}";
    assert!(matches!(of_app_json(typo), Err(Invalid::Format(_))));
}
