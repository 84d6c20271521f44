//! `git push`: what is built, what is refused, and that the former release stands when something fails.

use std::process::Stdio;

use dozen_testkit::App;

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
    app.write("bin/post_compile", "#!/bin/sh\nwhile [ -e /cache/never ]; do :; done\nsleep 5\n");
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
