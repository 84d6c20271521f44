//! Usage: what the platform counts against what the dynos' own notes and the log say, across kills.

use dozen_testkit::{LONG, wait_until};
use serde_json::Value;

use crate::{lives, platform};

#[test]
fn dyno_seconds_are_exact_whatever_is_killed() {
    let platform = platform().limit("crash_backoff_seconds", 1).start();
    let app = lives::recorder(&platform, "metered", "worker: exec /usr/bin/python3 -u recorder.py leave\n");
    drop(app.try_push().success());
    let scale = |quantity: u32| {
        let body = serde_json::json!({"updates": [{"type": "worker", "quantity": quantity}]});
        assert_eq!(platform.api("PATCH", "/apps/metered/formation", Some(&body)).0, 200);
    };
    let count = |text: &str| app.log().matches(text).count();
    scale(3);
    wait_until("three dynos", LONG, || count("]: up ") == 3);
    platform.kill_role("control");
    wait_until("the API", LONG, || platform.api("GET", "/account", None).0 == 200);
    scale(2);
    wait_until("an end", LONG, || count("Process exited with status 7") == 1);
    // One ends, and is asked to by nobody the platform knows, while there is no platform.
    platform.kill_parent();
    platform.end_inside(&["-u", "recorder.py", "leave"]);
    platform.start_server();
    wait_until("its restart", LONG, || count("]: up ") == 4);
    platform.kill_role("control");
    wait_until("the API", LONG, || platform.api("GET", "/account", None).0 == 200);
    scale(0);
    wait_until("all ends", LONG, || count("Process exited with status 7") == 4);
    wait_until("their record", LONG, || platform.shims().is_empty());

    let lines = lives::lines(&app);
    let sum = |from: &str, to: &str, at: &dyn Fn(&lives::Line) -> i64| -> i64 {
        let all = |text: &str| -> i64 { lines.iter().filter(|line| line.text.starts_with(text)).map(at).sum() };
        all(to) - all(from)
    };
    // A dyno notes its first and last moment itself: it ran a little longer. The platform says when it began to make the
    // container: it ran a little shorter.
    let noted =
        sum("up ", "SIGTERM ", &|line| line.text.rsplit(' ').next().and_then(|at| at.parse().ok()).unwrap_or(0));
    let told = sum("Starting process with", "Process exited with", &|line| line.at);
    let usage = platform.dozen(&["usage", "--app", "metered", "--json"]).success().stdout;
    let usage: Value = serde_json::from_str(&usage).expect("JSON");
    let entry = &usage[0];
    assert_eq!((entry["type"].as_str(), entry["dynos"].as_u64()), (Some("worker"), Some(4)), "{usage}");
    assert_eq!(entry["estimated"], false, "{usage}");
    let seconds = entry["dyno_seconds"].as_i64().expect("a number");
    let round = |micros: i64| (micros + 500_000) / 1_000_000;
    assert!((round(noted)..=round(told)).contains(&seconds), "{noted} <= {seconds} s <= {told}\n{}", app.log());
    let csv = platform.dozen(&["usage", "--csv"]).success().stdout;
    assert!(csv.contains("app,month,type,size,dyno_seconds,dynos,estimated\nmetered,"), "{csv}");
}
