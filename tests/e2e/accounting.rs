//! Every line is accounted for: what twenty dynos write at full speed is in the history, and what a tail and each drain
//! get and are told to miss is that, whatever is killed and however receivers behave.

use std::fs;

use dozen_testkit::{
    App, LONG, Tail, TestPlatform,
    accounting::{Arrival, Stream, of_drain, of_tail},
    receivers::{Act, Certificate, Http, Syslog},
    wait_until,
};
use serde_json::json;

use crate::platform;

const DYNOS: usize = 20;
const ROUNDS: usize = 6;
const LINES: usize = 2_000; // a dyno and round
const ROUND: usize = DYNOS * LINES;

/// An app whose workers write numbered lines when they are told to, running.
fn counting(platform: &TestPlatform) -> App<'_> {
    let app = App::plain_without_cli(platform, "counting");
    app.write("count.py", include_str!("count.py"));
    let worker = format!("exec /usr/bin/python3 count.py {LINES}");
    app.write("Procfile", &format!("web: exec /usr/bin/python3 -u server.py\nworker: {worker}\n"));
    app.commit("workers that count");
    drop(app.push());
    app
}

fn scale(platform: &TestPlatform, workers: usize) {
    let updates = json!({"updates": [{"type": "worker", "quantity": workers}]});
    let (status, answer) = platform.api("PATCH", "/apps/counting/formation", Some(&updates));
    assert_eq!(status, 200, "{answer}");
}

fn add_drain(platform: &TestPlatform, url: &str) -> String {
    let (status, drain) = platform.api("POST", "/apps/counting/log-drains", Some(&json!({"url": url})));
    assert_eq!(status, 201, "{drain}");
    drain["token"].as_str().expect("a token").to_owned()
}

