//! `heroku drains`: lines of a real app at a receiver of its owner's, whatever is killed, and nothing about it elsewhere.

use std::{net::TcpListener, time::Duration};

use dozen_testkit::{App, receivers::Syslog, wait_until};

use crate::platform;

const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_drain_gets_the_lines_of_the_app_whatever_is_killed() {
    let platform = platform().variable("DOZEN_DRAIN_ALLOW_NETWORKS", "127.0.0.1/32").start();
    let app = App::plain(&platform, "drained");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(Syslog::start());
    let url = server.url.clone();
    let wait_for = |text: &str| {
        wait_until(&format!("{text:?} at the receiver"), LONG, || {
            server.inbox.all().iter().any(|message| message.contains(text))
        });
    };
    drop(app.heroku(&["drains:add", &url]).says(&format!("Successfully added drain {url}")));
    drop(app.heroku(&["drains", "--extended"]).says(&url).says("(d.").says_not("Add-on Drains"));
    drop(app.heroku(&["drains", "--json"]).says(&format!("\"url\": \"{url}\"")).says("\"addon\": null"));
    let _pushed = app.push();
    wait_for(" app build - - -----> ");
    wait_for(" heroku web.1 - - State changed from starting to up");
    assert_eq!(app.get("/print/needle").status, 200);
    wait_for(" app web.1 - - needle");
    // Control is not needed for draining, and what a killed role had left to do is done by the next one.
    platform.kill_role("control");
    platform.kill_role("logs");
    assert_eq!(app.get("/print/second").status, 200);
    wait_for(" app web.1 - - second");

    let own = platform.address("DOZEN_API_LISTEN");
    let refused = app.try_heroku(&["drains:add", &format!("http://{own}/")]).failure();
    drop(refused.says("own listeners")); // the client breaks its lines
    let refused = app.try_heroku(&["drains:add", "http://169.254.169.254/"]).failure();
    drop(refused.says("DOZEN_DRAIN_ALLOW_NETWORKS"));
    drop(app.heroku(&["drains:remove", &url]).says(&format!("Successfully removed drain {url}")));
    assert_eq!(app.heroku(&["drains"]).stdout, "");
}

#[test]
fn the_platforms_own_output_is_records_that_hold_no_secret() {
    let platform = platform()
        .variable("DOZEN_DRAIN_ALLOW_NETWORKS", "127.0.0.1/32")
        .variable("DOZEN_LOG", "debug")
        .variable("DOZEN_LOG_FORMAT", "json")
        .start();
    let app = App::plain_without_cli(&platform, "discreet");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener); // both drains fail, and are told to
    let body = serde_json::json!({"url": format!("http://me:hunter2-password@{address}/in?key=hunter2-query")});
    assert_eq!(platform.api("POST", "/apps/discreet/log-drains", Some(&body)).0, 201);
    let (_, shown) = platform.api("GET", "/apps/discreet", None);
    let exporter = serde_json::json!({
        "type": "otlphttp", "endpoint": format!("http://{address}"), "headers": {"api-key": "hunter2-header"}
    });
    let owner = serde_json::json!({"id": shown["id"], "type": "app"});
    let body = serde_json::json!({"owner": owner, "signals": ["logs", "metrics", "traces"], "exporter": exporter});
    let (status, made) = platform.api("POST", "/telemetry-drains", Some(&body));
    assert_eq!((status, &made["signals"]), (201, &serde_json::json!(["traces", "metrics", "logs"])));
    let body = serde_json::json!({"SECRET_KEY": "hunter2-variable"});
    assert_eq!(platform.api("PATCH", "/apps/discreet/config-vars", Some(&body)).0, 200);
    let (_, session) = platform.api("POST", "/apps/discreet/log-sessions", Some(&serde_json::json!({"tail": false})));
    let url = session["logplex_url"].as_str().expect("a URL");
    let read = std::process::Command::new("curl").args(["-sS", url]).output().expect("curl");
    assert!(read.status.success() && !read.stdout.is_empty());
    let _pushed = app.push(); // a build and dynos, both with the variable
    assert_eq!(app.get("/print/needle").status, 200);
    platform.kill_role("logs");
    platform.kill_role("control");
    let (status, _) = platform.api("GET", "/apps/discreet", None);
    assert_eq!(status, 200);
    wait_until("both drains to fail", LONG, || platform.output().matches("a drain fails").count() >= 2);

    let output = platform.output();
    let key = platform.client_variable("HEROKU_API_KEY").expect("a key");
    let token = url.split_once("token=").expect("a token").1;
    for secret in ["hunter2", key.as_str(), token] {
        let told = output.lines().find(|line| line.contains(secret));
        assert_eq!(told, None, "a secret is in the platform's own output");
    }
    // Every line is a record, none is there twice, and the first words of each are the same.
    let mut seen = std::collections::BTreeSet::new();
    for line in output.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no record: {line}"));
        let keys: Vec<&String> = record.as_object().expect("an object").keys().take(4).collect();
        assert_eq!(keys, ["time", "level", "target", "msg"]);
        assert!(seen.insert(line), "twice: {line}");
    }
    assert!(seen.len() > 10, "{output}");
}
