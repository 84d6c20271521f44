//! Every line is accounted for: twenty dynos write numbered lines at full speed while the role is killed, drains stall and
//! fail, and tails come and go. What arrived and what was told to be dropped is what was written, in order.

use std::time::Duration;

use dozen_api::{
    drains::{Drain, replace},
    logs::{Session, announce},
};
use dozen_domain::{ids::AppId, limits::Limits};

use dozen_testkit::{
    accounting::{Stream, of_drain, of_tail},
    receivers::{Act, Http, Syslog},
};

use crate::{
    receivers::drain,
    role::{Process, Role, all},
    shim::Shim,
};

const DYNOS: u64 = 20;
const ROUNDS: u64 = 4;
const LINES: u64 = 500; // a dyno and round

async fn tell(role: &Role, drains: &[Drain]) {
    while replace(&role.socket(), drains.to_vec()).await.is_err() {
        tokio::task::yield_now().await; // the role is starting
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_and_what_is_told_to_be_dropped_is_what_was_written() {
    let limits = Limits { drain_request_ms: 300, drain_retry_ms: 1, log_history_lines: 1_000_000, ..Limits::default() };
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
    let tailed: Vec<String> = tail.until("the end").await.into_iter().map(|(_, line)| line).collect();
    for inbox in [&syslog.inbox, &http.inbox, &failing.inbox] {
        inbox.until("the end").await;
    }

    let stream = Stream::new(role.history(app).await);
    stream.assert_whole((1..=DYNOS).map(|n| format!("web.{n}")), ROUNDS * LINES);
    println!("{}", stream.account("tail", &[of_tail(&tailed)], 0));
    let connections: Vec<_> = syslog.inbox.by_connection().iter().map(|all| of_drain(all)).collect();
    println!("{}", stream.account("syslog", &connections, 0));
    for (what, server) in [("http", &http), ("failing http", &failing)] {
        println!("{}", stream.account(what, &[of_drain(&server.inbox.all())], server.doubtful()));
    }
    drop(process);
}
