//! A platform on another machine, as far as its client can tell: nothing of its data directory is known, there is one TLS
//! port. Our own client after `dozen login`, and the official one through `dozen connect`.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use dozen_testkit::{App, LONG, TestPlatform, wait_until};
use serde_json::Value;

use crate::platform;

/// Somebody with a home directory and nothing of the platform in the environment.
pub(crate) struct Person {
    pub(crate) home: PathBuf,
    path: String,
}

impl Person {
    /// One of this name.
    pub(crate) fn of(platform: &TestPlatform, name: &str) -> Self {
        let home = platform.scratch(name);
        let bin = home.parent().and_then(Path::parent).expect("the platform's home").join("bin");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        Self { home, path }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.command_of(env!("CARGO_BIN_EXE_dozen"));
        command.args(words);
        command
    }

    /// Any program.
    pub(crate) fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.home).stdin(Stdio::null());
        command.env("HOME", &self.home).env("PATH", &self.path).env("LANG", "C.UTF-8").env("CI", "true");
        command
    }

    pub(crate) fn dozen(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the executable")
    }

    /// What a command prints that succeeds.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) -> String {
        let output = self.dozen(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The exit status of a command that fails, and its complaint.
    pub(crate) fn fails(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.dozen(words);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn with_input(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(words);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it");
        let mut to = child.stdin.take().expect("piped");
        // Who is refused before it is asked reads nothing.
        _ = to.write_all(input);
        drop(to);
        child.wait_with_output().expect("a child of our own")
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // Whatever becomes of a test, its forwarder ends.
        drop(self.command(&["logout"]).output());
    }
}

#[test]
fn a_platform_elsewhere_is_driven_with_nothing_but_its_address_and_a_key() {
    let platform = platform().start();
    let app = App::plain(&platform, "afar");
    let _pushed = app.push();
    let person = Person::of(&platform, "person");
    let port = platform.address("DOZEN_TLS_LISTEN").rsplit(':').next().expect("a port").to_owned();
    let url = format!("https://localhost:{port}");
    let key = platform.client_variable("HEROKU_API_KEY").expect("a key");

    // Nothing is trusted unseen; what is seen is what the platform's own machine shows.
    let fingerprint = platform.dozen(&["fingerprint"]).success().stdout.trim().to_owned();
    let (status, complaint) = person.fails(&["login", &url]);
    assert!(status == Some(2) && complaint.contains(&fingerprint), "{complaint}");
    let wrong = fingerprint.replace(':', "").chars().rev().collect::<String>();
    let (status, complaint) = person.fails(&["login", &url, "--fingerprint", &wrong]);
    assert!(status == Some(2) && complaint.contains("listening in"), "{complaint}");
    let login = ["login", url.as_str(), "--fingerprint", fingerprint.as_str()];
    let refused = person.with_input(&login, b"not-the-key\n");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert_eq!(person.fails(&["logout"]).0, Some(4), "nobody is logged in");
    let done = person.with_input(&login, format!("{key}\n").as_bytes());
    assert!(done.status.success(), "{done:?}");
    assert_eq!(person.says(&["whoami"]), format!("admin@localhost.localdomain at {url}\n"));

    our_own_client_does(&person, &url);
    the_official_client_does(&person, &port);

    // What is asked of a platform that is away is told apart from what it refuses.
    platform.stop_server();
    let (status, complaint) = person.fails(&["apps"]);
    assert!(status == Some(5) && complaint.contains("is the platform running there?"), "{complaint}");
    let (_, complaint) = person.fails(&["heroku", "--", "apps:info", "-a", "afar"]);
    assert!(complaint.contains("dozen connect:"), "{complaint}");

    let forwarder = fs::read_to_string(person.home.join(".config/dozen/forwarder")).expect("it runs");
    let forwarder: Value = serde_json::from_str(&forwarder).expect("JSON");
    let port = u16::try_from(forwarder["port"].as_u64().expect("a port")).expect("a port");
    let login = fs::read_to_string(person.home.join(".config/dozen/login.json")).expect("a login");
    assert!(login.contains(&key));
    drop(person.says(&["logout"]));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the forwarder has ended");
    assert!(!person.home.join(".config/dozen/login.json").exists());
}

fn our_own_client_does(person: &Person, url: &str) {
    let apps: Value = serde_json::from_str(&person.says(&["apps", "--json"])).expect("JSON");
    let git = apps[0]["git_url"].as_str().expect("an address");
    assert_eq!((apps[0]["name"].as_str(), git), (Some("afar"), format!("{url}/afar.git").as_str()));
    drop(person.says(&["config:set", "-a", "afar", "GREETING=from afar"]));
    assert_eq!(person.says(&["config:get", "GREETING", "-a", "afar"]), "from afar\n");
    assert_eq!(person.says(&["run", "-a", "afar", "echo $GREETING"]), "from afar\n");
    drop(person.says(&["config:unset", "GREETING", "-a", "afar"]));
    assert_eq!(person.fails(&["config:get", "GREETING", "-a", "afar"]).0, Some(3));
    assert_eq!(person.fails(&["apps:info", "-a", "nowhere"]).0, Some(3));
    assert_eq!(person.fails(&["config:set", "-a", "afar", "nonsense"]).0, Some(2));
    let dead = person.dozen(&["run", "-a", "afar", "--", "sh", "-c", "exit 42"]);
    assert_eq!(dead.status.code(), Some(42), "{dead:?}");
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    assert!(person.with_input(&["run", "-a", "afar", "cat"], &bytes).stdout == bytes, "pipes carry any bytes");
    let log = person.says(&["logs", "-a", "afar", "--json", "-n", "1000"]);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["source"] == "heroku" && line["process"] == "web.1"), "{log}");
    let version = |number: &Value| number.as_u64().expect("a number");
    let releases: Value = serde_json::from_str(&person.says(&["releases", "-a", "afar", "--json"])).expect("JSON");
    let back: Value = serde_json::from_str(&person.says(&["rollback", "-a", "afar", "--json"])).expect("JSON");
    assert_eq!(version(&back["version"]), version(&releases[0]["version"]) + 1);
    assert!(back["description"].as_str().is_some_and(|text| text.starts_with("Rollback to v")), "{back}");
    assert_eq!(person.fails(&["rollback", "v999", "-a", "afar"]).0, Some(3));
    assert!(person.says(&["open", "-a", "afar", "env"]).ends_with("/env\n"));

    let renewed = || {
        let dynos: Value = serde_json::from_str(&person.says(&["ps", "-a", "afar", "--json"])).expect("JSON");
        let web: Vec<&Value> = dynos.as_array().expect("a list").iter().filter(|one| one["type"] == "web").collect();
        !web.is_empty() && web.iter().all(|one| one["state"] == "up" && one["release"]["version"] == back["version"])
    };
    wait_until("web.1 of the last release, and no other", LONG, renewed);
    let inside = person.says(&["exec", "-a", "afar", "echo $DYNO $PORT"]);
    let (dyno, port) = inside.trim().split_once(' ').expect("two words");
    assert_eq!(dyno, "web.1");
    let mut forward = person.command(&["forward", "-a", "afar", &format!("0:{port}"), "0:1"]);
    let mut forward = forward.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the executable");
    let (mut shown, notes) = (
        BufReader::new(forward.stdout.take().expect("piped")).lines(),
        BufReader::new(forward.stderr.take().expect("piped")).lines(),
    );
    let mut address = || {
        let line = shown.next().expect("a line").expect("text");
        line.split(' ').next().expect("an address").to_owned()
    };
    let (good, nothing) = (address(), address());
    let mut stream = TcpStream::connect(good).expect("the forward");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    stream.write_all(b"GET /env HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("\"DYNO\": \"web.1\""), "{answer}");
    drop(TcpStream::connect(nothing));
    let told = notes.map_while(Result::ok).find(|line| line.contains("Nothing listens on port 1 in web.1."));
    assert!(told.is_some());
    forward.kill().expect("a child of our own");
    forward.wait().expect("a child of our own");
    assert_eq!(person.fails(&["forward", "-a", "afar", "-d", "web.9", "80"]).0, Some(3));
}

