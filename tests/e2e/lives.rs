//! A dyno's life as its owner reads it: signals and their times, crashes, cycling, a release that never comes up.
//!
//! Times are compared as the platform itself and the app write them, several dynos at once, and the median counts: the
//! machine that runs the tests is busy, and what it does to one dyno is not what the platform promises.

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

/// Notes each signal with its time, and ends only when told so by SIGKILL or, if asked to behave, at once.
const RECORDER: &str = include_str!("recorder.py");

/// One line of an app's log.
#[derive(Debug)]
pub(crate) struct Line {
    /// Microseconds since 1970.
    pub(crate) at: i64,
    /// `heroku[web.1]`
    pub(crate) who: String,
    pub(crate) text: String,
}

/// An app's log.
pub(crate) fn lines(app: &App<'_>) -> Vec<Line> {
    let line = |line: &str| {
        let (at, rest) = line.split_once(' ')?;
        let (who, text) = rest.split_once(": ")?;
        let at = at.parse::<jiff::Timestamp>().ok()?.as_microsecond();
        Some(Line { at, who: who.to_owned(), text: text.to_owned() })
    };
    app.log().lines().filter_map(line).collect()
}

fn of<'a>(lines: &'a [Line], who: &str) -> Vec<&'a Line> {
    lines.iter().filter(|line| line.who == who).collect()
}

fn find<'a>(lines: &[&'a Line], text: &str) -> &'a Line {
    lines.iter().find(|line| line.text.contains(text)).unwrap_or_else(|| panic!("no {text:?} in {lines:#?}"))
}

/// An app whose processes note their signals.
pub(crate) fn recorder<'a>(platform: &'a dozen_testkit::TestPlatform, name: &str, procfile: &str) -> App<'a> {
    let app = App::create(platform, name);
    app.write("recorder.py", RECORDER);
    app.write("Procfile", procfile);
    app.commit("a recorder");
    app
}

/// Asserts that a dyno's times differ from what is documented by 50 ms at most, in the median.
#[track_caller]
fn on_time(what: &str, documented_ms: i64, measured_us: &mut [i64]) {
    measured_us.sort_unstable();
    let median = measured_us[measured_us.len() / 2];
    let off = median - documented_ms * 1000;
    assert!((-50_000..=50_000).contains(&off), "{what} after {documented_ms} ms: {measured_us:?} us");
}

#[test]
fn a_dyno_is_asked_to_stop_and_killed_when_it_is_documented() {
    let platform = platform().limit("stop_seconds", 2).start();
    let app = recorder(&platform, "stubborn", "worker: exec /usr/bin/python3 -u recorder.py stay\n");
    drop(app.try_push().success());
    drop(app.heroku(&["ps:scale", "worker=5"]));
    wait_until("five dynos", LONG, || app.log().matches("app[worker.").count() == 5);
    drop(app.heroku(&["ps:scale", "worker=0"]));
    wait_until("their ends", LONG, || app.log().matches("Process exited with status 137").count() == 5);
    let lines = lines(&app);
    let (mut killed, mut heard) = (Vec::new(), Vec::new());
    for n in 1..=5 {
        let said = of(&lines, &format!("heroku[worker.{n}]"));
        let texts: Vec<&str> = said.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "State changed from down to starting",
                "Starting process with command `exec /usr/bin/python3 -u recorder.py stay`",
                "State changed from starting to up",
                "State changed from up to down",
                "Stopping all processes with SIGTERM",
                "Error R12 (Exit timeout) -> Process failed to exit within 2 seconds of SIGTERM",
                "Stopping process with SIGKILL",
                "Process exited with status 137",
            ]
        );
        let own = lines.iter().filter(|line| line.who == format!("app[worker.{n}]") && line.text.contains("SIGTERM"));
        let own: Vec<i64> = own.filter_map(|line| line.text.rsplit(' ').next()?.parse().ok()).collect();
        assert_eq!(own.len(), 1, "one SIGTERM each: {lines:#?}");
        let asked = find(&said, "Stopping all processes");
        heard.push(own[0] - asked.at);
        killed.push(find(&said, "Error R12").at - own[0]);
    }
    on_time("SIGTERM after the line that says so", 0, &mut heard);
    on_time("SIGKILL after SIGTERM", 2_000, &mut killed);
}

