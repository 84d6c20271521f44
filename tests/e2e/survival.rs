//! `kill -9` of any role or of the parent: no dyno stops, and the platform comes back and knows them all.

use std::process::{Command, Stdio};

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
