//! `git push`: what is built, what is refused, and that the former release stands when something fails.

use std::process::Stdio;

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

#[test]
fn a_push_is_built_released_run_and_told() {
    let platform = platform().start();
    let app = App::plain(&platform, "pushed");
    let pushed = app.push();
    let pushed = pushed.says("remote: -----> ").says("Released v").says("http://pushed.localhost:");
    drop(pushed.says("deployed to Dozen").says_not("fatal"));
    drop(app.heroku(&["releases"]).says("Deploy").says("admin@localhost.localdomain"));
    drop(app.heroku(&["ps"]).says("web.1: up").says("server.py"));

    // The same again changes nothing.
    let again = app.try_push().success();
    drop(again.says("Everything up-to-date"));

    // A rewritten history is taken when forced.
    app.git(&["commit", "--amend", "-q", "-m", "rewritten"]);
    drop(app.try_push().failure());
    drop(platform.git(app.directory(), &["push", "--force", "heroku", "main"]).success().says("Released v"));
}

#[test]
fn another_branch_is_not_built_and_says_so() {
    let platform = platform().start();
    let app = App::plain(&platform, "branched");
    let pushed = platform.git(app.directory(), &["push", "heroku", "main:feature"]);
    drop(pushed.says("Pushed to non-main branch"));
    assert_eq!(app.get("/").status, 503, "nothing was released");
    drop(platform.git(app.directory(), &["push", "heroku", "main:master"]).success().says("Released v"));
}

#[test]
fn a_broken_push_leaves_the_former_release_as_it_is() {
    let platform = platform().start();
    let app = App::plain(&platform, "broken");
    let _pushed = app.push();
    let releases = || platform.api("GET", "/apps/broken/releases", None).1;
    let before = releases();
    app.write("Procfile", "web /usr/bin/python3 server.py\n");
    app.commit("a Procfile without a colon");
    drop(app.try_push().failure().says("Procfile").says("pre-receive hook declined"));
    assert_eq!(releases(), before);
    assert_eq!(app.get("/").status, 200);
    app.write("Procfile", "web: /usr/bin/python3 -u server.py\n");
    app.commit("mended");
    let _pushed = app.push();
}

#[test]
fn of_two_pushes_at_once_one_is_refused() {
    let platform = platform().start();
    let app = App::create(&platform, "crowded");
    app.write("Procfile", "web: /usr/bin/python3 -u server.py\n");
    app.write("server.py", App::SERVER);
    app.write("requirements.txt", "");
    app.write("bin/post_compile", "#!/bin/sh\nwhile [ -e /cache/never ]; do :; done\nsleep 15\n");
    app.commit("slow to build");
    app.git(&["update-index", "--chmod=+x", "bin/post_compile"]);
    app.git(&["commit", "-q", "-m", "executable"]);
    let mut first = platform.client_command("git", app.directory());
    let first = first.args(["push", "heroku", "main"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let first = first.spawn().expect("git");
    app.wait_for_log("Build started");
    drop(app.try_push().failure().says("Another build is in progress"));
    let first = first.wait_with_output().expect("git");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
}

#[test]
fn who_may_not_push_does_not() {
    let platform = platform().start();
    let app = App::plain(&platform, "guarded");
    let mut push = platform.client_command("git", app.directory());
    let refused = push.env("HEROKU_API_KEY", "wrong").args(["push", "heroku", "main"]).output().expect("git");
    assert!(!refused.status.success());
    let url = format!(
        "https://localhost:{}/no-such-app.git",
        platform.address("DOZEN_TLS_LISTEN").rsplit(':').next().expect("a port")
    );
    drop(platform.git(app.directory(), &["push", &url, "main"]).failure());
}

#[test]
fn a_push_that_is_cut_off_leaves_nothing_and_the_next_one_works() {
    let platform = platform().start();
    let app = App::create(&platform, "cut-off");
    app.write("Procfile", "web: /usr/bin/python3 -u server.py\n");
    app.write("server.py", App::SERVER);
    app.write("requirements.txt", "");
    app.write("bin/post_compile", "#!/bin/sh\n[ -e /cache/once ] || { touch /cache/once; sleep 60; }\n");
    app.commit("slow to build, once");
    app.git(&["update-index", "--chmod=+x", "bin/post_compile"]);
    app.git(&["commit", "-q", "-m", "executable"]);
    let mut first = platform.client_command("git", app.directory());
    let mut first = first.args(["push", "heroku", "main"]).stderr(Stdio::null()).spawn().expect("git");
    app.wait_for_log("Build started");
    // Control dies with the push in its hands; the pusher's connection dies with it.
    platform.kill_role("control");
    let status = first.wait().expect("a child");
    assert!(!status.success(), "a push that nobody took was reported as taken");
    wait_until("the interrupted build to be told as failed", LONG, || {
        let (_, builds) = platform.api("GET", "/apps/cut-off/builds", None);
        builds[0]["status"] == "failed"
    });
    let (_, releases) = platform.api("GET", "/apps/cut-off/releases", None);
    assert!(!releases.as_array().expect("a list").iter().any(|release| release["slug"].is_object()), "{releases}");
    app.write("bin/post_compile", "#!/bin/sh\ntrue\n");
    app.commit("fast");
    let _pushed = app.push();
    drop(platform.dozen(&["ledger:verify"]).success().says_not("FAULT"));
}

#[test]
fn a_push_of_100_mb_is_taken() {
    let platform = platform().start();
    let app = App::plain(&platform, "large");
    // What no compression makes smaller: a generator's output.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(100 << 20);
    while bytes.len() < 100 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    std::fs::write(app.directory().join("large.bin"), &bytes).expect("written");
    app.commit("a large file");
    let _pushed = app.push();
}
