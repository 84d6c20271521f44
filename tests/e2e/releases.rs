//! Releases: listed, shown, rolled back; the release phase; the ledger.

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

#[test]
fn a_rollback_is_a_new_release_of_the_old_slug_and_config() {
    let platform = platform().start();
    let app = App::plain(&platform, "rolled");
    let _pushed = app.push();
    let (_, releases) = platform.api("GET", "/apps/rolled/releases", None);
    let deployed = releases.as_array().expect("a list").last().expect("a release")["version"].clone();
    drop(app.heroku(&["config:set", "MARK=later"]));
    wait_until("the config var", LONG, || app.get("/").body.contains("later"));
    drop(app.heroku(&["rollback", &format!("v{deployed}")]).says("done"));
    wait_until("the former config", LONG, || {
        let answer = app.get("/");
        answer.status == 200 && !answer.body.contains("later")
    });
    drop(app.heroku(&["releases"]).says(&format!("Rollback to v{deployed}")));
    drop(app.heroku(&["releases:info", &format!("v{deployed}")]).says("Deploy"));
    drop(app.try_heroku(&["rollback", "v99"]).failure());
    drop(platform.dozen(&["ledger:verify"]).success().says("rolled:").says_not("FAULT"));
}

#[test]
fn a_failed_release_phase_keeps_the_former_release() {
    let platform = platform().start();
    let app = App::plain(&platform, "phased");
    let _pushed = app.push();
    app.write("Procfile", "web: /usr/bin/python3 -u server.py\nrelease: echo migrating; exit 4\n");
    app.commit("a release phase that fails");
    drop(app.try_push().says("migrating"));
    wait_until("the release to have failed", LONG, || {
        let (_, releases) = platform.api("GET", "/apps/phased/releases", None);
        releases.as_array().expect("a list").last().expect("a release")["status"] == "failed"
    });
    assert_eq!(app.get("/").status, 200);
    drop(app.heroku(&["releases:output"]).says("migrating"));
    app.write("Procfile", "web: /usr/bin/python3 -u server.py\nrelease: echo migrating; exit 0\n");
    app.commit("mended");
    drop(app.try_push().success());
    wait_until("the release to be in force", LONG, || {
        let (_, releases) = platform.api("GET", "/apps/phased/releases", None);
        let newest = releases.as_array().expect("a list").last().expect("a release").clone();
        newest["status"] == "succeeded" && newest["current"] == true
    });
}