#[test]
fn an_app_chooses_boot_timeout_stop_signal_and_grace() {
    let platform = platform().limit("crash_backoff_seconds", 600).start();
    let procfile =
        "web: exec /usr/bin/python3 -u recorder.py stay\nworker: exec /usr/bin/python3 -u recorder.py leave\n";
    let app = recorder(&platform, "choosy", procfile);
    drop(app.try_heroku(&["config:set", "DOZEN_STOP_SIGNAL_WORKER=SIGNOTHING"]).failure().says("SIGQUIT"));
    drop(app.try_heroku(&["config:set", "BOOT_TIMEOUT=181"]).failure().says("from 1 to"));
    drop(app.heroku(&["config:set", "BOOT_TIMEOUT=2", "DOZEN_STOP_SIGNAL_WORKER=SIGQUIT"]));
    drop(app.try_push().success());
    drop(app.heroku(&["ps:scale", "worker=1"]));
    app.wait_for_log("app[worker.1]: up");
    // The first start and the restart that follows at once; the next one is far away.
    wait_until("two boot timeouts", LONG, || app.log().matches("State changed from starting to crashed").count() == 2);
    wait_until("H10", LONG, || app.get("/").status == 503);
    app.wait_for_log("code=H10");
    drop(app.heroku(&["ps:scale", "worker=0", "web=0"]));
    app.wait_for_log("heroku[worker.1]: Stopping all processes with SIGQUIT");
    app.wait_for_log("app[worker.1]: SIGQUIT");
    app.wait_for_log("heroku[worker.1]: Process exited with status 7");
    let lines = lines(&app);
    let said = of(&lines, "heroku[web.1]");
    let r10 = "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 2 seconds of launch";
    let launches = said.iter().filter(|line| line.text.starts_with("Starting process"));
    let mut took: Vec<i64> =
        launches.zip(said.iter().filter(|line| line.text == r10)).map(|(launch, error)| error.at - launch.at).collect();
    assert_eq!(took.len(), 2, "{said:#?}");
    took.sort_unstable();
    // Measured from the line before the container is made, which takes some milliseconds.
    assert!((2_000_000..2_250_000).contains(&took[0]), "{took:?} us");
}

#[test]
fn crashes_are_followed_by_longer_and_longer_pauses() {
    let platform = platform().limit("crash_backoff_seconds", 1).limit("crash_backoff_max_seconds", 2).start();
    let app = recorder(&platform, "unlucky", "worker: exit 3\n");
    drop(app.try_push().success());
    drop(app.heroku(&["ps:scale", "worker=1"]));
    wait_until("five crashes", LONG, || app.log().matches("State changed from up to crashed").count() >= 5);
    let lines = lines(&app);
    let said = of(&lines, "heroku[worker.1]");
    let times = |text: &str| -> Vec<i64> { said.iter().filter(|line| line.text == text).map(|line| line.at).collect() };
    let (crashed, again) = (times("State changed from up to crashed"), times("State changed from crashed to starting"));
    let pauses: Vec<i64> = again.iter().zip(&crashed).map(|(again, crashed)| again - crashed).collect();
    for (n, (pause, documented)) in pauses.iter().zip([0, 1_000_000, 2_000_000, 2_000_000]).enumerate() {
        let late = pause - documented;
        assert!((0..500_000).contains(&late), "restart {n} after {pause} us in place of {documented}");
    }
}

#[test]
fn a_release_that_never_comes_up_is_returned_from_and_no_request_fails() {
    let platform = platform().limit("push_wait_seconds", 60).start();
    let app = App::plain(&platform, "careful");
    let _pushed = app.push();
    app.write("Procfile", "web: echo broken; exit 9\nworker: exec sleep 100000\n");
    app.commit("broken");
    let pushed = app.try_push().success().says("did not come up").says("now as v5");
    drop(pushed);
    assert_eq!(app.get("/").status, 200, "{}", app.log());
    drop(app.heroku(&["releases"]).says("Return to v3: v4 did not come up"));
    app.wait_for_log("app[api]: Return to v3: v4 did not come up");
    wait_until("dynos of the release that was returned to", LONG, || {
        let (_, dynos) = platform.api("GET", "/apps/careful/dynos", None);
        let dynos = dynos.as_array().expect("a list").clone();
        dynos.len() == 1 && dynos[0]["release"]["version"] == 5 && dynos[0]["state"] == "up"
    });
    assert_eq!(app.get("/").status, 200, "{}", app.log());
    // It works: the next push goes through.
    app.write("Procfile", "web: /usr/bin/python3 -u server.py\n");
    app.commit("mended");
    let _pushed = app.push();
}
