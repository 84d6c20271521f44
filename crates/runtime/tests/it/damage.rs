//! What becomes of dynos when something of the platform was damaged or killed under them.

use std::fs;

use dozen_api::engine::{Engine, Selector};
use dozen_domain::limits::Limits;
use rustix::process::{Pid, Signal, kill_process};

use crate::platform::{Platform, SERVE, image, kill_shim};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_not_started_and_its_digests_are_told() {
    let p = Platform::start(Limits::default()).await;
    p.engine.apply(p.wanted(1, &[("web", SERVE, 1)])).await.expect("applied");
    p.settle(&["web.1 up"]).await;
    let hex = p.image.0.strip_prefix("sha256:").expect("a digest");
    let blob = p.data.path().join("store/blobs/sha256").join(hex);
    let mut bytes = fs::read(&blob).expect("the manifest");
    bytes.push(b' ');
    fs::write(&blob, bytes).expect("written");
    p.engine.restart(p.app, Selector::All).await.expect("restarted");
    p.settle(&["web.1 crashed"]).await;
    let begins = format!(
        "Error R17 (Checksum error) -> Checksum does not match expected value. Expected: SHA256:{hex} Actual: SHA256:"
    );
    let lines = p.until("web.1", |lines| lines.iter().any(|line| line.starts_with(&begins))).await;
    assert!(lines.iter().any(|line| line == "State changed from starting to crashed"), "{lines:?}");
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_takes_its_dyno_alone_with_it_and_both_come_back() {
    let p = Platform::start(Limits::default()).await;
    p.engine.apply(p.wanted(1, &[("web", SERVE, 1), ("worker", "exec sleep 600", 1)])).await.expect("applied");
    p.settle(&["web.1 up", "worker.1 up"]).await;
    let (old, worker) = (p.dyno("web.1").id, p.dyno("worker.1").id);
    let group = p.host.cgroup(old).expect("a group");
    let procs = std::path::Path::new("/sys/fs/cgroup/pids").join(group).join("cgroup.procs");
    kill_shim(&p, old);
    let again =
        |lines: &[String]| lines.iter().filter(|line| *line == "State changed from starting to up").count() == 2;
    let lines = p.until("web.1", again).await;
    assert!(lines.iter().any(|line| line == "Process exited with status 137"), "{lines:?}");
    assert_ne!(p.dyno("web.1").id, old);
    assert_eq!(p.dyno("worker.1").id, worker, "the neighbour is the same");
    assert_eq!(fs::read_to_string(procs).unwrap_or_default(), "", "nothing of the old one is left");
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_that_was_stopped_in_its_tracks_is_killed_after_its_grace() {
    let p = Platform::start(Limits::default()).await;
    let mut wanted = p.wanted(1, &[("worker", "exec sleep 600", 1)]);
    wanted.processes[0].stop.grace = std::time::Duration::from_secs(1);
    p.engine.apply(wanted).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    let group = p.host.cgroup(p.dyno("worker.1").id).expect("a group");
    let procs = std::path::Path::new("/sys/fs/cgroup/pids").join(group).join("cgroup.procs");
    for pid in fs::read_to_string(procs).expect("processes").lines() {
        let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::STOP).expect("stopped");
    }
    p.engine.apply(p.wanted(1, &[("worker", "exec sleep 600", 0)])).await.expect("applied");
    p.settle(&[]).await;
    let lines = p.lines("worker.1").await;
    let at = lines.iter().position(|line| line.starts_with("Error R12 (Exit timeout)")).expect("told");
    assert_eq!(lines[at + 1..at + 3], ["Stopping process with SIGKILL", "Process exited with status 137"]);
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dyno_says_and_does_while_control_is_away_is_there_when_it_comes_back() {
    let mut p = Platform::start(Limits::default()).await;
    p.image = image(&p.host, p.app, &[]);
    let script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last; exit 3";
    let one_off = p.one_off("run.1", &format!("(sleep 1; touch /tmp/go) & {script}"));
    let id = p.engine.run(one_off).await.expect("started").id;
    // Dropped with the platform's control: nobody hears of the exit when it happens.
    let exit = p.data.path().join("run/dynos").join(id.to_string()).join("exit.json");
    p.away(|| {
        crate::dyno::wait_until("the exit", || exit.exists());
    })
    .await;
    assert_eq!(p.engine.wait(id).await.expect("known"), dozen_domain::dyno::Exit::Code(3));
    let mut text = String::new();
    let mut output = p.engine.output(id).await.expect("output");
    tokio::io::AsyncReadExt::read_to_string(&mut output, &mut text).await.expect("text");
    assert_eq!(text, "first\nlast\n");
    p.end().await;
}
