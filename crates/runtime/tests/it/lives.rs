//! How long dynos live and how they go: stop signals, health checks, cycling, and the record of when they ran.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{
    clock,
    engine::{Engine, HealthCheck, Meter, Run},
};
use dozen_domain::{
    dyno::State,
    ids::DynoId,
    limits::Limits,
    settings::{Signal, Stop},
};
use tokio::{io::AsyncReadExt, sync::watch};

use crate::{dyno::LONG, platform::Platform};

const SLEEP: &str = "exec sleep 600";
/// Answers the first request with 503 and all others with 204.
const HEALTHY: &str = "exec /opt/dozen/bin/dozen probe health 0.0.0.0 $PORT 1";
/// Never answers with anything but 503.
const SICK: &str = "exec /opt/dozen/bin/dozen probe health 0.0.0.0 $PORT 1000000";

#[tokio::test(flavor = "multi_thread")]
async fn a_process_type_is_stopped_by_its_own_signal_and_killed_after_its_own_grace() {
    let p = Platform::start(Limits::default()).await;
    let stubborn = "trap '' QUIT; echo up; while :; do sleep 0.01; done";
    // Bash ignores this signal, and so would the command until it is in bash's place.
    let obedient = "exec /bin/sh -c 'echo up; sleep 600'";
    let mut wanted = p.wanted(1, &[("worker", stubborn, 1), ("clock", obedient, 1)]);
    let grace = Duration::from_secs(1);
    for process in &mut wanted.processes {
        process.stop = Stop { signal: Signal::Quit, grace };
    }
    p.engine.apply(wanted).await.expect("applied");
    p.settle(&["clock.1 up", "worker.1 up"]).await;
    for name in ["clock.1", "worker.1"] {
        let mut output = p.engine.output(p.dyno(name).id).await.expect("output");
        let mut said = [0; 3];
        output.read_exact(&mut said).await.expect("a word");
        assert_eq!(&said, b"up\n");
    }
    p.engine.apply(p.wanted(1, &[("worker", stubborn, 0), ("clock", obedient, 0)])).await.expect("applied");
    p.settle(&[]).await;
    assert_eq!(
        p.lines("worker.1").await[3..],
        [
            "State changed from up to down",
            "Stopping all processes with SIGQUIT",
            "Error R12 (Exit timeout) -> Process failed to exit within 1 seconds of SIGQUIT",
            "Stopping process with SIGKILL",
            "Process exited with status 137",
        ]
    );
    assert_eq!(p.lines("clock.1").await.last().map(String::as_str), Some("Process exited with status 131"));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_dyno_is_up_once_it_answers_its_health_check() {
    let p = Platform::start(Limits { crash_backoff_seconds: 600, ..Limits::default() }).await;
    let check = Some(HealthCheck { host: "shop.test".to_owned(), path: "/up".to_owned() });
    let mut wanted = p.wanted(1, &[("web", HEALTHY, 1)]);
    wanted.health_check.clone_from(&check);
    p.engine.apply(wanted).await.expect("applied");
    p.settle(&["web.1 up"]).await;
    let mut wanted = p.wanted(2, &[("web", SICK, 1)]);
    (wanted.health_check, wanted.boot_timeout, wanted.preboot) = (check, Duration::from_secs(1), true);
    p.engine.apply(wanted).await.expect("applied");
    // The old one goes on beside one that never is healthy.
    p.settle(&["web.1 up", "web.1 crashed"]).await;
    let lines = p.lines("web.1").await;
    let from = lines.iter().position(|line| line.contains("R10")).expect("an error");
    assert_eq!(
        lines[from..from + 4],
        [
            "Error R10 (Boot timeout) -> Web process failed to answer /up within 1 seconds of launch",
            "Stopping process with SIGKILL",
            "Process exited with status 137",
            "State changed from starting to crashed",
        ]
    );
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynos_cycle_one_at_a_time_and_one_offs_end() {
    let limits = Limits { cycle_seconds: 1, cycle_jitter_seconds: 0, ..Limits::default() };
    let p = Platform::start(limits).await;
    let mut events = p.engine.watch();
    let dyno = p.engine.run(p.one_off("run.1234", SLEEP)).await.expect("started");
    p.engine.apply(p.wanted(1, &[("worker", SLEEP, 2)])).await.expect("applied");
    p.settle(&["run.1234 up", "worker.1 up", "worker.2 up"]).await;
    let first: Vec<DynoId> = ["worker.1", "worker.2"].map(|name| p.dyno(name).id).into();
    let mut replaced = Vec::new();
    while replaced.len() < 2 {
        let event = tokio::time::timeout(LONG, events.recv()).await.expect("in time").expect("an event");
        if event.dyno.state.word() == "stopping" && first.contains(&event.dyno.id) {
            let others = p.engine.dynos(p.app).into_iter().filter(|dyno| dyno.id != event.dyno.id);
            assert!(others.filter(|dyno| matches!(dyno.state, State::Up { .. })).count() >= 1, "one is always up");
            replaced.push(event.dyno.id);
        }
    }
    assert_eq!(p.engine.wait(dyno.id).await.expect("an exit").status(), 143);
    assert!(p.lines("run.1234").await.contains(&"Cycling".to_owned()));
    for name in ["worker.1", "worker.2"] {
        let lines = p.lines(name).await;
        let from = lines.iter().position(|line| line == "Cycling").expect("cycling");
        assert_eq!(lines[from + 1], "State changed from up to starting", "{lines:#?}");
    }
    // An app that opts out is left alone from then on.
    let still = |cycle| dozen_api::engine::Wanted { cycle, ..p.wanted(2, &[("worker", SLEEP, 1)]) };
    p.engine.apply(still(false)).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    let kept = p.dyno("worker.1");
    tokio::time::sleep(Duration::from_millis(1_500)).await; // nothing is to happen, which nothing can tell
    assert_eq!(p.dyno("worker.1").id, kept.id);
    p.engine.apply(still(true)).await.expect("applied");
    while p.engine.dynos(p.app).iter().any(|dyno| dyno.id == kept.id) {
        tokio::time::timeout(LONG, events.recv()).await.expect("in time").expect("an event");
    }
    p.end().await;
}

/// A record in memory that takes nothing until it is opened.
struct Book {
    open: watch::Sender<bool>,
    runs: Mutex<BTreeMap<DynoId, Run>>,
    present: Mutex<Option<Vec<DynoId>>>,
}

impl Book {
    fn new(open: bool) -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(open), runs: Mutex::default(), present: Mutex::default() })
    }

    fn run(&self, dyno: DynoId) -> Option<Run> {
        self.runs.lock().expect("no panic").get(&dyno).cloned()
    }
}

