//! Logging in to a platform elsewhere at a terminal, what becomes of a login when the platform shows another certificate
//! authority, and several people's ways into dynos from one machine.

use std::fs;

use dozen_testkit::{App, Terminal};

use crate::{elsewhere::Person, platform};

/// `dozen` with these words at a terminal, and then what state it left the terminal in.
fn at_terminal(person: &Person, words: &str) -> Terminal {
    let mut command = person.command_of("sh");
    let script = format!("'{}' {words}; echo status $?; stty -a", env!("CARGO_BIN_EXE_dozen"));
    command.args(["-c", &script]).env_remove("CI").env("TERM", "vt100");
    Terminal::start(command, 200, 24)
}

/// Waits for the end of it; the terminal shows what is typed again.
#[track_caller]
fn ends_with(mut terminal: Terminal, status: i32) -> String {
    terminal.wait_for(&format!("status {status}\r"));
    terminal.wait_for(" echo ");
    terminal.end();
    terminal.shown()
}

#[test]
fn a_person_logs_in_at_a_terminal_and_an_authority_that_changed_is_not_spoken_to() {
    let platform = platform().start();
    let person = Person::of(&platform, "person");
    let address = platform.address("DOZEN_TLS_LISTEN");
    let url = format!("https://localhost:{}", address.rsplit(':').next().expect("a port"));
    let key = platform.client_variable("HEROKU_API_KEY").expect("a key");
    let fingerprint = || platform.dozen(&["fingerprint"]).success().stdout.trim().to_owned();
    let login = format!("login {url}");
    let kept = || fs::read_to_string(person.home.join(".config/dozen/login.json"));

    let mut doubtful = at_terminal(&person, &login);
    doubtful.wait_for(&fingerprint());
    doubtful.wait_for("Trust it from now on? (yes/no) ");
    doubtful.keys("no\r");
    assert!(ends_with(doubtful, 2).contains("not trusted: nothing was sent"));
    let mut interrupted = at_terminal(&person, &login);
    interrupted.wait_for("(yes/no) ");
    interrupted.keys("yes\r");
    interrupted.wait_for("API key: ");
    interrupted.keys("half a k\u{3}");
    assert!(ends_with(interrupted, 2).contains("given up: you are not logged in"));
    assert!(kept().is_err(), "nothing is kept of that");

    // With an e-mail address a token is made; what is typed is not shown, and keys mend it.
    let mut typing = at_terminal(&person, &format!("{login} --email admin@localhost.localdomain"));
    typing.wait_for("(yes/no) ");
    typing.keys("yes\r");
    typing.wait_for("Password: ");
    typing.keys(&format!("wrong\u{15}{key}x\u{7f}\r"));
    typing.wait_for("done, as admin@localhost.localdomain");
    let shown = ends_with(typing, 0);
    assert!(!shown.contains(&key) && !shown.contains("wrong"), "{shown}");
    let made = kept().expect("a login");
    assert!(!made.contains(&key) && made.contains("\"authorization\": \""), "a token of its own: {made}");
    assert_eq!(person.says(&["apps", "--json"]).trim(), "[]");
    // Who was trusted before is not asked about again; the API key itself does too.
    let mut again = at_terminal(&person, &login);
    again.wait_for("API key: ");
    again.keys(&format!("{key}\r"));
    let shown = ends_with(again, 0);
    assert!(!shown.contains("Trust it") && !shown.contains(&key), "{shown}");
    drop(person.says(&["env"]));

    // Another authority at the same address.
    platform.stop_server();
    for name in ["ca.pem", "ca.key", "api.pem", "api.key", "apps.pem", "apps.key"] {
        fs::remove_file(platform.data_dir().join("tls").join(name)).expect("a file of the platform");
    }
    platform.start_server();
    let refusal = "shows a certificate of another authority than the trusted one, so nothing was sent";
    for words in [&["apps"][..], &["run", "-a", "any", "true"], &["heroku", "--", "apps:info", "-a", "any"]] {
        let (status, complaint) = person.fails(words);
        // The official client breaks lines.
        let complaint = complaint.split_whitespace().filter(|word| *word != "\u{203a}").collect::<Vec<_>>().join(" ");
        assert!(complaint.contains(refusal) && complaint.contains(&format!("dozen login {url}")), "{complaint}");
        assert!(words[0] == "heroku" || status == Some(4), "{words:?}: {status:?}");
    }
    let mut anew = at_terminal(&person, &login);
    anew.wait_for("is not the one of the last login");
    let shown = ends_with(anew, 2).replace("\r\n", "");
    assert!(shown.contains(&format!("give --fingerprint {}", fingerprint())), "{shown}");
    let known = person.with_input(&["login", &url, "--fingerprint", &fingerprint()], format!("{key}\n").as_bytes());
    assert!(known.status.success(), "{known:?}");
    assert_eq!(person.says(&["heroku", "--", "whoami"]), "admin@localhost.localdomain\n");
}

