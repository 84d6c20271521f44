//! Who one is: whoami, login, logout, tokens, authorizations, further accounts.

use dozen_testkit::TestPlatform;

use crate::platform;

const ADMIN: &str = "admin@localhost.localdomain";

#[test]
fn whoami_and_token_tell_the_first_account() {
    let platform = platform().start();
    assert_eq!(platform.heroku(&["whoami"]).success().stdout.trim(), ADMIN);
    let token = platform.client_variable("HEROKU_API_KEY").expect("a token");
    assert_eq!(platform.heroku(&["auth:token"]).success().stdout.trim(), token);
    drop(platform.heroku_as("wrong", &["whoami"]).failure());
}

fn without_key(platform: &TestPlatform, arguments: &[&str]) -> std::process::Output {
    let mut command = platform.client_command("heroku", platform.data_dir());
    command.env_remove("HEROKU_API_KEY").args(arguments).output().expect("the CLI")
}

#[test]
fn one_logs_in_with_the_key_as_password_and_out_again() {
    let platform = platform().start();
    let token = platform.client_variable("HEROKU_API_KEY").expect("a token");
    let without = ["HEROKU_API_KEY"];
    let seen = platform.converse(&["login", "-i"], &without, &[], &[("Email", ADMIN), ("Password", &token)]);
    assert!(seen.contains("Logged in as"), "{seen}");

    let whoami = without_key(&platform, &["whoami"]);
    assert_eq!(String::from_utf8_lossy(&whoami.stdout).trim(), ADMIN, "{whoami:?}");
    let logout = without_key(&platform, &["logout"]);
    assert!(logout.status.success(), "{logout:?}");
    assert_eq!(without_key(&platform, &["whoami"]).status.code(), Some(100));
}

#[test]
fn authorizations_are_made_shown_and_revoked() {
    let platform = platform().start();
    let made = platform.heroku(&["authorizations:create", "-d", "deploys", "--short"]).success();
    let token = made.stdout.trim().to_owned();
    assert_eq!(platform.heroku_as(&token, &["whoami"]).success().stdout.trim(), ADMIN);
    drop(platform.heroku(&["authorizations"]).success().says("deploys"));
    let (status, list) = platform.api("GET", "/oauth/authorizations", None);
    assert_eq!(status, 200);
    let list = list.as_array().expect("a list").clone();
    let made = list.iter().find(|one| one["description"] == "deploys").expect("listed");
    let id = made["id"].as_str().expect("an id");
    drop(platform.heroku(&["authorizations:info", id]).success().says("deploys"));
    drop(platform.heroku(&["authorizations:update", id, "-d", "nightly"]).success());
    drop(platform.heroku(&["authorizations:rotate", id]).success());
    drop(platform.heroku_as(&token, &["whoami"]).failure());
    drop(platform.heroku(&["authorizations:revoke", id]).success());
    drop(platform.heroku(&["authorizations"]).success().says_not("nightly"));
}
