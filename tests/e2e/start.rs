//! Starting: what the platform says, what it refuses, and why.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use dozen_testkit::TestPlatform;

use crate::platform;

#[test]
fn the_first_start_says_in_few_lines_where_everything_is_and_the_second_less() {
    let platform = platform().start();
    let first = platform.output();
    let greeting = first.split_once("Dozen ").expect("a greeting").1;
    assert!(greeting.lines().count() <= 15, "{first}");
    for part in ["API   http://localhost:", "apps  http://<app>.localhost:", "dozen env", "First start"] {
        assert!(greeting.contains(part), "no {part:?} in {first}");
    }
    platform.stop_server();
    platform.start_server();
    assert_eq!(platform.output().matches("First start").count(), 1);
    assert_eq!(platform.output().matches("is ready.").count(), 2);
}

#[test]
fn what_is_secret_is_readable_by_its_owner_alone() {
    let platform = platform().start();
    for path in ["", "admin.json", "tls/ca.key", "keys"] {
        let path = platform.data_dir().join(path);
        let mode = fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions();
        assert_eq!(mode.mode() & 0o077, 0, "{}", path.display());
    }
    let admin = fs::read_to_string(platform.data_dir().join("admin.json")).expect("the account");
    let admin: serde_json::Value = serde_json::from_str(&admin).expect("JSON");
    let key = admin["api_key"].as_str().expect("a key");
    assert!(!platform.output().contains(key), "the key was printed");
}

#[test]
fn a_second_start_on_the_same_data_directory_is_refused() {
    let platform = platform().start();
    let second = platform.dozen(&["server"]).failure();
    let second = second.says("already running").says(&platform.pid().to_string());
    drop(second.says("dozen stop"));
}

#[test]
fn a_taken_port_is_refused_by_its_variable() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let platform = platform().variable("DOZEN_ROUTER_LISTEN", &address).prepare();
    let said = platform.dozen(&["server"]).failure().says("DOZEN_ROUTER_LISTEN");
    drop(said.says(&address));
}

#[test]
fn a_misspelt_variable_and_a_directory_that_cannot_be_are_refused() {
    let misspelt = platform().variable("DOZEN_API_LISTN", "127.0.0.1:0").prepare();
    drop(misspelt.dozen(&["server"]).failure().says("did you mean DOZEN_API_LISTEN?"));
    let nowhere = platform().variable("DOZEN_DATA_DIR", "/proc/dozen").prepare();
    drop(nowhere.dozen(&["server"]).failure().says("set DOZEN_DATA_DIR to a directory that you can write"));
}

#[test]
fn without_git_it_says_so() {
    let platform = platform().variable("PATH", "/nowhere").prepare();
    drop(platform.dozen(&["server"]).failure().says("`git` is not on PATH"));
}

#[test]
fn a_database_file_that_is_none_is_refused_and_kept() {
    let platform = platform().start();
    platform.stop_server();
    let data_dir = platform.data_dir();
    for name in ["dozen.db", "dozen.db-wal", "dozen.db-shm"] {
        // The latter two are there only while somebody has the database open.
        _ = fs::remove_file(data_dir.join(name));
    }
    fs::write(data_dir.join("dozen.db"), "this is no database, but somebody may want it back").expect("written");
    drop(platform.dozen(&["server"]).failure().says("dozen.db"));
    let kept = fs::read_to_string(data_dir.join("dozen.db")).expect("there");
    assert!(kept.starts_with("this is no database"));
}

#[test]
fn the_environment_can_be_evaluated_by_a_shell_and_the_cli_works_with_it() {
    let platform = platform().start();
    let script = format!("eval \"$('{}' env)\" && heroku whoami", env!("CARGO_BIN_EXE_dozen"));
    let mut shell = platform.client_command("sh", platform.data_dir());
    for name in ["HEROKU_HOST", "HEROKU_API_KEY", "HEROKU_GIT_HOST"] {
        shell.env_remove(name);
    }
    let output = shell.args(["-c", &script]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "admin@localhost.localdomain", "{output:?}");
    let through = platform.dozen(&["heroku", "--", "whoami"]).success();
    assert_eq!(through.stdout.trim(), "admin@localhost.localdomain");
    drop::<TestPlatform>(platform);
}
