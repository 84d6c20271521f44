//! What a dyno costs: time from start to exit, memory of its shim. Ignored by default; run with `--ignored --nocapture`.

use std::{fs, time::Instant};

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
    let mut times: Vec<u128> = (0..50)
        .map(|_| {
            let setup = Setup::new(&["/bin/true"]);
            let from = Instant::now();
            let mut dyno = setup.start();
            dyno.exit();
            from.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    eprintln!("start to exit of /bin/true: median {} us, p90 {} us", times[25], times[45]);
    let dynos: Vec<_> = (0..10).map(|_| Setup::bash("sleep 600").start()).collect();
    for (what, pid) in [("shim", dynos[5].shim), ("init", dynos[5].pid)] {
        let keys = ["Rss:", "Pss:", "Private_Clean:", "Private_Dirty:", "Anonymous:"];
        let figures = keys.map(|key| format!("{key} {} kB", memory(pid, key)));
        eprintln!("{what} of one of {} dynos: {}", dynos.len(), figures.join(", "));
    }
}
