//! Dynos: scaled, typed, restarted, stopped, waited for; crashes come back.

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

#[test]
fn dynos_are_scaled_typed_restarted_and_stopped() {
    let platform = platform().start();
    let app = App::plain(&platform, "scaled");
    let _pushed = app.push();
    drop(app.heroku(&["ps:scale", "web=2", "worker+1"]).says("web at 2:").says("worker at 1:"));
    drop(app.heroku(&["ps:wait"]));
    drop(app.heroku(&["ps"]).says("web.1: up").says("web.2: up").says("worker.1: up"));
    drop(app.heroku(&["ps:scale"]).says("web=2:").says("worker=1:"));
    let answers = || app.get("/").body;
    wait_until("answers from both dynos", LONG, || {
        let said: Vec<String> = (0..16).map(|_| answers()).collect();
        said.iter().any(|body| body.contains("web.1")) && said.iter().any(|body| body.contains("web.2"))
    });

    drop(app.heroku(&["ps:type", "worker=standard-2x"]).says("Standard-2X"));
    drop(app.try_heroku(&["ps:type", "worker=enormous"]).failure().says("No such size"));

    let shims = platform.shims();
    drop(app.heroku(&["ps:restart"]));
    wait_until("new dynos in place of all", LONG, || {
        let now = platform.shims();
        now.len() == 3 && !now.iter().any(|pid| shims.contains(pid))
    });
    app.wait_for_log("asked to stop");
    drop(app.heroku(&["ps:wait"]));

    drop(app.heroku(&["ps:stop", "worker.1"]));
    drop(app.heroku(&["ps:scale", "web=0", "worker=0"]));
    wait_until("no dyno", LONG, || platform.shims().is_empty());
    wait_until("H14", LONG, || app.get("/").status == 503);
    app.wait_for_log("code=H14");
}

#[test]
fn a_crash_is_told_and_restarted() {
    let platform = platform().start();
    let app = App::plain(&platform, "crashing");
    let _pushed = app.push();
    let crashed = app.get("/crash");
    assert_eq!(crashed.status, 503, "{crashed:?}");
    app.wait_for_log("Process exited with status 3");
    app.wait_for_log("State changed from up to crashed");
    let _answer = app.wait_for_answer();
    app.wait_for_log("State changed from crashed to starting");
}

#[test]
fn a_dyno_cannot_see_the_machine_and_loses_what_it_writes() {
    let platform = platform().start();
    let app = App::plain(&platform, "walled");
    let _pushed = app.push();
    assert_eq!(app.get("/file/proc/1/comm").status, 200);
    for hidden in ["etc/shadow", &platform.data_dir().join("admin.json").display().to_string()[1..], "root/.profile"] {
        assert_eq!(app.get(&format!("/file/{hidden}")).status, 404, "{hidden}");
    }
    assert_eq!(app.get("/write/note").status, 200);
    assert_eq!(app.get("/file/app/note").body, "written");
    drop(app.heroku(&["ps:restart", "web.1"]));
    wait_until("a fresh dyno", LONG, || {
        let note = app.get("/file/app/note");
        note.status == 404
    });
}
