//! Config vars: every change is a release, dynos see it, values are not told to strangers.

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

#[test]
fn config_vars_are_set_shown_edited_and_unset() {
    let platform = platform().start();
    let app = App::create(&platform, "configured");
    drop(app.heroku(&["config:set", "GREETING=hello world", "EMPTY="]).says("v"));
    assert_eq!(app.heroku(&["config:get", "GREETING"]).stdout.trim(), "hello world");
    drop(app.heroku(&["config"]).says("GREETING: hello world"));
    assert_eq!(
        app.heroku(&["config", "-s"]).stdout.lines().find(|l| l.starts_with("GREETING")),
        Some("GREETING='hello world'")
    );
    drop(app.heroku(&["releases"]).says("Set GREETING, EMPTY config vars").says_not("hello world"));

    // The editor gets a file of assignments and its result is what holds.
    let editor = app.directory().join("../editor.sh");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/hello world/salut/' \"$1\"\n").expect("written");
    let chmod = std::process::Command::new("chmod").arg("755").arg(&editor).status().expect("chmod");
    assert!(chmod.success());
    let editor = editor.display().to_string();
    let seen =
        platform.converse(&["config:edit", "-a", "configured"], &[], &[("EDITOR", &editor)], &[("Update config", "y")]);
    assert!(seen.contains("salut"), "{seen}");
    assert_eq!(app.heroku(&["config:get", "GREETING"]).stdout.trim(), "salut");

    drop(app.heroku(&["config:unset", "GREETING"]).says("v"));
    assert_eq!(app.heroku(&["config:get", "GREETING"]).stdout.trim(), "");
    drop(app.heroku(&["releases"]).says("Remove GREETING config vars"));
    drop(app.try_heroku(&["config:set", "nonsense"]).failure());
}

#[test]
fn dynos_restart_with_a_changed_config() {
    let platform = platform().start();
    let app = App::plain(&platform, "restarted");
    let _pushed = app.push();
    drop(app.heroku(&["config:set", "MARK=fresh"]));
    wait_until("the new config var in an answer", LONG, || app.get("/").body.contains("fresh"));
    let environment: serde_json::Value = serde_json::from_str(&app.get("/env").body).expect("JSON");
    assert_eq!(environment["DYNO"], "web.1");
    assert_eq!(environment["HOME"], "/app");
    assert_eq!(environment["HEROKU_APP_NAME"], "restarted");
    assert!(environment["PORT"].is_string());
    let names: Vec<_> = environment.as_object().expect("an object").keys().collect();
    assert!(!names.iter().any(|name| name.starts_with("DOZEN_")), "{names:?}");
}