fn the_official_client_does(person: &Person, port: &str) {
    let exports = person.says(&["env"]);
    assert_eq!(exports, person.says(&["env"]), "the forwarder stays");
    assert!(exports.contains(&format!("export HEROKU_GIT_HOST=localhost:{port}\n")), "{exports}");
    assert!(!exports.contains(&format!("export HEROKU_HOST=https://localhost:{port}")), "{exports}");
    assert!(person.says(&["heroku", "--", "apps"]).contains("afar"));
    let said = person.with_input(&["heroku", "--", "run", "--no-tty", "-a", "afar", "cat; echo $DYNO"], b"through\n");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("through\nrun."), "{said}");
    assert!(person.says(&["heroku", "--", "logs", "-a", "afar", "-n", "100"]).contains("heroku[web.1]"));
    let said = person.dozen(&["heroku", "--", "run", "-x", "-a", "afar", "--", "exit 3"]);
    assert_eq!(said.status.code(), Some(3), "{said:?}");
    // Git goes to the platform itself.
    let clone = format!(
        "eval \"$('{0}' env)\"; git -c credential.helper='!{0} git-credential' clone -q https://localhost:{port}/afar.git there && ls there",
        env!("CARGO_BIN_EXE_dozen")
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &clone]).env_clear().env("HOME", &person.home).env("PATH", &person.path);
    let cloned = bash.current_dir(&person.home).output().expect("bash");
    assert!(String::from_utf8_lossy(&cloned.stdout).contains("Procfile"), "{cloned:?}");
}
