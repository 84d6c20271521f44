//! `kill -9` of any role or of the parent: no dyno stops, and the platform comes back and knows them all.

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
