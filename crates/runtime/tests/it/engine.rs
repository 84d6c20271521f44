//! The machine engine with real shims.

use std::{
    io::Read,
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{
    engine::{Attach, Dyno, Engine, Error, Gate, Selector},
    frame,
    logs::Hello,
    socket,
};
use dozen_domain::{
    dyno::{Exit, State},
    image::Digest,
    limits::Limits,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::platform::{Platform, SERVE};

const SLEEP: &str = "exec sleep 600";

async fn read(output: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).await.expect("text");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_dyno_comes_up_answers_at_its_address_and_goes() {
    let p = Platform::start(Limits::default()).await;
    p.engine.apply(p.wanted(1, &[("web", SERVE, 1), ("worker", SLEEP, 1)])).await.expect("applied");
    p.settle(&["web.1 up", "worker.1 up"]).await;
    let mut text = String::new();
    let mut stream = TcpStream::connect(p.address("web.1")).expect("connected");
    stream.read_to_string(&mut text).expect("text");
    assert_eq!(text, "hello from inside\n");
    let (web, started) = (p.dyno("web.1"), format!("Starting process with command `{SERVE}`"));
    assert_eq!(
        p.lines("web.1").await,
        ["State changed from down to starting", started.as_str(), "State changed from starting to up"]
    );
    // The same wanted state again touches nothing.
    p.engine.apply(p.wanted(1, &[("web", SERVE, 1), ("worker", SLEEP, 1)])).await.expect("applied");
    assert_eq!(p.dyno("web.1"), web);
    p.engine.apply(p.wanted(1, &[("web", SERVE, 0), ("worker", SLEEP, 1)])).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    assert_eq!(
        p.lines("web.1").await[3..],
        ["State changed from up to down", "Stopping all processes with SIGTERM", "Process exited with status 143",]
    );
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_replaces_and_a_restart_too() {
    let p = Platform::start(Limits::default()).await;
    p.engine.apply(p.wanted(1, &[("worker", SLEEP, 2)])).await.expect("applied");
    p.settle(&["worker.1 up", "worker.2 up"]).await;
    let first = p.dyno("worker.1").id;
    p.engine.apply(p.wanted(2, &[("worker", SLEEP, 1)])).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    let second = p.dyno("worker.1");
    assert!(second.id != first && second.version.0 == 2);
    let old = p.engine.restart(p.app, Selector::Dyno(second.name.clone())).await.expect("restarted");
    assert_eq!(old[0].id, second.id);
    let mut events = p.engine.watch();
    while p.engine.dynos(p.app).iter().any(|dyno| dyno.id == second.id) {
        let _ = events.recv().await;
    }
    p.settle(&["worker.1 up"]).await;
    let lines = p.lines("worker.1").await;
    let from = lines.iter().rposition(|line| line == "Restarting").expect("restarting");
    assert_eq!(lines[from + 1], "State changed from up to starting");
    for line in ["Stopping all processes with SIGTERM", "Process exited with status 143"] {
        assert!(lines[from..].iter().any(|said| said == line), "{lines:#?}");
    }
    let nobody = p.engine.restart(p.app, Selector::Dyno("web.9".parse().expect("a name"))).await;
    assert!(matches!(nobody, Err(Error::NoSuchDyno)));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_restarted_at_once_and_then_after_a_pause() {
    let p = Platform::start(Limits { crash_backoff_seconds: 1, ..Limits::default() }).await;
    p.engine.apply(p.wanted(1, &[("worker", "exit 3", 1)])).await.expect("applied");
    let mut events = p.engine.watch();
    let mut crashes = Vec::new();
    while crashes.len() < 3 {
        if let State::Crashed { since, retry_at, crashes: count } = events.recv().await.expect("an event").dyno.state {
            crashes.push((count, retry_at - since));
        }
    }
    crashes.dedup();
    assert!(crashes.contains(&(1, 0)) && crashes.contains(&(2, 1_000_000)), "{crashes:?}");
    let lines = p.lines("worker.1").await;
    for line in
        ["Process exited with status 3", "State changed from up to crashed", "State changed from crashed to starting"]
    {
        assert!(lines.iter().any(|said| said == line), "{lines:#?}");
    }
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_dyno_that_never_listens_is_r10() {
    let p = Platform::start(Limits { crash_backoff_seconds: 600, ..Limits::default() }).await;
    let mut wanted = p.wanted(1, &[("web", SLEEP, 1)]);
    wanted.boot_timeout = Duration::from_secs(1);
    p.engine.apply(wanted).await.expect("applied");
    p.settle(&["web.1 crashed"]).await;
    assert_eq!(
        p.lines("web.1").await[2..6],
        [
            "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 1 seconds of launch",
            "Stopping process with SIGKILL",
            "Process exited with status 137",
            "State changed from starting to crashed",
        ]
    );
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynos_survive_the_engine_and_are_taken_up_again_untouched() {
    let mut p = Platform::start(Limits::default()).await;
    let processes = [("web", SERVE, 1), ("worker", SLEEP, 1)];
    p.engine.apply(p.wanted(1, &processes)).await.expect("applied");
    p.settle(&["web.1 up", "worker.1 up"]).await;
    let one_off = p.one_off("run.1234", "read line; exit 7");
    let one_off = dozen_api::engine::OneOff { attach: Some(Attach::Pipes), ..one_off };
    let mut attached = {
        p.engine.run(one_off.clone()).await.expect("started");
        p.engine.attach(one_off.dyno).await.expect("attached")
    };
    let before = p.engine.dynos(p.app);
    p.restart_engine().await;
    assert_eq!(p.engine.dynos(p.app).len(), 3);
    assert_eq!(p.engine.dynos(p.app), before);
    assert_eq!(p.engine.apps(), [p.app]);
    p.engine.apply(p.wanted(1, &processes)).await.expect("applied");
    assert_eq!(p.engine.dynos(p.app), before);
    assert!(p.lines("").await.is_empty(), "nothing is said twice");
    // Asking again for what runs starts nothing.
    assert_eq!(p.engine.run(one_off.clone()).await.expect("there already"), p.dyno("run.1234"));

    // What happens while nobody listens is found out later.
    let engine = std::mem::replace(&mut p.engine, dozen_runtime::engine::Machine::new(p.host.clone()));
    drop(engine);
    attached.input.write_all(b"go\n").await.expect("typed");
    assert_eq!(read(&mut attached.output).await, "");
    p.restart_engine().await;
    assert_eq!(p.engine.wait(one_off.dyno).await.expect("an exit"), Exit::Code(7));
    assert_eq!(p.states(), ["web.1 up", "worker.1 up"]);
    assert_eq!(p.lines("run.1234").await, ["Process exited with status 7", "State changed from up to complete"]);
    // Nor is it forgotten at once: whoever found it out may have been killed before it could write it down.
    p.restart_engine().await;
    assert_eq!(p.engine.wait(one_off.dyno).await.expect("the same exit"), Exit::Code(7));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_role_is_told_of_dynos_that_are_taken_up_again() {
    let mut p = Platform::start(Limits::default()).await;
    p.engine.apply(p.wanted(1, &[("worker", SLEEP, 1)])).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    // The logs role comes only now: what it was told before has been in vain.
    let logs = socket::bind(&p.data.path().join("run/logs.sock")).expect("a socket");
    let (_, told) = tokio::join!(p.restart_engine(), async {
        let (mut connection, _) = logs.accept().await.expect("a connection");
        frame::read::<_, Hello>(&mut connection).await.expect("a frame")
    });
    assert!(matches!(told, Some(Hello::Dyno(dyno)) if dyno == p.dyno("worker.1").id), "{told:?}");
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_dies_with_its_shim_and_is_started_again() {
    let p = Platform::start(Limits::default()).await;
    p.engine.apply(p.wanted(1, &[("worker", SLEEP, 1)])).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    let first = p.dyno("worker.1").id;
    crate::platform::kill_shim(&p, first);
    let mut events = p.engine.watch();
    while p.engine.dynos(p.app).first().is_none_or(|dyno| dyno.id == first) {
        let _ = events.recv().await;
    }
    p.settle(&["worker.1 up"]).await;
    let lines = p.lines("worker.1").await;
    let at = lines.iter().position(|line| line == LOST).unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(lines[at + 1..at + 3], ["Process exited with status 137", "State changed from up to crashed"]);
    p.end().await;
}

/// What is said of a dyno whose shim was killed.
const LOST: &str = "Error R99 (Platform error) -> The process that supervised the dyno is gone, and the dyno with it";

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_while_control_is_away_is_told_of_and_its_dyno_started_again() {
    let mut p = Platform::start(Limits::default()).await;
    let processes = [("worker", SLEEP, 2)];
    p.engine.apply(p.wanted(1, &processes)).await.expect("applied");
    p.settle(&["worker.1 up", "worker.2 up"]).await;
    let (first, other) = (p.dyno("worker.1").id, p.dyno("worker.2").id);
    let shim = crate::platform::shim(&p, first);
    p.away(|| crate::platform::kill_and_wait(shim)).await;
    assert_eq!(p.states(), ["worker.2 up"]);
    p.engine.apply(p.wanted(1, &processes)).await.expect("applied");
    p.settle(&["worker.1 up", "worker.2 up"]).await;
    assert_eq!(p.dyno("worker.2").id, other, "a neighbour of it goes on");
    let lines = p.lines("worker.1").await;
    assert_eq!(lines[..3], [LOST, "State changed from up to down", "State changed from down to starting"]);
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_that_stands_still_is_up_and_is_killed_when_its_grace_is_over() {
    let p = Platform::start(Limits::default()).await;
    let mut wanted = p.wanted(1, &[("worker", "echo here; exec sleep 600", 1)]);
    wanted.processes[0].stop.grace = Duration::from_secs(1);
    p.engine.apply(wanted.clone()).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    let first = p.dyno("worker.1").id;
    let standing = crate::platform::stand_still(&p, first);
    assert!(standing > 1, "its init and its command");
    p.engine.restart(p.app, Selector::All).await.expect("restarted");
    let told = |lines: &[String]| lines.iter().any(|line| line == "Process exited with status 137");
    let lines = p.until("worker.1", told).await;
    assert!(lines.iter().any(|line| line.starts_with("Error R12 (Exit timeout)")), "{lines:#?}");
    p.settle(&["worker.1 up"]).await;
    assert_ne!(p.dyno("worker.1").id, first);
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_size_tells_its_memory_where_buildpacks_look_for_it() {
    let p = Platform::start(Limits::default()).await;
    for size in dozen_domain::size::Size::ALL {
        let command = "echo $WEB_CONCURRENCY $MEMORY_AVAILABLE $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes)";
        let one_off = dozen_api::engine::OneOff { size, ..p.one_off("run.7", command) };
        let dyno = p.engine.run(one_off).await.expect("started");
        let said = read(&mut p.engine.output(dyno.id).await.expect("output")).await;
        let memory = size.quota().memory;
        let expected = format!("1 {} {memory}\n", memory >> 20);
        assert_eq!(said, expected, "{size}");
        p.engine.wait(dyno.id).await.expect("an exit");
    }
    p.settle(&[]).await;
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_has_its_environment_output_and_exit() {
    let p = Platform::start(Limits::default()).await;
    let command = "cat hello.txt; echo $DYNO $FROM_IMAGE $HOME $MEMORY_AVAILABLE ${PORT-none} | tr a-z A-Z; exit 5";
    let one_off = p.one_off("run.1", command);
    let dyno = p.engine.run(one_off.clone()).await.expect("started");
    let mut output = p.engine.output(dyno.id).await.expect("output");
    assert_eq!(read(&mut output).await, "hello from the image\nRUN.1 YES /APP 512 NONE\n");
    assert_eq!(p.engine.wait(dyno.id).await.expect("an exit"), Exit::Code(5));
    p.settle(&[]).await;
    assert_eq!(
        p.lines("run.1").await[1..],
        ["State changed from starting to up", "Process exited with status 5", "State changed from up to complete",]
    );
    assert_eq!(p.engine.run(one_off).await.expect("known").state.word(), "complete");
    // Its output is still there for those who come late.
    assert!(read(&mut p.engine.output(dyno.id).await.expect("output")).await.starts_with("hello"));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_ends_with_its_time_and_an_image_that_is_missing_is_told() {
    let p = Platform::start(Limits::default()).await;
    let mut one_off = p.one_off("run.2", SLEEP);
    one_off.time_to_live = Some(Duration::from_millis(300));
    let dyno = p.engine.run(one_off.clone()).await.expect("started");
    assert_eq!(p.engine.wait(dyno.id).await.expect("an exit").status(), 143);
    let mut missing = p.one_off("run.3", SLEEP);
    missing.image = Digest(format!("sha256:{:064x}", 7));
    assert!(matches!(p.engine.run(missing).await, Err(Error::Image(..))));
    assert!(p.states().is_empty());
    p.end().await;
}

/// Holds stops back until the test has looked.
struct Holding(Mutex<Option<tokio::sync::oneshot::Receiver<()>>>);

#[async_trait]
impl Gate for Holding {
    async fn before_stop(&self, dyno: &Dyno) {
        assert_eq!(dyno.state.word(), "stopping");
        let held = self.0.lock().expect("no panic").take();
        if let Some(held) = held {
            let _ = held.await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_dyno_answers_until_the_gate_lets_it_go() {
    let p = Platform::start(Limits::default()).await;
    let (open, held) = tokio::sync::oneshot::channel();
    p.engine.set_gate(Arc::new(Holding(Mutex::new(Some(held)))));
    p.engine.apply(p.wanted(1, &[("web", SERVE, 1)])).await.expect("applied");
    p.settle(&["web.1 up"]).await;
    let address = p.address("web.1");
    p.engine.apply(p.wanted(1, &[("web", SERVE, 0)])).await.expect("applied");
    p.settle(&["web.1 stopping"]).await;
    TcpStream::connect(address).expect("it still answers");
    open.send(()).expect("the gate waits");
    p.settle(&[]).await;
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_a_start_costs() {
    let p = Platform::start(Limits::default()).await;
    let mut times = Vec::new();
    for version in 1..=20 {
        let mut events = p.engine.watch();
        let from = std::time::Instant::now();
        p.engine.apply(p.wanted(version, &[("web", SERVE, 1)])).await.expect("applied");
        loop {
            let dyno = events.recv().await.expect("an event").dyno;
            if dyno.version.0 == version && dyno.state.word() == "up" {
                break;
            }
        }
        times.push(from.elapsed().as_micros());
    }
    times.sort_unstable();
    eprintln!("apply to up: median {} us, p90 {} us", times[10], times[17]);
    p.end().await;
}
