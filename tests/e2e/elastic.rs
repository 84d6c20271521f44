//! Autoscaling as people switch it, and an app that sleeps while nobody asks for it.

use dozen_testkit::{App, LONG, wait_until};
use serde_json::{Value, json};

use crate::platform;

/// The official client's `ps:autoscale` talks to a host of its own. An entry of `/etc/hosts` brings that here; a test must
/// not change the machine's, so it tells the client alone.
const RESOLVE: &str = "const dns = require('dns');
const lookup = dns.lookup;
dns.lookup = (name, ...rest) => lookup(name === 'api.metrics.heroku.com' ? 'localhost' : name, ...rest);
";

#[test]
fn the_official_client_switches_autoscaling_and_a_sleeping_app_wakes_for_its_first_request() {
    let platform = platform()
        .limit("autoscale_look_seconds", 1)
        .limit("autoscale_step_seconds", 1)
        .limit("autoscale_idle_seconds", 1)
        .limit("autoscale_sleep_seconds", 2)
        .start();
    let app = App::plain(&platform, "elastic");
    let _pushed = app.push();
    // The client lets only these sizes scale by themselves.
    drop(app.heroku(&["ps:type", "web=performance-m"]));
    app.write("../resolve.cjs", RESOLVE);
    let autoscale = |arguments: &[&str]| {
        let mut command = platform.client_command("heroku", app.directory());
        command.args(arguments).env("NODE_OPTIONS", "--require ../resolve.cjs");
        let output = command.env_remove("HTTP_PROXY").env_remove("HTTPS_PROXY").output().expect("the client");
        assert!(output.status.success(), "{output:?}");
    };
    let monitors = "/apps/elastic/formation/web/monitors";
    let quantity = || platform.api("GET", "/apps/elastic/formation/web", None).1["quantity"].as_u64();
    autoscale(&["ps:autoscale:enable", "--min", "2", "--max", "3", "--p95", "900"]);
    wait_until("two dynos", LONG, || quantity() == Some(2));
    app.wait_for_log("Scaled to web@2:Performance-M by autoscaling");
    autoscale(&["ps:autoscale:disable"]);
    let (_, there) = platform.api("GET", monitors, None);
    assert_eq!((there[0]["is_active"].as_bool(), there[0]["value"].as_u64()), (Some(false), Some(900)), "{there}");

    let path = format!("{monitors}/{}", there[0]["id"].as_str().expect("an id"));
    let asleep = json!({ "is_active": true, "min_quantity": 0, "max_quantity": 1 });
    assert_eq!(platform.api("PATCH", &path, Some(&asleep)).0, 200);
    wait_until("no dyno", LONG, || platform.shims().is_empty());
    app.wait_for_log("heroku[web.1]: Idling");
    let first = app.get("/");
    assert_eq!(first.status, 200, "{first:?}\n{}", app.log());
    app.wait_for_log("heroku[web.1]: Unidling");
    assert_ne!(platform.api("GET", &path, None).1, Value::Null);
}

#[test]
fn the_health_check_of_app_json_is_asked_before_the_cut_over() {
    let platform = platform().limit("boot_seconds", 10).start();
    let app = App::plain(&platform, "checked");
    app.write("app.json", "{\"healthchecks\": {\"web\": [{\"type\": \"startup\", \"path\": \"up\"}]}}");
    app.commit("a path without a slash");
    drop(app.try_push().failure().says("The health checks of app.json cannot be used").says("begin with a slash"));
    app.write("app.json", "{\"healthchecks\": {\"web\": [{\"type\": \"startup\", \"path\": \"/print/asked\"}]}}");
    app.commit("a path that is answered");
    let _pushed = app.push();
    app.wait_for_log("app[web.1]: asked");
    // A release whose check is never answered well is returned from; the former one serves meanwhile.
    app.write("app.json", "{\"healthchecks\": {\"web\": [{\"type\": \"startup\", \"path\": \"/file/nowhere\"}]}}");
    app.commit("a path that is not");
    drop(app.try_push().success());
    app.wait_for_log("Web process failed to answer /file/nowhere within 10 seconds of launch");
    wait_until("the return", LONG, || {
        let (_, current) = platform.api("GET", "/apps/checked/releases/current", None);
        current["description"].as_str().is_some_and(|text| text.starts_with("Return to"))
    });
    assert_eq!(app.get("/").status, 200);
}
