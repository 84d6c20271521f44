//! `heroku logs`: one ordered stream, its filters, its tail.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use dozen_testkit::App;

use crate::platform;

#[test]
fn the_stream_holds_app_router_and_platform_lines_and_can_be_filtered() {
    let platform = platform().start();
    let app = App::plain(&platform, "logged");
    let _pushed = app.push();
    drop(app.heroku(&["ps:scale", "worker=1"]));
    assert_eq!(app.get("/print/needle").status, 200);
    app.wait_for_log("app[web.1]: needle");
    app.wait_for_log("path=\"/print/needle\"");
    app.wait_for_log("app[worker.1]: working");
    let all = app.heroku(&["logs", "-n", "1500"]);
    let all =
        all.says("app[api]: ").says("heroku[web.1]: State changed from starting to up").says("heroku[router]: at=info");
    drop(all.says("app[web.1]: listening"));

    let one = app.heroku(&["logs", "-n", "1"]).stdout;
    assert_eq!(one.lines().count(), 1, "{one}");
    drop(app.heroku(&["logs", "-n", "1500", "--source", "heroku"]).says("heroku[").says_not("app["));
    drop(app.heroku(&["logs", "-n", "1500", "--source", "app"]).says("app[").says_not("heroku["));
    drop(app.heroku(&["logs", "-n", "1500", "--dyno-name", "web.1"]).says("[web.1]").says_not("[worker.1]"));
    drop(app.heroku(&["logs", "-n", "1500", "--process-type", "worker"]).says("[worker.1]").says_not("[web.1]"));
    drop(app.heroku(&["logs", "-n", "1500", "-d", "worker.1"]).says("[worker.1]").says_not("[web.1]"));
    drop(app.heroku(&["logs", "-n", "1500", "--dyno", "web.1", "--no-color"]).says("app[web.1]: needle"));
    drop(app.heroku(&["logs", "-n", "1500", "--ps", "web", "-s", "app", "--force-colors"]).says("needle"));
    let both = app.heroku(&["logs", "--num", "1500", "--source", "heroku", "--process-type", "web"]);
    drop(both.says("heroku[web.1]: State changed").says_not("app[").says_not("heroku[router]"));
    drop(app.heroku(&["logs", "-n", "1500", "--dyno-name", "router"]).says("at=info").says_not("[web.1]:"));

    platform.stop_server();
    platform.start_server();
    assert!(app.log().contains("app[web.1]: needle"), "history is kept over a restart");
}

#[test]
fn a_tail_shows_new_lines_as_they_come() {
    let platform = platform().start();
    let app = App::plain(&platform, "tailed");
    let _pushed = app.push();
    let mut tail = platform.client_command("heroku", app.directory());
    let mut tail = tail.args(["logs", "--tail"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the CLI");
    let mut lines = BufReader::new(tail.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening")), "history comes first");
    assert_eq!(app.get("/print/fresh-line").status, 200);
    assert!(lines.any(|line| line.contains("app[web.1]: fresh-line")));
    tail.kill().expect("a child");
    let _status = tail.wait().expect("a child");
}
