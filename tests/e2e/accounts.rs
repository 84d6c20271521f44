//! Who one is: whoami, login, logout, tokens, authorizations, further accounts.

use std::{
    io::{Read, Write},
    process::{Child, Stdio},
};

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

/// Types an answer at each prompt of a program on a terminal.
fn converse(mut child: Child, answers: &[(&str, &str)]) -> String {
    let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut seen = String::new();
    let mut from = 0;
    for (prompt, answer) in answers {
        while !seen[from..].contains(prompt) {
            let mut bytes = [0; 4096];
            let n = output.read(&mut bytes).expect("read");
            assert!(n > 0, "no {prompt:?} in {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        from = seen.len();
        input.write_all(format!("{answer}\r").as_bytes()).expect("typed");
    }
    output.read_to_string(&mut seen).expect("read to the end");
    drop(input);
    assert!(child.wait().expect("a child").success(), "{seen}");
    seen
}

fn without_key(platform: &TestPlatform, arguments: &[&str]) -> std::process::Output {
    let mut command = platform.client_command("heroku", platform.data_dir());
    command.env_remove("HEROKU_API_KEY").args(arguments).output().expect("the CLI")
}

#[test]
fn one_logs_in_with_the_key_as_password_and_out_again() {
    let platform = platform().start();
    let token = platform.client_variable("HEROKU_API_KEY").expect("a token");
    let heroku = platform.client_command("heroku", platform.data_dir()).get_program().to_owned();
    let line = format!("{} login -i", heroku.display());
    let mut script = platform.client_command("script", platform.data_dir());
    script.env_remove("HEROKU_API_KEY").env_remove("CI").args(["-qec", &line, "/dev/null"]);
    let child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
    let seen = converse(child, &[("Email", ADMIN), ("Password", &token)]);
    assert!(seen.contains(&format!("Logged in as {ADMIN}")) || seen.contains("Logged in as"), "{seen}");

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
