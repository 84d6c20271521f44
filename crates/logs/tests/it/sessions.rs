//! Log sessions: filters, counts, history over restarts, resuming, slow readers.

use dozen_api::{
    frame,
    logs::{Hello, Place, Sent, Session, Source},
    socket,
};
use dozen_domain::{ids::AppId, limits::Limits};

use crate::role::{LONG, Role, all, line, text, untimed};

/// Gives an app lines 0 to `count`, from six places in turn, and waits until they are stored.
async fn fill(role: &Role, app: AppId, count: usize) {
    let sender = role.sender();
    let places = [
        (Source::App, "web.1"),
        (Source::App, "web.2"),
        (Source::Heroku, "web.1"),
        (Source::App, "worker.1"),
        (Source::Heroku, "router"),
        (Source::App, "api"),
    ];
    let end = count.to_string();
    for n in 0..=count {
        let (source, process) = places[n % places.len()];
        sender.send(line(app, source, process, &n.to_string()));
    }
    role.history_up_to(app, &end).await;
}

fn numbers(lines: &[String]) -> Vec<usize> {
    lines.iter().map(|line| text(line).parse().unwrap()).collect()
}

#[tokio::test]
async fn a_session_shows_the_lines_it_asks_for() {
    let role = Role::start().await;
    let app = AppId::random();
    fill(&role, app, 59).await;
    let check = async |source: Option<Source>, process: Option<&str>, lines: u64, wanted: &[usize]| {
        let process = process.map(str::to_owned);
        let got = role.session(Session { source, process: process.clone(), lines, ..all(app) }).rest().await;
        assert_eq!(numbers(&got), wanted, "{source:?} {process:?} {lines}");
    };
    check(None, None, 3, &[57, 58, 59]).await;
    check(None, None, 0, &[]).await;
    check(Some(Source::Heroku), None, 4, &[50, 52, 56, 58]).await;
    check(Some(Source::App), Some("web.1"), 2, &[48, 54]).await;
    check(None, Some("web.1"), 3, &[50, 54, 56]).await;
    check(None, Some("web"), 4, &[50, 54, 55, 56]).await;
    check(None, Some("router"), 2, &[52, 58]).await;
    check(None, Some("api"), 1, &[59]).await;
    check(Some(Source::App), Some("router"), 10, &[]).await;
    check(None, Some("we"), 10, &[]).await;
    assert!(role.history(AppId::random()).await.is_empty());
}

#[tokio::test]
async fn history_outlives_the_role_and_numbers_grow_on() {
    let mut role = Role::start().await;
    let app = AppId::random();
    fill(&role, app, 2_499).await;
    let before = role.history(app).await;
    assert_eq!(numbers(&before), (1_000..2_500).collect::<Vec<_>>());
    let last = role.session(Session { tail: true, lines: 1, ..all(app) }).line().await.0;
    role.restart().await;
    assert_eq!(role.history(app).await, before);
    let mut tail = role.session(Session { tail: true, lines: 0, ..all(app) });
    tail.caught().await;
    role.sender().send(line(app, Source::App, "api", "more"));
    assert!(tail.line().await.0 > last);
}

