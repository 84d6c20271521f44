//! `kill -9` of any role or of the parent: no dyno stops, and the platform comes back and knows them all.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

#[test]
fn a_killed_role_comes_back_and_no_dyno_stops() {
    let platform = platform().start();
    let app = App::plain(&platform, "surviving");
    let _pushed = app.push();
    let shims = platform.shims();
    assert_eq!(shims.len(), 1);
    for role in ["control", "router", "logs"] {
        platform.kill_role(role);
        // Connections wait in the listening sockets, which the parent holds: none is refused.
        assert_eq!(app.get("/").status, 200, "after the {role} role was killed:\n{}", app.log());
        wait_until("the API to answer", LONG, || platform.api("GET", "/apps/surviving", None).0 == 200);
        assert_eq!(platform.shims(), shims, "after the {role} role was killed:\n{}", app.log());
    }
    let line = app.get("/print/after-the-kills");
    assert_eq!(line.status, 200);
    app.wait_for_log("app[web.1]: after-the-kills");
    drop(app.heroku(&["ps"]).says("web.1: up"));
    drop(app.heroku(&["ps:scale", "web=2"]));
    wait_until("a second dyno", LONG, || platform.shims().len() == 2);
    assert!(platform.shims().contains(&shims[0]));
}

#[test]
fn a_killed_parent_leaves_dynos_running_and_the_next_start_takes_them_up() {
    let platform = platform().start();
    let app = App::plain(&platform, "orphaned");
    let _pushed = app.push();
    let shims = platform.shims();
    platform.kill_parent();
    assert!(shims.iter().all(|pid| platform.is_alive(*pid)));
    platform.start_server();
    let _answer = app.wait_for_answer();
    assert_eq!(platform.shims(), shims);
    drop(app.heroku(&["ps"]).says("web.1: up"));
    // It is not only shown but led: a restart replaces it.
    drop(app.heroku(&["ps:restart"]));
    wait_until("a new dyno", LONG, || platform.shims().len() == 1 && platform.shims() != shims);
}

#[test]
fn what_is_wanted_starts_again_when_nothing_runs_any_more() {
    let platform = platform().start();
    let app = App::plain(&platform, "rebooted");
    let _pushed = app.push();
    // As after a reboot: everything of the platform's is gone, the data directory is there.
    drop(platform.dozen(&["stop", "--with-dynos"]).success());
    assert!(platform.shims().is_empty());
    platform.start_server();
    let _answer = app.wait_for_answer();
}

#[test]
fn after_the_machine_went_down_everything_starts_again_and_what_was_lost_is_told() {
    let platform = platform().start();
    let app = App::plain(&platform, "powerless");
    let _pushed = app.push();
    // Nobody has the time to write anything down; what was on the disk stays there.
    let shims = platform.shims();
    platform.kill_parent();
    for pid in shims.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a process of ours");
    }
    wait_until("everything to be gone", LONG, || !shims.iter().any(|pid| platform.is_alive(*pid)));
    platform.start_server();
    let _answer = app.wait_for_answer();
    app.wait_for_log("heroku[web.1]: Error R99 (Platform error) -> The process that supervised the dyno is gone");
    app.wait_for_log("heroku[web.1]: State changed from up to down");
    let left = || std::fs::read_dir(platform.data_dir().join("run/dynos")).expect("a directory").count();
    wait_until("nothing but the new dyno", LONG, || platform.shims().len() == 1 && left() == 1);
}

