//! A year of schedules' times against cronsim, which does as Debian's cron does: another language, another calendar,
//! another time zone database.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use dozen_domain::cron::{Schedule, zone};
use jiff::Timestamp;

/// Clocks change by an hour: in March and October, in March and November, and on the other half of the earth.
const ZONES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Australia/Sydney"];

const SCHEDULES: &[&str] = &[
    "every 10 minutes",
    "hourly at :30",
    "daily at 02:30",
    "daily at 13:05",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
    "0 2 * * *",
    "0 3 * * *",
    "59 1 * * *",
    "0,30 2,3 * * *",
    "*/7 */5 * * *",
    "5/20 1-4 * * *",
    "*/10 1-3 * * *",
    "* 2 * * *",
    "0 */2 * * *",
    "30 */3 * * *",
    "15 2 * * 0",
    "0,30 0-23 * * *",
    "45 1 1,15 * 1",
    "0 0 */2 * 1",
    "0 9 * * 1-5",
    "0 9 * * MON-FRI",
    "20 2 25-31 MAR,OCT SUN",
    "0 2 1-8 mar-apr,oct-nov 0",
    "0 0 29 2 *",
    "59 23 31 12 *",
];

/// What cronsim says, a line for each of the questions.
fn cronsim(questions: &str) -> Vec<Vec<i64>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../../target/cron-venv/bin/python");
    assert!(python.exists(), "there is no {}: run ./test --install-only", python.display());
    let mut command = Command::new(python);
    command.arg(here.join("tests/it/cronsim_times.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("Python");
    let mut input = child.stdin.take().expect("piped");
    let questions = questions.to_owned();
    let asking = std::thread::spawn(move || input.write_all(questions.as_bytes()).expect("taken"));
    let answered = child.wait_with_output().expect("a child of our own");
    asking.join().expect("asked");
    assert!(answered.status.success(), "cronsim failed");
    let text = String::from_utf8(answered.stdout).expect("text");
    let numbers = |line: &str| line.split_whitespace().map(|word| word.parse().expect("a time")).collect();
    text.lines().map(numbers).collect()
}

#[test]
fn a_year_of_times_is_what_cronsim_says() {
    let from = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time").as_second();
    let until = "2026-12-31T23:59:59Z".parse::<Timestamp>().expect("a time").as_second();
    let mut questions = format!("{from} {until}\n");
    let mut own = Vec::new();
    for name in ZONES {
        let zone = zone(name).expect(name);
        for text in SCHEDULES {
            let schedule: Schedule = text.parse().expect(text);
            writeln!(questions, "{name}\t{}", schedule.expression()).expect("a text");
            let mut times = Vec::new();
            let mut after = Timestamp::from_second(from - 1).expect("a time");
            while let Some(next) = schedule.next(after, &zone).filter(|next| next.as_second() <= until) {
                times.push(next.as_second());
                after = next;
            }
            own.push((name, text, times));
        }
    }
    let expected = cronsim(&questions);
    assert_eq!(expected.len(), own.len(), "an answer for each question");
    for ((name, text, times), expected) in own.into_iter().zip(expected) {
        let differs = times.iter().zip(&expected).find(|(one, other)| one != other);
        let shown = differs.map(|(one, other)| {
            let at = |second: i64| Timestamp::from_second(second).expect("a time").to_string();
            format!("{}, and {} says cronsim", at(*one), at(*other))
        });
        assert_eq!(shown, None, "{text} in {name}");
        assert_eq!(times.len(), expected.len(), "{text} in {name}");
        assert!(!times.is_empty() || *text == "0 0 29 2 *", "{text} in {name} is due within the year");
    }
}
