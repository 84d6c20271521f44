//! An app's life: made with and without a name, listed, shown, renamed, destroyed; remotes and clones.

use dozen_testkit::App;

use crate::{normalised, platform};

#[test]
fn apps_are_made_listed_shown_renamed_and_destroyed() {
    let platform = platform().start();
    drop(platform.heroku(&["apps"]).success().says("You have no apps."));
    let folder = platform.scratch("empty");
    let unnamed = platform.heroku_in(&folder, &["create"]).success();
    let name = unnamed.stdout.split("://").nth(1).and_then(|rest| rest.split('.').next()).expect("a name").to_owned();
    drop(platform.heroku(&["create", "first-app"]).success().says("https://localhost:"));
    drop(platform.heroku(&["create", "first-app"]).failure().says("Name first-app is already taken"));
    drop(platform.heroku(&["create", "No"]).failure());
    drop(platform.heroku(&["apps"]).success().says("first-app").says(&name));
    let info = normalised(&platform.heroku(&["apps:info", "-a", "first-app"]).success().stdout);
    for part in ["=== first-app", "Git URL:", "https://localhost:PORT/first-app.git", "admin@localhost.localdomain"] {
        assert!(info.contains(part), "no {part:?} in {info}");
    }
    drop(platform.heroku(&["apps:rename", "second-app", "-a", "first-app"]).success());
    drop(platform.heroku(&["apps:info", "-a", "first-app"]).failure().says("Couldn't find that app."));
    drop(platform.heroku(&["apps:destroy", "-a", "second-app", "--confirm", "wrong"]).failure());
    drop(platform.heroku(&["apps:destroy", "-a", "second-app", "--confirm", "second-app"]).success());
    drop(platform.heroku(&["apps:info", "-a", "second-app"]).failure());
}

#[test]
fn the_executables_own_commands_do_without_the_cli() {
    let platform = platform().start();
    let folder = platform.scratch("repository");
    drop(platform.git(&folder, &["init", "-q"]).success());
    drop(platform.dozen(&["apps:create", "small", "--no-remote"]).success().says("http://small.localhost:"));
    drop(platform.dozen(&["apps"]).success().says("small"));
    drop(platform.dozen(&["config:set", "A=1", "-a", "small"]).success().says("Setting A").says("v"));
    drop(platform.dozen(&["config", "-a", "small"]).success().says("A:  1"));
    drop(platform.dozen(&["releases", "-a", "small"]).success().says("Set A config vars").says("(current)"));
    drop(platform.dozen(&["apps:info", "-a", "small"]).success().says("=== small"));
    drop(platform.dozen(&["ps", "-a", "small"]).success().says("No dynos on small"));
    drop(platform.dozen(&["apps:destroy", "-a", "small", "--confirm", "other"]).failure());
    drop(platform.dozen(&["apps:destroy", "-a", "small", "--confirm", "small"]).success());
    drop(platform.dozen(&["apps:info", "-a", "small"]).failure().says("Couldn't find that app."));
}

#[test]
fn remotes_are_set_and_what_was_pushed_is_cloned() {
    let platform = platform().start();
    let app = App::plain(&platform, "cloned");
    let _pushed = app.push();
    let elsewhere = platform.scratch("elsewhere");
    drop(platform.heroku_in(&elsewhere, &["git:clone", "-a", "cloned", "copy"]).success());
    assert!(elsewhere.join("copy/Procfile").exists());
    let other = platform.scratch("other");
    drop(platform.git(&other, &["init", "-q"]).success());
    drop(platform.heroku_in(&other, &["git:remote", "-a", "cloned"]).success());
    let url = platform.git(&other, &["remote", "get-url", "heroku"]).success().stdout;
    assert_eq!(normalised(&url), "https://localhost:PORT/cloned.git");
}

#[test]
fn the_plain_lists_are_there() {
    let platform = platform().start();
    drop(platform.heroku(&["regions"]).success());
    let app = App::create(&platform, "lists");
    drop(app.heroku(&["stack"]).says("heroku-24"));
    let (status, _) = platform.api("GET", "/stacks", None);
    assert_eq!(status, 200);
    let (status, error) = platform.api("GET", "/no/such/route", None);
    assert_eq!((status, &error["id"]), (404, &"not_found".into()));
}