/// Waits for the last line that is looked at; gives its end.
fn end(app: &App<'_>, tail: &Tail) -> &'static str {
    wait_until("the app to answer", LONG, || app.get("/print/the-end").status == 200);
    tail.wait_for("app[web.1]: the-end");
    "app[web.1]: the-end"
}

/// How far a tail has come: lines of dynos that it has got or was told to have missed.
#[derive(Default)]
struct Progress {
    read: usize,
    lines: usize,
}

impl Progress {
    /// Waits until it has come so far.
    fn wait(&mut self, tail: &Tail, lines: usize) {
        wait_until(&format!("{lines} lines in the tail"), LONG, || {
            let new = tail.lines_from(self.read);
            self.read += new.len();
            let passed = of_tail(&new).into_iter().map(|arrival| match arrival {
                Arrival::Dropped(lines) => lines,
                Arrival::Line(line) => usize::from(line.contains(" app[worker.")),
            });
            self.lines += passed.sum::<usize>();
            self.lines >= lines
        });
    }
}

#[test]
fn every_line_of_twenty_dynos_arrives_or_is_counted_whatever_is_killed() {
    let certificate = Certificate::of("localhost");
    let trust = tempfile::NamedTempFile::new().expect("a file");
    fs::write(trust.path(), certificate.pem()).expect("a file");
    let platform = platform()
        .variable("DOZEN_DRAIN_ALLOW_NETWORKS", "127.0.0.1/32,::1/128")
        .variable("SSL_CERT_FILE", &trust.path().display().to_string())
        .limit("log_history_lines", 1_000_000)
        .limit("shim_backlog_bytes", 32 << 10) // full at once
        .limit("shim_hold_ms", 600_000)
        .limit("drain_request_ms", 300)
        .limit("drain_send_ms", 1_000)
        .limit("drain_retry_ms", 1)
        .start();
    let app = counting(&platform);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let syslog = runtime.block_on(Syslog::start());
    let secure = runtime.block_on(Syslog::start_tls(&certificate));
    let http = runtime.block_on(Http::start_tls(&certificate));
    for url in [&syslog.url, &secure.url] {
        add_drain(&platform, url);
    }
    let token = add_drain(&platform, &http.url);
    let tail = Tail::open(&platform, "counting", 1);
    scale(&platform, DYNOS);
    let ready = |tail: &Tail| tail.lines().iter().filter(|line| line.ends_with("]: ready")).count();
    wait_until("twenty dynos", LONG, || ready(&tail) == DYNOS);

    let mut progress = Progress::default();
    secure.stall(true);
    for round in 0..ROUNDS {
        http.next(&[Act::Answer(500), Act::Stall, Act::Reset, Act::Answer(429), Act::Close]);
        assert_eq!(platform.signal_inside(&["count.py"]), DYNOS);
        match round {
            0 => {
                // Killed while its kernel holds what a receiver has not taken.
                progress.wait(&tail, ROUND * 3 / 4);
                platform.kill_role("logs");
            }
            1 => {
                tail.pause(true);
                platform.kill_role("control");
            }
            2 => {
                let passing = Tail::open(&platform, "counting", 10);
                platform.kill_role("logs");
                http.next(&[Act::Stall; 3]);
                drop(passing);
            }
            3 => {
                syslog.stall(true);
                http.next(&[Act::Answer(400)]);
                platform.kill_role("router");
            }
            4 => {
                tail.pause(true);
                platform.kill_role("logs");
                tail.pause(false);
                platform.kill_role("control");
            }
            _ => {
                platform.kill_parent();
                platform.start_server();
            }
        }
        tail.pause(false);
        progress.wait(&tail, (round + 1) * ROUND);
        [&syslog, &secure].iter().for_each(|server| server.stall(false));
    }
    http.acts.lock().expect("no panic").clear(); // the last line is to arrive
    let end = end(&app, &tail);
    for inbox in [&syslog.inbox, &secure.inbox, &http.inbox] {
        wait_until("the last line at a drain", LONG, || inbox.has(" - the-end"));
    }

    let stream = Stream::up_to(platform.history("counting"), end);
    stream.assert_whole((1..=DYNOS).map(|n| format!("worker.{n}")), (ROUNDS * LINES) as u64);
    let mut accounts = vec![stream.account("tail", &[of_tail(&tail.lines())], 0)];
    for (what, server) in [("syslog", &syslog), ("syslog+tls", &secure)] {
        let connections: Vec<_> = server.inbox.by_connection().iter().map(|all| of_drain(all)).collect();
        accounts.push(stream.account(what, &connections, 0));
    }
    accounts.push(stream.account("https", &[of_drain(&http.inbox.all())], http.doubtful()));
    accounts.iter().for_each(|account| println!("{account}"));
    let requests = http.requests();
    requests.iter().for_each(|request| drop(request.checked(&token)));
    assert!(tail.connections() > 3, "it was broken off by each death of control");
    assert!(accounts.iter().all(|account| account.lines > ROUNDS * DYNOS * LINES), "each was there from the beginning");
    assert!(accounts[3].dropped > 0, "frames were refused");
}

#[test]
fn what_a_dyno_writes_while_nobody_stores_it_is_counted_where_it_is_missing() {
    const DYNOS: u64 = 3;
    let platform = platform()
        .limit("log_history_lines", 1_000_000)
        .limit("log_partial_ms", 3_600_000) // a line is cut by what is missing, never by a slow moment of the machine
        .limit("shim_backlog_bytes", 32 << 10)
        .limit("shim_hold_ms", 50)
        .start();
    let app = counting(&platform);
    let tail = Tail::open(&platform, "counting", 1);
    scale(&platform, DYNOS as usize);
    let ready = |tail: &Tail| tail.lines().iter().filter(|line| line.ends_with("]: ready")).count();
    wait_until("the dynos", LONG, || ready(&tail) == DYNOS as usize);
    let width = format!("worker.1 {:08} {}\n", 1, "x".repeat(60)).len();
    let all = width * LINES;
    platform.freeze_role("logs", true);
    platform.signal_inside(&["count.py"]);
    let done = |written: u64| written >= all as u64;
    wait_until("everything to be written", LONG, || platform.written_inside(&["count.py"]).into_iter().all(done));
    platform.freeze_role("logs", false);
    let _end = end(&app, &tail);
    let last = |n| format!(" app[worker.{n}]: worker.{n} {LINES:08} ");
    let is_whole = |history: &[String]| (1..=DYNOS).all(|n| history.iter().any(|line| line.contains(&last(n))));
    let mut history = Vec::new();
    wait_until("the last lines of each", LONG, || {
        history = platform.history("counting");
        is_whole(&history)
    });
    for n in 1..=DYNOS {
        // The account of one dyno, in bytes: its lines, of which the one before a notice may be cut off.
        let (mut bytes, mut dropped, mut doubtful, mut number, mut before) = (0, 0, 0, 0, width);
        let notice = " app[log-shuttle]: Error L12: ";
        for line in &history {
            if let Some((count, _)) =
                line.split_once(notice).and_then(|(_, rest)| rest.split_once(&format!(" bytes of worker.{n} ")))
            {
                dropped += count.parse::<usize>().expect("a number");
                bytes -= usize::from(before < width); // no line feed came of it
                doubtful += usize::from(before == width); // its line feed may be the first that is missing
            } else if let Some((_, text)) =
                line.split_once(&format!(" app[worker.{n}]: ")).filter(|(_, text)| *text != "ready")
            {
                before = text.len() + 1;
                bytes += before;
                let whole =
                    text.strip_prefix(&format!("worker.{n} ")).and_then(|rest| rest.get(..8)?.parse::<u64>().ok());
                assert!(whole.is_none_or(|whole| whole > number), "{line} comes after {number}");
                number = whole.unwrap_or(number);
            }
        }
        println!("worker.{n}: {bytes} bytes arrived, {dropped} told to be dropped, of {all}");
        assert!(dropped > 0, "nothing was dropped");
        assert!((all..=all + doubtful).contains(&(bytes + dropped)), "{bytes} + {dropped} of {all}");
    }
}
