//! Accounts for every line of an app's stream: what a reader of it got, and what it was told to miss, is what there was.
//!
//! The history tells which lines there are, in which order; whether those are the lines that were written is for
//! [`Stream::assert_whole`] to say. A reader then has to have each line once, at its place, or a notice at that place
//! that counts it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// What a reader got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A line as the history has it: `TIME SOURCE[PROCESS]: TEXT`.
    Line(String),
    /// A notice that so many lines are missing here.
    Dropped(usize),
}

/// Messages of a drain, in the forms for syslog servers and for HTTP bodies.
///
/// # Panics
/// When one is none.
pub fn of_drain(messages: &[String]) -> Vec<Arrival> {
    messages
        .iter()
        .map(|message| arrival_of_drain(message).unwrap_or_else(|| panic!("no message: {message}")))
        .collect()
}

fn arrival_of_drain(message: &str) -> Option<Arrival> {
    let mut words = message.splitn(6, ' ');
    let mut word = || words.next();
    let (priority, time, _host, source, process, rest) = (word()?, word()?, word()?, word()?, word()?, word()?);
    let text = rest.strip_prefix("- - ").or_else(|| rest.strip_prefix("- "))?;
    if let ("<172>1", Some(rest)) = (priority, text.strip_prefix("Error L10 (output buffer overflow): ")) {
        return Some(Arrival::Dropped(rest.split_once(" messages dropped since ")?.0.parse().ok()?));
    }
    Some(Arrival::Line(format!("{time} {source}[{process}]: {text}")))
}

/// Lines of a log session.
///
/// # Panics
/// When a notice has no number.
pub fn of_tail(lines: &[String]) -> Vec<Arrival> {
    let notice = " heroku[logplex]: Error L11 (Tail buffer overflow) -> This tail session dropped ";
    let arrival = |line: &String| match line.split_once(notice) {
        Some((_, rest)) => Arrival::Dropped(rest.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")),
        None => Arrival::Line(line.clone()),
    };
    lines.iter().map(arrival).collect()
}

/// What became of the lines of a stream on their way to one reader.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Account {
    what: String,
    /// Lines from the reader's first to the stream's last.
    pub lines: usize,
    /// Lines that arrived.
    pub arrived: usize,
    /// Lines that the reader was told to miss.
    pub dropped: usize,
    /// Lines that came again, or were counted as dropped after they had come.
    pub again: usize,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, lines, arrived, dropped, again } = self;
        write!(f, "{what}: {arrived} arrived, {dropped} told to be dropped, {again} again or counted twice, of {lines}")
    }
}

/// An app's stream as the history has it, from some line on without a gap.
#[derive(Debug)]
pub struct Stream {
    lines: Vec<String>,
    places: HashMap<String, Vec<usize>>,
}

impl Stream {
    /// A stream of these lines.
    pub fn new(lines: Vec<String>) -> Self {
        let mut places = HashMap::<String, Vec<usize>>::new();
        for (place, line) in lines.iter().enumerate() {
            places.entry(line.clone()).or_default().push(place);
        }
        Self { lines, places }
    }

    /// A stream of these lines up to the one that ends so.
    ///
    /// # Panics
    /// When there is none.
    pub fn up_to(mut lines: Vec<String>, end: &str) -> Self {
        let last =
            lines.iter().position(|line| line.ends_with(end)).unwrap_or_else(|| panic!("no {end:?} in the history"));
        lines.truncate(last + 1);
        Self::new(lines)
    }

    /// Checks that each of these dynos' numbered lines, `web.7 123` and perhaps more words, is there from 1 to `last`, once
    /// and in order.
    ///
    /// # Panics
    /// When one is not.
    #[track_caller]
    pub fn assert_whole(&self, dynos: impl IntoIterator<Item = String>, last: u64) {
        let mut numbers = BTreeMap::<&str, u64>::new();
        for line in &self.lines {
            let Some((before, text)) = line.split_once("]: ") else { continue };
            let Some((_, process)) = before.split_once(" app[") else { continue };
            let mut words = text.split(' ');
            let number = words.next().filter(|dyno| *dyno == process).and_then(|_| words.next()?.parse::<u64>().ok());
            let Some(number) = number else { continue };
            let before = numbers.insert(process, number).unwrap_or(0);
            assert_eq!(number, before + 1, "in the history {process} {number} comes after {before}");
        }
        for dyno in dynos {
            assert_eq!(numbers.get(dyno.as_str()), Some(&last), "the history has not all lines of {dyno}");
        }
    }

