//! What lines cost: CPU time and memory of a role in a process of its own.
//!
//! The rate depends on the machine and the build, so it is printed (`--nocapture`), not judged; more lines than the
//! few of a test run are asked for with `DOZEN_LOGS_TEST_PIECES=20000`.

use std::{collections::BTreeMap, fs};

use dozen_api::{
    frame,
    shim::{Hello, Output, Record},
    socket,
};
use dozen_domain::{
    ids::{AppId, DynoId},
    limits::Limits,
    release::Version,
    size::Size,
};
use tokio::io::AsyncWriteExt;

use crate::{
    role::{Process, Role},
    shim::Shim,
};

/// CPU seconds of a process so far, user and system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0 // USER_HZ is 100 on every Linux
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_taken_to_its_last_line() {
    let pieces: u64 = std::env::var("DOZEN_LOGS_TEST_PIECES").map_or(300, |pieces| pieces.parse().unwrap());
    let role = Role::stopped(Limits::default());
    let dyno = DynoId::random();
    let directory = role.dynos().join(dyno.to_string());
    fs::create_dir(&directory).unwrap();
    let listener = socket::bind(&directory.join("shim.sock")).unwrap();
    let record = Record {
        dyno,
        app: AppId::random(),
        name: "web.1".parse().unwrap(),
        size: Size::Basic,
        version: Version(1),
        command: String::new(),
        created_at: 0,
        logged: true,
        engine: BTreeMap::new(),
    };
    fs::write(directory.join("dyno.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    let process = Process::start(&role);
    let (mut connection, _) = listener.accept().await.unwrap();
    let hello: Option<Hello> = frame::read(&mut connection).await.unwrap();
    assert!(hello.is_some());
    let lines = "a line of one hundred bytes, its end included, as an app of usual talkativeness writes many a day..\n";
    assert_eq!(lines.len(), 100);
    let bytes = lines.repeat(330).into_bytes();
    let (mut reader, mut writer) = connection.into_split();
    let total = pieces * bytes.len() as u64;
    let before = (std::time::Instant::now(), cpu_seconds(process.child.id()));
    let length = bytes.len() as u64;
    tokio::spawn(async move {
        let mut output = Output { offset: 0, at: dozen_api::clock::now(), dropped: 0, bytes };
        for _ in 0..pieces {
            let frame = output.encode();
            writer.write_all(&(frame.len() as u32).to_le_bytes()).await.unwrap();
            writer.write_all(&frame).await.unwrap();
            output.offset += length;
        }
        std::future::pending::<()>().await;
    });
    while frame::read::<_, u64>(&mut reader).await.unwrap().unwrap() < total {}
    let (wall, cpu) = (before.0.elapsed().as_secs_f64(), cpu_seconds(process.child.id()) - before.1);
    let lines = (pieces * 330) as f64;
    println!("{:.2} M lines/s of CPU, {:.2} M lines/s of time ({lines} lines)", lines / cpu / 1e6, lines / wall / 1e6);
}

#[tokio::test]
async fn an_app_costs_a_few_kilobytes_of_memory_however_long_its_history() {
    const APPS: u64 = 50;
    let proportional = |pid: u32| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        pss.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let role = Role::stopped(Limits::default());
    let process = Process::start(&role);
    let line = "a line of one hundred bytes, its end included, as an app of usual talkativeness writes many a day...\n";
    let talk = async |lines: usize| {
        let shim = Shim::start(&role.dynos(), AppId::random(), "web.1", 10_000);
        while dozen_api::logs::announce(&role.socket(), shim.dyno).await.is_err() {
            tokio::task::yield_now().await; // the role is starting
        }
        shim.write(line.repeat(lines));
        shim.acknowledged((lines * line.len()) as u64).await;
        shim
    };
    // What all readers share has its full size after some floods.
    let mut warm = Vec::new();
    for _ in 0..10 {
        warm.push(talk(30_000).await);
    }
    let before = proportional(process.child.id());
    let mut shims = Vec::new();
    for _ in 0..APPS {
        shims.push(talk(1_500).await);
    }
    let grown = proportional(process.child.id()).saturating_sub(before);
    println!("{before} kB, and {grown} kB more with {APPS} apps more");
    assert!(grown < APPS * 24, "{grown} kB more with {APPS} apps more");
}
