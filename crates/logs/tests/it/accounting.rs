//! Every line is accounted for: twenty dynos write numbered lines at full speed while the role is killed, drains stall and
//! fail, and tails come and go. What arrived and what was told to be dropped is what was written, in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dozen_api::{
    drains::{Drain, replace},
    logs::{Session, announce},
};
use dozen_domain::{ids::AppId, limits::Limits};

use crate::{
    receivers::{Act, Http, Inbox, Syslog, drain},
    role::{Process, Role, all, text},
    shim::Shim,
};

const DYNOS: u64 = 20;
const ROUNDS: u64 = 4;
const LINES: u64 = 500; // a dyno and round
/// Lines of a chunk or frame that was cut off by a kill: they are sent again, and may be dropped then although they came.
const UNDER_WAY: u64 = 2_000;

/// `web.7 123` as dyno and number.
fn numbered(text: &str) -> Option<(&str, u64)> {
    let (dyno, number) = text.split_once(' ')?;
    dyno.starts_with("web.").then_some(())?;
    Some((dyno, number.parse().ok()?))
}

fn told(text: &str, code: &str) -> u64 {
    let Some(rest) = text.strip_prefix("Error ").filter(|rest| rest.starts_with(code)) else { return 0 };
    let words: Vec<&str> = rest.split(' ').collect();
    let at = words.iter().position(|word| *word == "messages").unwrap();
    words[at - 1].parse().unwrap()
}

/// Checks texts against what was written and gives the account; `repeats`: lines may come again after a kill.
fn check(what: &str, texts: &[&str], code: &str, repeats: bool) -> String {
    let mut seen: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    // What tells of drops is sent again after a kill like any line; it is the same drops.
    let mut tellings = BTreeSet::new();
    let (mut dropped, mut again) = (0, 0);
    for text in texts {
        let drops = told(text, code);
        if drops > 0 && (tellings.insert(text) || !repeats) {
            dropped += drops;
        }
        let Some((dyno, number)) = numbered(text) else { continue };
        if !seen.entry(dyno).or_default().insert(number) {
            again += 1;
            assert!(repeats, "{what}: {dyno} {number} came twice");
        }
        let before = highest.insert(dyno, number).unwrap_or(0);
        assert!(repeats || number > before, "{what}: {dyno} {number} came after {before}");
    }
    let arrived: u64 = seen.values().map(|numbers| numbers.len() as u64).sum();
    let written = DYNOS * ROUNDS * LINES;
    let most = if repeats { written + ROUNDS * UNDER_WAY } else { written };
    let account = format!("{what}: {arrived} arrived, {dropped} told to be dropped, {again} came again, of {written}");
    assert!((written..=most).contains(&(arrived + dropped)), "{account}");
    account
}

fn texts_of(inbox: &Inbox) -> Vec<String> {
    let text =
        |message: &String| message.split_once(" - - ").or_else(|| message.split_once(" - ")).unwrap().1.to_owned();
    inbox.all().iter().map(text).collect()
}

async fn tell(role: &Role, drains: &[Drain]) {
    while replace(&role.socket(), drains.to_vec()).await.is_err() {
        tokio::task::yield_now().await; // the role is starting
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_and_what_is_told_to_be_dropped_is_what_was_written() {
    let limits = Limits { drain_request_ms: 300, drain_retry_ms: 1, log_history_lines: 1_500, ..Limits::default() };
    let role = Role::stopped(limits);
    let app = AppId::random();
    let (syslog, http, failing) = (Syslog::start().await, Http::start().await, Http::start().await);
    let drains = [drain(app, &syslog.url), drain(app, &http.url), drain(app, &failing.url)];
    let mut process = Process::start(&role);
    tell(&role, &drains).await;
    let shims: Vec<Shim> = (1..=DYNOS).map(|n| Shim::start(&role.dynos(), app, &format!("web.{n}"), 20_000)).collect();
    for shim in &shims {
        announce(&role.socket(), shim.dyno).await.unwrap();
    }
    let mut tail = role.session(Session { tail: true, ..all(app) });
    tail.caught().await;
    for round in 0..ROUNDS {
        http.next(&[Act::Answer(500), Act::Stall, Act::Close]);
        failing.next(&[Act::Answer(503), Act::Answer(500), Act::Stall, Act::Answer(400)]);
        for (n, shim) in shims.iter().enumerate() {
            let numbers = round * LINES + 1..=(round + 1) * LINES;
            shim.write(numbers.map(|number| format!("web.{} {number}\n", n + 1)).collect::<String>());
        }
        // A tail that comes, reads a little and goes.
        let mut passing = role.session(Session { tail: true, lines: 10, ..all(app) });
        passing.caught().await;
        drop(passing);
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(20 * round)).await; // at any instant; nothing is waited for
            process.kill();
            process = Process::start(&role);
        }
    }
    for shim in &shims {
        shim.end();
    }
    let sender = role.sender();
    for (n, shim) in shims.iter().enumerate() {
        let lengths = (1..=ROUNDS * LINES).map(|number| format!("web.{} {number}\n", n + 1).len() as u64);
        shim.acknowledged(lengths.sum()).await;
    }
    for server in [&http, &failing] {
        server.acts.lock().unwrap().clear(); // the last line is to arrive
    }
    sender.send(crate::role::line(app, dozen_api::logs::Source::App, "api", "the end"));
    sender.flushed().await;
    // A tail that was open all the time repeats nothing, over kills too.
    let tailed = tail.until("the end").await;
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    for (dyno, number) in tailed.iter().filter_map(|(_, line)| numbered(text(line))) {
        assert!(highest.insert(dyno, number).unwrap_or(0) < number, "the tail repeats {dyno} {number}");
    }

    let history = role.history(app).await;
    assert!(history.len() >= 1_500);
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (dyno, number) in history.iter().filter_map(|line| numbered(text(line))) {
        let before = last.insert(dyno, number);
        assert!(before.is_none_or(|before| before + 1 == number), "history: {dyno} {number} after {before:?}");
    }
    assert!(last.values().all(|number| *number == ROUNDS * LINES), "{last:?}");

    for (what, inbox) in [("syslog", &syslog.inbox), ("http", &http.inbox), ("failing http", &failing.inbox)] {
        inbox.until("the end").await;
        let texts = texts_of(inbox);
        let account = check(what, &texts.iter().map(String::as_str).collect::<Vec<_>>(), "L10", true);
        println!("{account}");
    }
    drop(process);
}
