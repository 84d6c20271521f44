//! Timed jobs of a real app: made by the executable's own commands and by app.json, run once whatever is killed.

use dozen_testkit::{App, LONG, wait_for, wait_until};
use serde_json::Value;

use crate::platform;

#[test]
fn a_job_runs_once_whatever_is_killed_and_its_output_is_kept() {
    let platform = platform().start();
    let app = App::plain(&platform, "timed");
    app.write(
        "app.json",
        "{\"cron\": [{\"name\": \"often\", \"schedule\": \"* * * * *\", \"command\": \"echo by the clock\"}]}",
    );
    app.commit("a job");
    let _pushed = app.push();
    drop(platform.dozen(&["schedule", "-a", "timed"]).success().says("often").says("echo by the clock"));
    drop(
        platform
            .dozen(&[
                "schedule:add",
                "echo began; sleep 2; echo ended; exit 3",
                "-a",
                "timed",
                "--schedule",
                "@yearly",
                "--name",
                "slow",
            ])
            .success()
            .says("slow"),
    );
    let runs = |job: &str| platform.api("GET", &format!("/apps/timed/cron-jobs/{job}/runs"), None).1;
    let count = |job: &str| runs(job).as_array().map_or(0, Vec::len);
    for number in 1..=3 {
        drop(platform.dozen(&["schedule:run", "slow", "-a", "timed"]).success().says("scheduler."));
        // Sooner or later in the run's life: just written, being started, under way.
        if number > 1 {
            wait_until("the dyno to be there", LONG, || {
                let (_, dynos) = platform.api("GET", "/apps/timed/dynos", None);
                let is = |dyno: &Value| dyno["type"] == "scheduler" && (number < 3 || dyno["state"] == "up");
                dynos.as_array().is_some_and(|dynos| dynos.iter().any(is))
            });
        }
        platform.kill_role("control");
        let run = wait_for("the run to end", LONG, || {
            let run = runs("slow")[0].clone();
            (run["ended_at"].is_string()).then_some(run)
        });
        assert_eq!(
            (count("slow"), run["status"].as_str(), run["exit_status"].as_i64()),
            (number, Some("failed"), Some(3)),
            "{run}"
        );
        let output = platform.dozen(&["schedule:output", "slow", "-a", "timed"]).success().stdout;
        assert_eq!(output, "began\nended\n", "run {number}");
    }
    // What a control that was killed had no time to tell the log of is found there a moment later. The line that says
    // what is started holds the word as well.
    let began = || {
        let log = app.log();
        log.matches("began").count() - log.matches("Starting process with command `echo began").count()
    };
    wait_until("the output of all runs in the log", LONG, || began() >= 3);
    drop(platform.dozen(&["schedule:history", "slow", "-a", "timed"]).success().says("exit 3").says("manual"));
    assert_eq!(began(), 3, "{}", app.log());

    // The other one was due at a full minute meanwhile, or is soon; as often as the clock says, and no more.
    wait_until("the clock's job to run", LONG, || count("often") > 0);
    drop(platform.dozen(&["schedule:pause", "often", "-a", "timed"]).success());
    let times: Vec<Value> =
        runs("often").as_array().expect("runs").iter().map(|run| run["scheduled_at"].clone()).collect();
    assert!(times.windows(2).all(|pair| pair[0] != pair[1]), "{times:?}");

    // The add-on of that name is a way in for who knows it from elsewhere.
    drop(app.heroku(&["addons:create", "scheduler"]).says("free").says("dozen schedule:add"));
    let listed = app.heroku(&["addons"]).stdout;
    assert!(listed.contains("scheduler-") && listed.contains("SCHEDULER") && listed.contains("free"), "{listed}");
    drop(app.heroku(&["addons:info", "scheduler"]).says("scheduler:standard").says("timed::SCHEDULER"));
    drop(app.heroku(&["addons:services"]).says("scheduler"));
    drop(app.heroku(&["addons:plans", "scheduler"]).says("scheduler:standard"));
    drop(app.heroku(&["releases"]).says("Attach SCHEDULER (@ref:scheduler-"));
    drop(app.try_heroku(&["addons:create", "heroku-postgresql"]).failure().says("scheduler:standard"));
    drop(app.heroku(&["addons:destroy", "scheduler", "--confirm", "timed"]));
    drop(app.heroku(&["addons"]).says("No add-ons for app timed"));
    // Jobs that people made went with it; that of app.json is the code's.
    drop(platform.dozen(&["schedule", "-a", "timed"]).success().says("often").says_not("slow"));

    app.write("app.json", "{\"cron\": [{\"schedule\": \"every now and then\", \"command\": \"x\"}]}");
    app.commit("no schedule");
    drop(app.try_push().failure().says("The cron jobs of app.json cannot be used").says("is no schedule"));
    app.write("app.json", "{\"cron\": []}");
    app.commit("no jobs");
    let _pushed = app.push();
    drop(platform.dozen(&["schedule", "-a", "timed"]).success().says_not("often"));
}