#[tokio::test]
async fn a_tail_goes_on_where_history_ends() {
    let role = Role::start().await;
    let app = AppId::random();
    let sender = role.sender();
    for round in 0..20 {
        // The session is opened while lines come: each must come once, in history or in the tail.
        for n in 0..300 {
            sender.send(line(app, Source::App, "web.1", &format!("{round} {n}")));
        }
        let mut tail = role.session(Session { tail: true, ..all(app) });
        let got = tail.until(&format!("{round} 299")).await;
        let this: Vec<&str> =
            got.iter().map(|(_, line)| text(line)).filter(|t| t.starts_with(&format!("{round} "))).collect();
        assert_eq!(this, (0..300).map(|n| format!("{round} {n}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_session_resumes_after_the_line_it_had() {
    let mut role = Role::start().await;
    let app = AppId::random();
    fill(&role, app, 99).await;
    let mut tail = role.session(Session { tail: true, ..all(app) });
    let (after, _) = tail.until("39").await.pop().unwrap();
    drop(tail);
    role.restart().await;
    // However few lines are asked for: a resumed session has no gap.
    let resumed = Session { after: Some(after), lines: 10, ..all(app) };
    assert_eq!(numbers(&role.session(resumed.clone()).rest().await), (40..100).collect::<Vec<_>>());
    let filtered = Session { process: Some("router".to_owned()), ..resumed };
    let got = role.session(filtered).rest().await;
    assert_eq!(numbers(&got), (40..100).filter(|n| n % 6 == 4).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_session_that_resumes_too_late_is_told_how_many_lines_it_missed() {
    let mut role = Role::start_with(Limits { log_history_lines: 300, ..Limits::default() }).await;
    let app = AppId::random();
    fill(&role, app, 99).await;
    let mut tail = role.session(Session { tail: true, ..all(app) });
    let (after, _) = tail.until("39").await.pop().unwrap();
    drop(tail);
    role.restart().await; // from here on the lines' numbers do not follow those before
    let sender = role.sender();
    for n in 100..1_000 {
        sender.send(line(app, Source::App, "web.1", &n.to_string()));
        sender.flushed().await; // one a batch: what history drops is not what comes at once
    }
    let resumed = Session { after: Some(after), lines: 10, tail: true, ..all(app) };
    let mut tail = role.session(resumed.clone());
    let got = tail.until("999").await;
    let told = "heroku[logplex]: Error L11 (Tail buffer overflow) -> ";
    let rest = untimed(&got[0].1).strip_prefix(told).unwrap_or_else(|| panic!("{}", got[0].1));
    let missed: usize = rest
        .strip_suffix(" messages since this session's last one are no longer in the history")
        .unwrap()
        .parse()
        .unwrap();
    let shown: Vec<usize> = got[1..].iter().map(|(_, line)| text(line).parse().unwrap()).collect();
    assert_eq!(shown, (40 + missed..1_000).collect::<Vec<_>>());
    assert!(missed > 0);
    assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0), "places grow");
    // Whoever was told goes on behind that, and is not told again; nor is one whose lines are all there.
    for after in [got[0].0, got[1].0] {
        let first = role.session(Session { after: Some(after), ..resumed.clone() }).line().await;
        assert_eq!(first.1, got[if after == got[0].0 { 1 } else { 2 }].1);
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_how_many_lines_it_missed() {
    let limits = Limits { log_tail_buffer_lines: 50, log_tail_buffer_bytes: 0, ..Limits::default() };
    let role = Role::start_with(limits).await;
    let (app, other) = (AppId::random(), AppId::random());
    let mut connection = socket::connect(&role.socket()).await.unwrap();
    let session = Session { tail: true, process: Some("web".to_owned()), ..all(app) };
    frame::write(&mut connection, &Hello::Session(session)).await.unwrap();
    let end = Some(Place { sequence: 0, ordinal: Some(0) });
    assert_eq!(frame::read(&mut connection).await.unwrap(), Some(Sent::Caught { end }));
    let (sender, long) = (role.sender(), "x".repeat(1_000));
    for n in 0..5_000 {
        sender.send(line(app, Source::App, "web.1", &format!("{n} {long}")));
        sender.send(line(app, Source::App, "api", "not asked for"));
    }
    sender.send(line(other, Source::App, "api", "all sent"));
    role.history_up_to(other, "all sent").await;
    let mut lines = Vec::new();
    let mut told = 0;
    let mut expected = 0;
    let read = async {
        while expected < 5_000 {
            let Some(Sent::Line { place, text: shown }) = frame::read(&mut connection).await.unwrap() else {
                panic!("the session ended")
            };
            lines.push(place);
            if let Some(notice) = untimed(&shown)
                .strip_prefix("heroku[logplex]: Error L11 (Tail buffer overflow) -> This tail session dropped ")
            {
                let dropped: usize = notice.split_once(' ').unwrap().0.parse().unwrap();
                expected += dropped;
                told += 1;
            } else {
                let n: usize = text(&shown).split_once(' ').unwrap().0.parse().unwrap();
                assert_eq!(n, expected, "after {told} notices");
                expected += 1;
            }
        }
    };
    tokio::time::timeout(LONG, read).await.unwrap();
    assert_eq!(expected, 5_000);
    assert!(told > 0 && lines.len() < 5_000);
    assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
}

#[tokio::test]
async fn a_torn_end_of_history_is_cut_off_and_lines_go_on_after_it() {
    let mut role = Role::start().await;
    let app = AppId::random();
    fill(&role, app, 9).await;
    role.stop().await;
    let directory = role.directory.path().join("logs").join(app.to_string());
    let segment = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes.extend_from_slice(&bytes.clone()[..70]);
    std::fs::write(&segment, bytes).unwrap();
    role.run().await;
    assert_eq!(numbers(&role.history(app).await), (0..10).collect::<Vec<_>>());
    role.sender().send(line(app, Source::App, "api", "10"));
    assert_eq!(numbers(&role.history_up_to(app, "10").await), (0..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tail_that_has_seen_no_line_misses_none_while_the_role_is_away() {
    let mut role = Role::start().await;
    let app = AppId::random();
    fill(&role, app, 4).await;
    let mut tail = role.session(Session { tail: true, lines: 0, ..all(app) });
    assert!(tail.caught().await.is_empty());
    role.stop().await;
    role.run().await;
    role.sender().send(line(app, Source::App, "api", "while nobody looked"));
    role.history_up_to(app, "while nobody looked").await;
    assert_eq!(text(&tail.line().await.1), "while nobody looked");
}
