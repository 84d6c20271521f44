//! What a dyno costs: time from start to exit, memory of its shim. Ignored by default; run with `--ignored --nocapture`.

use std::{
    fs,
    time::{Duration, Instant},
};

use dozen_api::{clock, shim::Event};
use dozen_runtime::sandbox::disk;

use crate::dyno::Setup;

fn memory(pid: i32, key: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    rollup
        .lines()
        .filter(|line| line.starts_with(key))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

#[test]
#[ignore = "a measurement"]
fn what_a_dyno_costs() {
    let here = tempfile::tempdir().expect("a directory");
    let template = disk::template(here.path(), 4 << 30, 262_144).expect("a template");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..50 {
        for (times, disk) in times.iter_mut().zip([None, Some(template.clone())]) {
            let setup = Setup::new(&["/bin/true"]).with(|spec| spec.sandbox.disk = disk);
            let from = Instant::now();
            let mut dyno = setup.start();
            dyno.exit();
            times.push(from.elapsed().as_micros());
        }
    }
    for (mut times, what) in times.into_iter().zip(["without", "with"]) {
        times.sort_unstable();
        eprintln!("start to exit of /bin/true {what} a disk: median {} us, p10 {} us", times[25], times[5]);
    }
    let dynos: Vec<_> = (0..10).map(|_| Setup::bash("sleep 600").start()).collect();
    for (what, pid) in [("shim", dynos[5].shim), ("init", dynos[5].pid)] {
        let keys = ["Rss:", "Pss:", "Private_Clean:", "Private_Dirty:", "Anonymous:"];
        let figures = keys.map(|key| format!("{key} {} kB", memory(pid, key)));
        eprintln!("{what} of one of {} dynos: {}", dynos.len(), figures.join(", "));
    }
}

#[test]
#[ignore = "a measurement"]
fn how_soon_listening_is_known() {
    let mut late: Vec<i64> = (0..30)
        .map(|_| {
            let script = "sleep 0.3; exec /opt/probe probe listen 0.0.0.0 5000";
            let mut dyno = Setup::bash(script).with(|spec| spec.port = Some(5000)).start();
            let known = dyno.wait_for(|event| matches!(event, Event::Bound { .. }).then(clock::now));
            let text = dyno.wait_for_output("listening since ");
            let since = text.lines().find_map(|line| line.strip_prefix("listening since ")?.parse::<i64>().ok());
            known - since.expect("a time")
        })
        .collect();
    late.sort_unstable();
    let late = |n: usize| Duration::from_micros(u64::try_from(late[n]).unwrap_or_default());
    eprintln!("listening known after: median {:?}, p90 {:?}, worst {:?}", late(15), late(27), late(29));
}
