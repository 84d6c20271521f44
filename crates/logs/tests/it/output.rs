//! Output of dynos: cut into lines, acknowledged when stored, counted when dropped.

use std::time::Instant;

use dozen_api::logs::{Hello, Session, announce};
use dozen_api::{frame, shim::Lost, socket};
use dozen_domain::{ids::AppId, limits::Limits};

use crate::{
    role::{Process, Role, all, text, untimed},
    shim::Shim,
};

fn texts(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| text(line)).collect()
}

#[tokio::test]
async fn lines_of_a_dyno_carry_its_name_and_the_time_of_reading() {
    let role = Role::start().await;
    let app = AppId::random();
    let before = dozen_api::clock::rfc3339_micros(dozen_api::clock::now());
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    shim.write("hello\r\nworld\n\né\n");
    shim.write(b"\xff!\nlast\n");
    announce(&role.socket(), shim.dyno).await.unwrap();
    let lines = role.history_up_to(app, "last").await;
    let shown: Vec<&str> = lines.iter().map(|line| untimed(line)).collect();
    let expected = ["hello", "world", "", "é", "\u{fffd}!", "last"].map(|text| format!("app[web.1]: {text}"));
    assert_eq!(shown, expected);
    let after = dozen_api::clock::rfc3339_micros(dozen_api::clock::now());
    assert!(lines.iter().all(|line| line[..before.len()] >= *before && line[..after.len()] <= *after));
}

#[tokio::test]
async fn dynos_that_were_there_before_the_role_are_found() {
    let mut role = Role::stopped(Limits::default());
    let app = AppId::random();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    shim.write("early\n");
    role.run().await;
    shim.acknowledged(6).await;
    assert_eq!(texts(&role.history(app).await), ["early"]);
}

#[tokio::test]
async fn an_unfinished_line_waits_for_its_end_and_is_not_acknowledged() {
    let mut role = Role::start().await;
    let app = AppId::random();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    announce(&role.socket(), shim.dyno).await.unwrap();
    shim.write("one\ntw");
    shim.acknowledged(4).await;
    assert_eq!(texts(&role.history(app).await), ["one"]);
    role.restart().await;
    shim.write("o\nthree");
    shim.acknowledged(8).await;
    assert_eq!(texts(&role.history(app).await), ["one", "two"]);
    assert_eq!(shim.connections(), [0, 4]);
    shim.end();
    assert_eq!(texts(&role.history_up_to(app, "three").await), ["one", "two", "three"]);
    shim.acknowledged(13).await;
}

#[tokio::test]
async fn an_unfinished_line_is_stored_when_the_shim_is_dead() {
    let role = Role::start().await;
    let app = AppId::random();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    shim.write("one\nhalf");
    announce(&role.socket(), shim.dyno).await.unwrap();
    shim.acknowledged(4).await;
    shim.die();
    let told = lost_line(&role, app).await;
    assert_eq!(texts(&role.history(app).await), ["one", "half", text(&told)]);
}

/// Waits until an app is told that output is lost (L13), and gives the line.
async fn lost_line(role: &Role, app: AppId) -> String {
    let mut tail = role.session(Session { tail: true, ..all(app) });
    loop {
        let (_, line) = tail.line().await;
        if untimed(&line).starts_with("app[log-shuttle]: Error L13: ") {
            return line;
        }
    }
}

#[tokio::test]
async fn what_a_killed_shim_took_with_it_is_told_once() {
    let mut role = Role::start().await;
    let app = AppId::random();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    shim.write("one\n");
    announce(&role.socket(), shim.dyno).await.unwrap();
    shim.acknowledged(4).await;
    shim.die();
    let told = lost_line(&role, app).await;
    assert!(text(&told).starts_with("Error L13: output of web.1 since "), "{told}");
    assert!(told.ends_with("may be lost, because its shim was killed."), "{told}");
    // Its directory stays until control has looked; a new role does not tell again.
    role.restart().await;
    let other = Shim::start(&role.dynos(), app, "web.2", 100);
    other.write("bye");
    other.end();
    announce(&role.socket(), other.dyno).await.unwrap();
    other.acknowledged(3).await;
    assert_eq!(texts(&role.history(app).await), ["one", text(&told), "bye"]);
}