fn exec_url(exports: &str) -> String {
    let line = exports.lines().find_map(|line| line.strip_prefix("export HEROKU_EXEC_URL=")).expect("it is set");
    line.to_owned()
}

/// Whether ordinary users may listen at port 80, as in some containers.
fn anybody_has_port_80() -> bool {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    first.trim().parse().is_ok_and(|first: u16| first <= 80)
}

/// Somebody who may not listen at port 80 is told, and has other ways.
fn without_port_80(person: &Person, root: bool, app: &str) {
    let mut env = person.command_of(if root { "setpriv" } else { env!("CARGO_BIN_EXE_dozen") });
    if root {
        env.args(["--bounding-set", "-net_bind_service", "--", env!("CARGO_BIN_EXE_dozen")]);
    }
    let env = env.arg("env").output().expect("the executable");
    let (exports, told) = (String::from_utf8_lossy(&env.stdout), String::from_utf8_lossy(&env.stderr));
    assert!(env.status.success() && exec_url(&exports).starts_with("https://localhost:"), "{env:?}");
    assert!(told.contains("ps:forward and ps:socks will not work") && told.contains("dozen exec"), "{told}");
    let said = person.dozen(&["heroku", "--", "ps:exec", "-a", app, "--", "true"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("will not work: they need port 80"), "{said:?}");
    assert_eq!(person.says(&["exec", "-a", app, "echo $DYNO"]), "web.1\n");
}

#[test]
fn everybody_on_a_machine_has_a_way_into_dynos_and_who_cannot_is_told() {
    let platform = platform().start();
    let app = App::plain(&platform, "entered-from-afar");
    let _pushed = app.push();
    let address = platform.address("DOZEN_TLS_LISTEN");
    let url = format!("https://localhost:{}", address.rsplit(':').next().expect("a port"));
    let key = platform.client_variable("HEROKU_API_KEY").expect("a key");
    let fingerprint = platform.dozen(&["fingerprint"]).success().stdout.trim().to_owned();
    let people = ["one", "two", "three"].map(|name| {
        let person = Person::of(&platform, name);
        let login = ["login", url.as_str(), "--fingerprint", fingerprint.as_str()];
        let done = person.with_input(&login, format!("{key}\n").as_bytes());
        assert!(done.status.success(), "{done:?}");
        person
    });
    let [one, two, three] = people;
    let root = rustix::process::geteuid().is_root();
    if anybody_has_port_80() {
        eprintln!("nobody needs a privilege for port 80 here: there is nobody to be told");
    } else {
        without_port_80(&three, root, &app.name);
    }
    if !root && !anybody_has_port_80() {
        eprintln!("not root: port 80 cannot be listened at");
        return;
    }
    // The others at once, each at an address of its own.
    let urls = [&one, &two].map(|person| exec_url(&person.says(&["env"])));
    assert!(urls[0] != urls[1] && urls.iter().all(|url| url.starts_with("https://127.0.0.")), "{urls:?}");
    for person in [&one, &two] {
        let said = person.says(&["heroku", "--", "ps:exec", "-a", &app.name, "--", "echo $DYNO of $HOME"]);
        assert!(said.contains("web.1 of /app"), "{said}");
    }
    let copied = one.home.join("Procfile");
    let copy = ["heroku", "--", "ps:copy", "Procfile", "-a", &app.name, "-o", &copied.display().to_string()];
    drop(two.says(&copy));
    assert_eq!(fs::read(copied).ok(), fs::read(app.directory().join("Procfile")).ok());
}