#[async_trait]
impl Meter for Book {
    async fn record(&self, runs: Vec<Run>) {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        for run in runs {
            let mut book = self.runs.lock().expect("no panic");
            let there = book.entry(run.dyno).or_insert_with(|| run.clone());
            assert_eq!(there.started_at, run.started_at, "a start is told with one time");
            there.ended_at = there.ended_at.or(run.ended_at);
        }
    }

    async fn adopted(&self, present: Vec<DynoId>) {
        *self.present.lock().expect("no panic") = Some(present);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_stays_until_its_dynos_time_is_on_record_whoever_was_killed_meanwhile() {
    let mut p = Platform::start(Limits::default()).await;
    let closed = Book::new(false);
    p.engine.set_meter(closed.clone());
    let from = clock::now();
    p.engine.apply(p.wanted(1, &[("worker", SLEEP, 1)])).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    let worker = p.dyno("worker.1").id;
    let directory = p.data.path().join("run/dynos").join(worker.to_string());
    p.engine.apply(p.wanted(1, &[("worker", SLEEP, 0)])).await.expect("applied");
    p.settle(&[]).await;
    let until = clock::now();
    assert!(directory.exists() && closed.run(worker).is_none());

    // Whoever held the record up is killed; the next one hears all of it from the shim.
    let book = Book::new(true);
    p.restart_engine_with(|engine| engine.set_meter(book.clone())).await;
    tokio::time::timeout(LONG, async {
        while directory.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the shim goes");
    let run = book.run(worker).expect("a record");
    let ended_at = run.ended_at.expect("an end");
    assert!(from <= run.started_at && run.started_at < ended_at && ended_at <= until, "{run:?}");
    assert!(!run.one_off && run.name.to_string() == "worker.1");
    assert_eq!(*book.present.lock().expect("no panic"), Some(Vec::new()), "it had ended already");
    p.end().await;
}