#[tokio::test]
async fn output_that_nobody_came_to_store_is_told_to_be_lost() {
    let mut role = Role::stopped(Limits::default());
    let (app, dyno) = (AppId::random(), dozen_domain::ids::DynoId::random());
    let lost = Lost { app, name: "web.1".parse().unwrap(), bytes: 4_711, since: 1_704_067_200_000_000 };
    let word = role.dynos().join(dyno.to_string()).with_extension(Lost::EXTENSION);
    std::fs::write(&word, serde_json::to_vec(&lost).unwrap()).unwrap();
    role.run().await;
    let told = lost_line(&role, app).await;
    assert_eq!(text(&told), "Error L13: 4711 bytes of web.1 lost since 2024-01-01T00:00:00.000000+00:00.");
    let began = Instant::now();
    while word.exists() {
        assert!(began.elapsed() < crate::role::LONG);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_end_is_acknowledged_again_after_a_restart_and_without_any_output() {
    let mut role = Role::start().await;
    let app = AppId::random();
    let silent = Shim::start(&role.dynos(), app, "web.1", 100);
    silent.end();
    announce(&role.socket(), silent.dyno).await.unwrap();
    silent.acknowledged(0).await;
    let shim = Shim::start(&role.dynos(), app, "web.2", 100);
    shim.write("bye");
    shim.end();
    announce(&role.socket(), shim.dyno).await.unwrap();
    shim.acknowledged(3).await;
    role.restart().await;
    while shim.connections().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shim.connections(), [0, 3]);
    assert_eq!(texts(&role.history(app).await), ["bye"]);
    shim.clean();
}

#[tokio::test]
async fn a_long_line_is_split_and_none_of_it_is_lost() {
    let role = Role::start().await;
    let app = AppId::random();
    let shim = Shim::start(&role.dynos(), app, "web.1", 4_096);
    let long: String = ('a'..='z').cycle().take(25_000).collect();
    shim.write(&long);
    announce(&role.socket(), shim.dyno).await.unwrap();
    shim.acknowledged(20_000).await;
    shim.write("\nend\n");
    let lines = role.history_up_to(app, "end").await;
    let lengths: Vec<usize> = texts(&lines).iter().map(|text| text.len()).collect();
    assert_eq!(lengths, [10_000, 10_000, 5_000, 3]);
    assert_eq!(texts(&lines)[..3].concat(), long);
}

#[tokio::test]
async fn what_a_backlog_dropped_is_told_where_it_is_missing() {
    let role = Role::start().await;
    let app = AppId::random();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    shim.write("before\nlost\n");
    let dropped = shim.overflow();
    shim.write("after\n");
    announce(&role.socket(), shim.dyno).await.unwrap();
    let lines = role.history_up_to(app, "after").await;
    let told = format!(
        "app[log-shuttle]: Error L12: {dropped} bytes of web.1 dropped since 2024-01-01T00:00:00.000000+00:00."
    );
    assert_eq!([untimed(&lines[0]), untimed(&lines[1])], [told.as_str(), "app[web.1]: after"]);
    shim.acknowledged(18).await;
}

#[tokio::test]
async fn a_dyno_whose_output_is_not_for_the_stream_is_left_alone() {
    let role = Role::start().await;
    let app = AppId::random();
    let build = Shim::start_as(&role.dynos(), app, "run.1", 100, false);
    build.write("building\n");
    announce(&role.socket(), build.dyno).await.unwrap();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    shim.write("up\n");
    announce(&role.socket(), shim.dyno).await.unwrap();
    assert_eq!(texts(&role.history_up_to(app, "up").await), ["up"]);
    assert!(build.connections().is_empty());
    assert_eq!(build.acknowledged_now(), None);
}

#[tokio::test]
async fn an_app_that_floods_does_not_delay_another() {
    let role = Role::start().await;
    let loud = AppId::random();
    let quiet = AppId::random();
    let flood = Shim::start(&role.dynos(), loud, "web.1", 65_536);
    flood.write("0123456789012345678901234567890123456789\n".repeat(1_000_000));
    announce(&role.socket(), flood.dyno).await.unwrap();
    flood.acknowledged(1).await;
    let shim = Shim::start(&role.dynos(), quiet, "web.1", 100);
    shim.write("hello\n");
    announce(&role.socket(), shim.dyno).await.unwrap();
    shim.acknowledged(6).await;
    assert!(flood.acknowledged_now() < Some(41_000_000), "the flood was over before the other app had its turn");
    assert_eq!(texts(&role.history(quiet).await), ["hello"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_lost_or_doubled_when_the_role_is_killed_again_and_again() {
    const LINES: usize = 100_000;
    let limits = Limits { log_history_lines: 10_000_000, ..Limits::default() };
    let role = Role::stopped(limits);
    let apps = [AppId::random(), AppId::random()];
    let shims = apps.map(|app| Shim::start(&role.dynos(), app, "web.1", 3_000));
    let body: String =
        (0..LINES).map(|n| format!("line {n} of what the dyno wrote, with a tail of some length\n")).collect();
    let mut process = Process::start(&role);
    let mut kills = 0;
    for part in body.as_bytes().chunks(body.len() / 20 + 1) {
        for shim in &shims {
            let from = shim.acknowledged_now();
            shim.write(part);
            let began = Instant::now();
            while shim.acknowledged_now() <= from {
                assert!(began.elapsed() < crate::role::LONG);
                tokio::task::yield_now().await;
            }
        }
        process.kill(); // somewhere in the middle of this part
        kills += 1;
        process = Process::start(&role);
    }
    for shim in &shims {
        shim.end();
        shim.acknowledged(body.len() as u64).await;
    }
    process.kill();
    let _last = Process::start(&role);
    for app in apps {
        let lines = role.history(app).await;
        let wrong = body.lines().zip(&lines).find(|(sent, line)| text(line) != *sent);
        assert_eq!(wrong, None, "after {kills} kills");
        assert_eq!(lines.len(), LINES, "after {kills} kills");
    }
    assert!(shims.iter().all(|shim| shim.connections().len() > kills));
}

#[tokio::test]
async fn a_tail_goes_on_over_a_kill_without_gap_or_repeat() {
    let role = Role::stopped(Limits::default());
    let app = AppId::random();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    let mut process = Process::start(&role);
    let mut tail = role.session(Session { tail: true, ..all(app) });
    let mut got = Vec::new();
    for part in 0..5 {
        let lines: String = (part * 100..part * 100 + 100).map(|n| format!("{n}\n")).collect();
        shim.write(lines);
        got.extend(tail.until(&(part * 100 + 99).to_string()).await);
        process.kill();
        process = Process::start(&role);
    }
    let numbers: Vec<usize> = got.iter().map(|(_, line)| text(line).parse().unwrap()).collect();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0), "sequence numbers grow over restarts");
}

#[tokio::test]
async fn a_connection_that_makes_no_sense_hurts_nobody() {
    let role = Role::start().await;
    let app = AppId::random();
    let mut tail = role.session(Session { tail: true, ..all(app) });
    tail.caught().await;
    let mut connection = socket::connect(&role.socket()).await.unwrap();
    frame::write_bytes(&mut connection, b"{\"nonsense\":1}").await.unwrap();
    assert_eq!(frame::read_bytes(&mut connection).await.unwrap(), None);
    let unknown = dozen_domain::ids::DynoId::random();
    announce(&role.socket(), unknown).await.unwrap();
    let mut connection = socket::connect(&role.socket()).await.unwrap();
    frame::write(&mut connection, &Hello::Dyno(unknown)).await.unwrap();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    shim.write("still here\n");
    announce(&role.socket(), shim.dyno).await.unwrap();
    tail.until("still here").await;
}