#[test]
fn a_push_whose_release_command_outlives_control_is_released_once() {
    let platform = platform().start();
    let app = App::plain(&platform, "outliving");
    // It ends while control is away or just back, and so that its shim is gone soon after.
    app.write("Procfile", "web: python3 server.py\nrelease: echo begun; sleep 2; echo migrated\n");
    app.commit("with a release command");
    let current = || platform.api("GET", "/apps/outliving/releases/current", None).1;
    let mut push = platform.client_command("git", app.directory());
    push.args(["push", "heroku", "main"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let pushing = push.spawn().expect("git");
    wait_until("the release command", LONG, || app.log().contains("begun"));
    platform.kill_role("control");
    let broken = pushing.wait_with_output().expect("git");
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    // Whoever served the push is gone with what it had still to say.
    assert!(!broken.status.success() && said.contains("Running release command"), "{said}");
    wait_until("the release's end", LONG, || current()["version"] == 3);
    let url = current()["output_stream_url"].as_str().expect("an address").to_owned();
    let output = Command::new("curl").args(["-sS", "-f", &url]).output().expect("curl");
    assert!(output.stdout.starts_with(b"begun\n"), "{output:?}");
    drop(app.try_push().success().says("is built already and what v3 runs"));
    drop(app.try_push().success().says("Everything up-to-date"));
    let (_, releases) = platform.api("GET", "/apps/outliving/releases", None);
    assert_eq!(releases.as_array().map(Vec::len), Some(3), "{releases}");
    let _answer = app.wait_for_answer();
}

/// Asks the app for a path over a connection of its own; the status, or 0 when none came.
fn status(address: &str, path: &str) -> u16 {
    let mut answer = String::new();
    let request = format!("GET {path} HTTP/1.1\r\nHost: upgraded.localhost\r\nConnection: close\r\n\r\n");
    // What came before a broken connection is looked at all the same.
    _ = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(LONG))?;
        stream.write_all(request.as_bytes())?;
        stream.read_to_string(&mut answer)
    });
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn an_upgrade_of_the_roles_loses_no_request() {
    let platform = platform().start();
    let app = App::plain(&platform, "upgraded");
    let _pushed = app.push();
    let shims = platform.shims();
    let (router, control) = (platform.role("router"), platform.role("control"));
    let address = platform.address("DOZEN_ROUTER_LISTEN");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Longer than the new router takes to start: the former one finishes it.
        let open = scope.spawn(|| status(&address, "/sleep/8"));
        // One request after the other, all through the change.
        let stream = scope.spawn(|| {
            let mut statuses = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                statuses.push(status(&address, "/"));
            }
            statuses
        });
        app.wait_for_log("path=\"/\"");
        platform.renew_roles();
        wait_until("the former router's end", LONG, || !platform.is_alive(router));
        wait_until("another control role", LONG, || platform.role("control") != control);
        ended.store(true, Ordering::Relaxed);
        assert_eq!(open.join().expect("an answer"), 200, "the request that was open");
        let statuses = stream.join().expect("answers");
        assert!(statuses.len() > 10 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
    });
    assert_ne!(platform.role("router"), router);
    assert_eq!(platform.shims(), shims);
    wait_until("the API to answer", LONG, || platform.api("GET", "/apps/upgraded", None).0 == 200);
}

#[test]
fn a_web_socket_gets_its_grace_when_the_router_is_replaced() {
    const GRACE: Duration = Duration::from_secs(2);
    let platform = platform().limit("router_drain_ms", GRACE.as_millis() as u64).start();
    let app = App::plain(&platform, "upgraded");
    let _pushed = app.push();
    let router = platform.role("router");
    let mut socket = TcpStream::connect(platform.address("DOZEN_ROUTER_LISTEN")).expect("the router accepts");
    socket.set_read_timeout(Some(LONG)).expect("a socket");
    let ask = "GET /socket HTTP/1.1\r\nHost: upgraded.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    socket.write_all(ask.as_bytes()).expect("the router reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let began = Instant::now();
    platform.renew_roles();
    let (mut echoes, mut echo) = (0, [0; 4]);
    while socket.write_all(b"ping").and_then(|()| socket.read_exact(&mut echo)).is_ok() {
        echoes += 1;
    }
    assert!(began.elapsed() >= GRACE && echoes > 0, "{echoes} echoes, cut after {:?}", began.elapsed());
    wait_until("the former router's end", LONG, || !platform.is_alive(router));
    app.wait_for_log("at=error code=H24 desc=\"Forced close\" method=GET path=\"/socket\"");
    assert_eq!(status(&platform.address("DOZEN_ROUTER_LISTEN"), "/"), 200);
}