    /// Checks what a reader got, up to the stream's last line, and accounts for it. Over one connection every line comes
    /// in its place; with each further one it may go back, but no further than where the one before began, and never
    /// leaves lines out that no notice counts. Notices may count `doubtful` lines that had arrived.
    ///
    /// # Panics
    /// When a line is missing, comes again or stands in another place, or a notice does not have the right number.
    #[track_caller]
    pub fn account(&self, what: &str, connections: &[Vec<Arrival>], doubtful: usize) -> Account {
        let mut account = Account { what: what.to_owned(), ..Account::default() };
        let mut next = None; // place of the line that is expected
        let (mut first, mut seen, mut began) = (0, vec![false; self.lines.len()], 0);
        for connection in connections {
            let (mut dropped, mut fresh) = (0, true);
            for arrival in connection {
                let line = match arrival {
                    Arrival::Dropped(more) => {
                        dropped += more;
                        continue;
                    }
                    Arrival::Line(line) => line,
                };
                let expected = next.map(|next| next + dropped);
                let Some(place) = self.place(line, expected) else {
                    assert_eq!(next, Some(self.lines.len()), "{what}: not in the history: {line}");
                    continue; // later than what is looked at
                };
                match (next, expected) {
                    (Some(next), Some(expected)) => {
                        assert!(place <= expected, "{what}: {} lines are missing before {line}", place - expected);
                        let back = expected - place;
                        if fresh {
                            assert!(place >= began + dropped, "{what}: it goes back too far, to {line}");
                        } else {
                            assert!(back <= dropped, "{what}: comes again, or not in its place, after {next}: {line}");
                            assert!(
                                account.again + back <= doubtful || back == 0,
                                "{what}: {back} counted too many: {line}"
                            );
                        }
                        account.again += back;
                    }
                    _ => first = place.checked_sub(dropped).unwrap_or_else(|| panic!("{what}: {dropped} is too many")),
                }
                if fresh {
                    (began, fresh) = (place - dropped, false);
                }
                account.arrived += usize::from(!std::mem::replace(&mut seen[place], true));
                (next, dropped) = (Some(place + 1), 0);
            }
        }
        assert_eq!(next, Some(self.lines.len()), "{what}: the last line has not come");
        account.lines = self.lines.len() - first;
        account.dropped = account.lines - account.arrived; // each was told, or a line would have been missing
        account
    }

    /// The place of a line: this one, or the last before it. For a line that has no such place, any other.
    fn place(&self, line: &str, expected: Option<usize>) -> Option<usize> {
        let places = self.places.get(line)?;
        let Some(expected) = expected else { return places.first().copied() };
        places.iter().rev().find(|place| **place <= expected).or(places.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> String {
        format!("2026-01-02T03:04:05.678901+00:00 app[web.1]: web.1 {n}")
    }

    fn stream() -> Stream {
        Stream::new((1..=10).map(line).collect())
    }

    /// Numbers are lines, negative ones notices.
    fn arrivals(all: &[isize]) -> Vec<Arrival> {
        let arrival =
            |n: &isize| usize::try_from(*n).map_or(Arrival::Dropped(n.unsigned_abs()), |n| Arrival::Line(line(n)));
        all.iter().map(arrival).collect()
    }

    fn account(connections: &[&[isize]], doubtful: usize) -> (usize, usize, usize) {
        let connections: Vec<_> = connections.iter().map(|all| arrivals(all)).collect();
        let account = stream().account("it", &connections, doubtful);
        (account.arrived, account.dropped, account.again)
    }

    fn fails(connections: &[&[isize]]) {
        let result = std::panic::catch_unwind(|| account(connections, 0));
        assert!(result.is_err(), "{connections:?}");
    }

    #[test]
    fn what_is_whole_or_counted_is_accepted() {
        assert_eq!(account(&[&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]], 0), (10, 0, 0));
        assert_eq!(account(&[&[4, 5, -3, 9, 10]], 0), (4, 3, 0));
        assert_eq!(account(&[&[-2, 4, 5, 6], &[-3, 5, 6, 7, 8, 9, 10]], 0), (7, 2, 5));
        assert_eq!(account(&[&[1, 2, 3, 4], &[3, 4, -4, 9, 10]], 0), (6, 4, 2));
        assert_eq!(account(&[&[1, 2, 3, 4], &[-3, 6, 7, 8, 9, 10]], 0), (9, 1, 2));
        assert_eq!(account(&[&[1, 2, 3, -5, 7, 8, 9, 10]], 2), (7, 3, 2));
    }

    #[test]
    fn what_is_missing_repeated_or_counted_wrong_is_not() {
        fails(&[&[1, 2, 4, 5, 6, 7, 8, 9, 10]]);
        fails(&[&[1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10]]);
        fails(&[&[1, 3, 2, 4, 5, 6, 7, 8, 9, 10]]);
        fails(&[&[1, 2, -3, 5, 6, 7, 8, 9, 10]]);
        fails(&[&[1, 2, -1, 5, 6, 7, 8, 9, 10]]);
        fails(&[&[1, 2, 3, 4, 5, 6, 7, 8, 9]]);
        fails(&[&[1, 2, 3], &[5, 6, 7, 8, 9, 10]]);
        fails(&[&[1, 2, 3], &[4, 5], &[3, 4, 5, 6, 7, 8, 9, 10]]);
        fails(&[&[-3, 2, 3, 4, 5, 6, 7, 8, 9, 10]]);
        fails(&[]);
    }

    #[test]
    fn messages_of_drains_are_told_from_notices() {
        let time = "2026-01-02T03:04:05.678901+00:00";
        let messages = [
            format!("<190>1 {time} d.1 app web.1 - - web.1 7"),
            format!("<190>1 {time} host app web.1 - web.1 7"),
            format!(
                "<172>1 {time} host heroku logplex - Error L10 (output buffer overflow): 12 messages dropped since {time}."
            ),
        ];
        let line = || Arrival::Line(line(7));
        assert_eq!(of_drain(&messages), [line(), line(), Arrival::Dropped(12)]);
    }

    #[test]
    #[should_panic(expected = "web.1 3 comes after 1")]
    fn a_gap_in_the_history_is_found() {
        Stream::new(vec![line(1), line(3)]).assert_whole(["web.1".to_owned()], 3);
    }
}
