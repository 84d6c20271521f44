//! The exec family with the official CLI: shells and commands in running dynos, files out of them, forwards into them.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use dozen_testkit::{App, Builder, LONG, Terminal, TestPlatform, wait_for, wait_until};
use serde_json::{Value, json};

use crate::platform;

/// A platform with SSH where the official client wants it: port 80 of an address of its own.
pub(crate) fn with_ssh() -> Builder {
    let free = |n: u32| {
        let address = format!("127.77.{}.{}:80", n / 250, n % 250 + 2);
        TcpListener::bind(&address).is_ok().then_some(address)
    };
    let from = std::process::id() * 7;
    let address = (0..1000).find_map(|n| free((from + n) % 60_000)).expect("a free address");
    platform().variable("DOZEN_SSH_LISTEN", &address)
}

/// A long-running command of the CLI; killed when dropped.
struct Running(Child);

impl Running {
    fn start(platform: &TestPlatform, app: &App<'_>, arguments: &[&str], says: &str) -> Self {
        let mut command = platform.client_command("heroku", app.directory());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the CLI");
        let mut output = child.stdout.take().expect("piped");
        let (mut seen, mut piece) = (String::new(), [0; 1024]);
        while !seen.contains(says) {
            let count = output.read(&mut piece).expect("text");
            assert!(count > 0, "{says:?} is not said: {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        // What more it says is nobody's business, but its pipe must not break.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

#[test]
fn a_person_works_inside_running_dynos() {
    let platform = with_ssh().start();
    let app = App::plain(&platform, "entered");
    let _pushed = app.push();
    drop(app.heroku(&["ps:scale", "worker=1"]));
    app.wait_for_log("worker.1]: State changed from starting to up");
    drop(app.heroku(&["ps:exec", "--status"]).says("web.1"));
    let command = "echo $DYNO $PORT $USER; cat /proc/self/status | grep -E 'Seccomp:|CapEff'";
    let said = app.heroku(&["ps:exec", "--", command]).stdout;
    assert!(said.contains("web.1 ") && said.contains("Seccomp:\t2") && said.contains("0000000000000000"), "{said}");
    let said = app.heroku(&["ps:exec", "--dyno", "worker.1", "--", "ps -e -o args"]).stdout;
    assert!(said.contains("sleep 100000") && !said.contains("server.py"), "its own processes alone: {said}");
    let mut ssh = platform.client_command("heroku", app.directory());
    let said = ssh.args(["ps:exec", "--ssh", "--", "printenv", "DYNO"]).output().expect("the CLI");
    assert!(String::from_utf8_lossy(&said.stdout).contains("web.1"), "{said:?}");

    // Two shells at once; what one leaves the other finds, and both end with the dyno.
    let shell = || {
        let mut command = platform.client_command("heroku", app.directory());
        command.env("TERM", "vt100").env_remove("CI").args(["ps:exec"]);
        Terminal::start(command, 80, 24)
    };
    let (mut one, mut two) = (shell(), shell());
    for shell in [&mut one, &mut two] {
        shell.wait_for("$ ");
    }
    one.keys("echo from-one > /tmp/left; echo done $((40 + 2))\r");
    one.wait_for("done 42");
    two.keys("cat /tmp/left; stty size\r");
    two.wait_for("from-one");
    two.wait_for("24 80");
    app.wait_for_log("Session begun in web.1 by user admin@localhost.localdomain (ps:exec)");
    drop(app.heroku(&["ps:restart", "web.1"]));
    for shell in [&mut one, &mut two] {
        shell.wait_for("web.1 has stopped.");
        shell.end();
    }
    app.wait_for_log("Session ended in web.1 by user admin@localhost.localdomain (ps:exec) after ");
}

#[test]
fn files_come_out_of_a_dyno_and_only_its_own() {
    let platform = with_ssh().start();
    let app = App::plain(&platform, "copied");
    let _pushed = app.push();
    let copy = |from: &str, to: &str| {
        let target = app.directory().join(to);
        let said = app.try_heroku(&["ps:copy", from, "-o", to]);
        (fs::read(&target).ok(), said)
    };
    let made = "head -c 3000000 /dev/urandom > /app/big; sha256sum /app/big";
    let sum = app.heroku(&["ps:exec", "--", made]).stdout;
    let (bytes, said) = copy("big", "big.copy");
    assert_eq!(bytes.map(|bytes| bytes.len()), Some(3_000_000), "{said}");
    let here = Command::new("sha256sum").arg(app.directory().join("big.copy")).output().expect("sha256sum");
    assert_eq!(here.stdout[..64], sum.trim().as_bytes()[..64]);
    assert_eq!(copy("/app/Procfile", "procfile.copy").0, fs::read(app.directory().join("Procfile")).ok());
    // What is another's, the machine's or the platform's.
    fs::write(platform.data_dir().join("secret"), "of the platform").expect("a file");
    let outside = platform.data_dir().join("secret").display().to_string();
    for path in ["/etc/shadow", "/proc/1/environ", "/app/../../../../../root/.bashrc", outside.as_str(), "/nowhere"] {
        let (bytes, said) = copy(path, "refused.copy");
        assert!(bytes.is_none_or(|bytes| bytes.is_empty()), "{path}: {said}");
        assert!(said.text().contains("Could not "), "{path}: {said}");
        _ = fs::remove_file(app.directory().join("refused.copy"));
    }
    app.wait_for_log("(ps:copy)");
}

/// What stands in a file for `ssh` to use as identity, and its public half.
fn key(folder: &std::path::Path, name: &str) -> (String, String) {
    let path = folder.join(name).display().to_string();
    let made = Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", &path]).status();
    assert!(made.expect("ssh-keygen").success());
    let public = fs::read_to_string(format!("{path}.pub")).expect("a key");
    (path, public)
}

#[test]
fn nobody_gets_in_without_a_pass_and_its_key() {
    // Clients that do not break are not waited for.
    let platform = with_ssh().limit("input_end_ms", 3_600_000).start();
    let app = App::plain(&platform, "closed");
    let _pushed = app.push();
    let stranger = platform.dozen(&["accounts:create", "bob@example.com"]).success().stdout.trim().to_owned();
    let token = platform.client_variable("HEROKU_API_KEY").expect("a token");
    let (own, public) = key(app.directory(), "own");
    let (other, _) = key(app.directory(), "other");
    let enter = |app_name: &str, token: &str, dyno: &str, key: &str| {
        let answer = Command::new("curl")
            .args(["-s", "-X", "PUT", "-u", &format!("{app_name}:{token}"), "-H", "Content-Type: application/json"])
            .args(["-d", &json!({ "client_key": key }).to_string()])
            .arg(format!("http://{}/api/v2/{dyno}", platform.address("DOZEN_API_LISTEN")))
            .output()
            .expect("curl");
        serde_json::from_slice::<Value>(&answer.stdout).expect("JSON")
    };
    let refused = |answer: Value| answer["id"].as_str().unwrap_or("let in").to_owned();
    assert_eq!(refused(enter("closed", &stranger, "web.1", &public)), "forbidden", "another's app");
    assert_eq!(refused(enter("closed", "wrong", "web.1", &public)), "unauthorized");
    assert_eq!(refused(enter("closed", &token, "web.7", &public)), "not_found");
    assert_eq!(refused(enter("closed", &token, "web.1", "nonsense")), "invalid_params");
    let pass = enter("closed", &token, "web.1", &public);
    let user = pass["client_user"].as_str().expect("a pass");
    let known = app.directory().join("known");
    let host = pass["tunnel_host"].as_str().expect("a host");
    fs::write(&known, format!("{host} {}\n", pass["proxy_public_key"].as_str().expect("a key"))).expect("a file");
    let ssh_of = |user: &str, identity: &str, arguments: &[&str]| {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "/dev/null", "-p", "80", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-i", identity])
            .args(["-o", &format!("UserKnownHostsFile={}", known.display())])
            .arg(format!("{user}@{host}"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let ssh = |user: &str, identity: &str, arguments: &[&str]| ssh_of(user, identity, arguments).output().expect("ssh");
    let good = ssh(user, &own, &["echo $DYNO; echo bad >&2; exit 9"]);
    assert_eq!((good.status.code(), good.stdout.as_slice()), (Some(9), &b"web.1\n"[..]), "{good:?}");
    assert!(good.stderr.ends_with(b"bad\n"));
    let mut open = ssh_of(user, &own, &["echo ended"]).stdin(Stdio::piped()).spawn().expect("ssh");
    wait_until("the end of a session whose input is open", LONG, || open.try_wait().is_ok_and(|ended| ended.is_some()));
    let mut changed = user.to_owned();
    changed.replace_range(50..51, if &user[50..51] == "A" { "B" } else { "A" });
    for (user, identity) in [(user, &other), (changed.as_str(), &own), ("root", &own), ("web.1", &own)] {
        let refused = ssh(user, identity, &["true"]);
        assert_eq!(refused.status.code(), Some(255), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied (publickey)"), "{refused:?}");
    }
    // The same over the TLS port, as a forwarder brings it.
    let through = format!("ProxyCommand=openssl s_client -quiet -connect {}", platform.address("DOZEN_TLS_LISTEN"));
    let good = ssh(user, &own, &["-o", &through, "echo $DYNO; exit 9"]);
    assert_eq!((good.status.code(), good.stdout.as_slice()), (Some(9), &b"web.1\n"[..]), "{good:?}");
    // What a terminal shows is the client's to bear: it goes through and nothing breaks.
    let flood = ssh(user, &own, &["yes $'\\e]0;title\\a\\e[2J\\x90\\xff' | head -c 5000000"]);
    assert_eq!((flood.status.code(), flood.stdout.len()), (Some(0), 5_000_000));
    let long = ssh(user, &own, &[&"x".repeat(125_000)]);
    assert!(String::from_utf8_lossy(&long.stderr).contains("at most 120000"), "{long:?}");
    // A pass ends with the account's place on the app.
    drop(app.heroku(&["access:add", "bob@example.com"]));
    let his = enter("closed", &stranger, "web.1", &public);
    let his = his["client_user"].as_str().expect("a pass");
    assert_eq!(ssh(his, &own, &["true"]).status.code(), Some(0));
    drop(app.heroku(&["access:remove", "bob@example.com"]));
    assert_eq!(ssh(his, &own, &["true"]).status.code(), Some(255));
}

/// One text message of a WebSocket, short and masked with zeros.
fn ask(stream: &mut TcpStream, text: &str) -> String {
    let length = u8::try_from(text.len()).expect("short");
    stream.write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()).expect("sent");
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("an answer");
    let mut body = vec![0; usize::from(head[1])];
    stream.read_exact(&mut body).expect("an answer");
    String::from_utf8_lossy(&body).into_owned()
}

/// A message of the debug adapter protocol.
fn adapt(stream: &mut TcpStream, sequence: u32, command: &str, arguments: &Value) {
    let body = json!({"seq": sequence, "type": "request", "command": command, "arguments": arguments}).to_string();
    stream.write_all(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).expect("sent");
}

/// Reads such messages until one fits.
fn until(stream: &mut TcpStream, fits: impl Fn(&Value) -> bool) -> Value {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a message");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.trim().rsplit(' ').next().and_then(|length| length.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).expect("a message");
        let message: Value = serde_json::from_slice(&body).expect("JSON");
        if fits(&message) {
            return message;
        }
    }
}

/// One test, for the CLI always takes port 1080 of this machine.
#[test]
fn debuggers_and_proxies_reach_into_a_dyno() {
    let platform = with_ssh().start();
    let app = App::create(&platform, "debugged");
    app.write("requirements.txt", "debugpy==1.8.17\n");
    app.write("server.py", App::SERVER);
    app.write("inspected.js", "setInterval(() => {}, 1000);\n");
    let procfile = "web: python -m debugpy --listen 127.0.0.1:5678 server.py\nworker: exec node --inspect=127.0.0.1:9229 inspected.js\n";
    app.write("Procfile", procfile);
    app.commit("first");
    let _pushed = app.push();
    drop(app.heroku(&["ps:scale", "worker=1"]));
    let connect = |port: u16| {
        let stream = wait_for("the forward", LONG, || TcpStream::connect(("127.0.0.1", port)).ok());
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        stream
    };
    let (local, second) = (free_port(), free_port());
    {
        // Two ports, several connections at once.
        let mapping = format!("{local}:5678,{second}:5678");
        let _forward = Running::start(&platform, &app, &["ps:forward", &mapping], "stop port forwarding");
        let mut adapter = connect(local);
        adapt(&mut adapter, 1, "initialize", &json!({"adapterID": "test", "clientID": "test"}));
        let answer = until(&mut adapter, |message| message["command"] == "initialize");
        assert_eq!(answer["success"], true, "{answer}");
        adapt(&mut adapter, 2, "attach", &json!({"name": "test", "request": "attach", "type": "python"}));
        until(&mut adapter, |message| message["event"] == "initialized");
        let stop_at = json!({"source": {"path": "/app/server.py"}, "breakpoints": [{"line": 23}]});
        adapt(&mut adapter, 3, "setBreakpoints", &stop_at);
        let answer = until(&mut adapter, |message| message["command"] == "setBreakpoints");
        assert_eq!(answer["body"]["breakpoints"][0]["verified"], true, "{answer}");
        adapt(&mut adapter, 4, "configurationDone", &json!({}));
        until(&mut adapter, |message| message["command"] == "configurationDone");
        // A request stops at the breakpoint until the debugger lets it go on.
        let mut request = TcpStream::connect(platform.address("DOZEN_ROUTER_LISTEN")).expect("the router");
        let head = format!("GET /env HTTP/1.1\r\nHost: {}.localhost\r\nConnection: close\r\n\r\n", app.name);
        request.write_all(head.as_bytes()).expect("sent");
        let stopped = until(&mut adapter, |message| message["event"] == "stopped");
        assert_eq!(stopped["body"]["reason"], "breakpoint", "{stopped}");
        adapt(&mut adapter, 5, "continue", &json!({"threadId": stopped["body"]["threadId"]}));
        let mut answer = String::new();
        request.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    {
        let mapping = format!("{local}:9229");
        let arguments = ["ps:forward", &mapping, "--dyno", "worker.1"];
        let _forward = Running::start(&platform, &app, &arguments, "stop port forwarding");
        let mut list = connect(local);
        list.write_all(b"GET /json/list HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
        // Node's inspector leaves the connection open.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            list.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.expect("a length")];
        list.read_exact(&mut body).expect("a body");
        let targets: Value = serde_json::from_slice(&body).expect("JSON");
        let url = targets[0]["webSocketDebuggerUrl"].as_str().expect("a target");
        let path = url.splitn(4, '/').nth(3).expect("a path");
        let mut inspector = connect(local);
        let head = format!(
            "GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        inspector.write_all(head.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            inspector.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        let text = r#"{"id":1,"method":"Runtime.evaluate","params":{"expression":"6*7"}}"#;
        assert!(ask(&mut inspector, text).contains(r#""value":42"#));
    }
    {
        let _proxy = Running::start(&platform, &app, &["ps:socks"], "started on port");
        let through = |url: &str| {
            let arguments = ["-s", "--max-time", "30", "--socks5-hostname", "127.0.0.1:1080", url];
            Command::new("curl").args(arguments).output().expect("curl")
        };
        let port: Value = serde_json::from_str(&app.get("/env").body).expect("JSON");
        let url = format!("http://localhost:{}/env", port["PORT"].as_str().expect("a port"));
        assert!(String::from_utf8_lossy(&through(&url).stdout).contains("\"DYNO\": \"web.1\""));
        // This machine's own loopback is not the dyno's.
        let api = format!("http://{}/stacks", platform.address("DOZEN_API_LISTEN"));
        assert!(!through(&api).status.success());
    }
    app.wait_for_log("(ps:forward) after ");
    app.wait_for_log("(ps:socks) after ");
}
