//! One-off dynos with the official CLI: attached with and without a terminal, left alone, detached.

use std::{
    io::{Read, Write},
    process::{Child, Stdio},
};

use dozen_testkit::{App, LONG, Terminal, TestPlatform, wait_until};

use crate::{exec::with_ssh, platform};

/// An app with nothing but a worker, so that nothing else runs.
fn app<'a>(platform: &'a TestPlatform, name: &str) -> App<'a> {
    let app = App::create(platform, name);
    app.write("Procfile", "worker: exec sleep 1000\nsay: echo said:\n");
    app.commit("first");
    drop(app.try_push().success());
    app
}

/// `heroku run` on a terminal of 100 columns and 40 rows.
fn on_terminal(platform: &TestPlatform, app: &App<'_>, arguments: &[&str]) -> Terminal {
    let mut command = platform.client_command("heroku", app.directory());
    command.env("TERM", "xterm").env("HEROKU_NOTIFICATIONS", "0").env_remove("CI").args(arguments);
    Terminal::start(command, 100, 40)
}

/// `heroku run` with pipes.
fn piped(platform: &TestPlatform, app: &App<'_>, arguments: &[&str]) -> Child {
    let mut command = platform.client_command("heroku", app.directory());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the CLI")
}

/// The `heroku[run.N]` lines of the one-off whose command holds this.
fn lines(app: &App<'_>, command: &str) -> Vec<String> {
    let log = app.log();
    let starting = log.lines().find(|line| line.contains("heroku[run.") && line.contains(command)).unwrap_or_default();
    let process = starting.split(' ').nth(1).unwrap_or("?").trim_end_matches(':').to_owned();
    let of = |line: &&str| line.split(' ').nth(1).is_some_and(|word| word.trim_end_matches(':') == process);
    let text = |line: &str| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
    log.lines().filter(of).map(text).collect()
}

#[test]
fn a_person_at_a_terminal_has_the_dyno_under_the_fingers() {
    let platform = platform().start();
    let app = app(&platform, "seated");
    let mut shell = on_terminal(&platform, &app, &["run", "bash"]);
    shell.wait_for("$ ");
    shell.keys("stty size; tty; echo $DYNO-$TERM\r");
    shell.wait_for("40 100");
    shell.wait_for("/dev/pts/");
    shell.wait_for("-xterm");
    // Ctrl-C ends the command and not the shell, Ctrl-D ends what reads.
    // What it prints shows that it is in front: a Ctrl-C before that would be the shell's.
    shell.keys("sh -c 'echo begun; exec sleep 1000'\r");
    shell.wait_for("begun\r");
    shell.keys("\u{3}");
    shell.wait_for("^C");
    shell.wait_for("$ ");
    shell.keys("echo status $?\r");
    shell.wait_for("status 130");
    shell.wait_for("$ ");
    shell.keys("echo ready; cat > words; echo wrote $(cat words)\r");
    shell.wait_for("ready\r");
    shell.keys("hello\r\u{4}");
    shell.wait_for("wrote hello");
    shell.wait_for("$ ");
    drop(app.heroku(&["ps"]).says("run."));
    shell.keys("exit 5\r");
    assert!(shell.end().success(), "{}", shell.shown());
    app.wait_for_log("State changed from up to complete");
    let lines = lines(&app, "command `bash`");
    let expected = [
        "Awaiting client",
        "Starting process with command `bash`",
        "State changed from starting to up",
        "Process exited with status 5",
        "State changed from up to complete",
    ];
    assert_eq!(lines, expected);
    assert!(!app.log().contains("wrote hello"), "what is typed and shown is nobody else's");
}

#[test]
fn exit_statuses_types_sizes_and_variables_are_what_was_asked_for() {
    let platform = platform().start();
    let app = app(&platform, "asked");
    let run = |arguments: &[&str]| app.try_heroku(&[&["run"], arguments].concat());
    assert_eq!(run(&["-x", "--", "bash", "-c", "exit 3"]).code, Some(3));
    assert_eq!(run(&["-x", "--no-tty", "--no-notify", "exit 4"]).code, Some(4));
    let mut on_terminal = on_terminal(&platform, &app, &["run", "-x", "kill -9 $$"]);
    assert_eq!(on_terminal.end().code(), Some(137), "{}", on_terminal.shown());
    let script = "echo $A $B; echo $DYNO; echo $MEMORY_AVAILABLE; tty";
    let said = run(&["--env", "A=one;B=two words", "--size", "standard-2x", "--type", "say", script]).success();
    assert!(said.stdout.contains("one two words\n") && said.stdout.contains("not a tty"), "{said}");
    assert!(said.stdout.contains("\nsay.") && said.stdout.contains("\n1024\n"), "{said}");
    assert_eq!(run(&["say it 'a  b'"]).success().stdout, "said: it a  b\n");
    let refused = run(&["--size", "gigantic", "true"]).failure();
    assert!(refused.text().contains("gigantic"), "{refused}");
}

#[test]
fn pipes_carry_everything_both_ways() {
    const LINES: usize = 1_000_000; // of 65 bytes
    let platform = platform().start();
    let app = app(&platform, "piped");
    let mut client = piped(&platform, &app, &["run", "--no-tty", "cat"]);
    let (mut input, mut output) = (client.stdin.take().expect("piped"), client.stdout.take().expect("piped"));
    let line = |n: usize| format!("{:064x}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let sending = std::thread::spawn(move || {
        for from in (0..LINES).step_by(1000) {
            let piece: String = (from..from + 1000).map(line).collect();
            input.write_all(piece.as_bytes()).expect("taken");
        }
    });
    let mut back = String::new();
    output.read_to_string(&mut back).expect("text");
    sending.join().expect("all was sent");
    assert!(client.wait().expect("a child of our own").success());
    assert_eq!(back.len(), LINES * 65);
    assert!(back.lines().enumerate().all(|(n, text)| line(n).trim_end() == text), "a line differs");
}

/// What goes in comes out, a gigabyte of any bytes, with our own client: the official one reads and writes text.
#[test]
fn a_gigabyte_comes_back_as_it_went() {
    const BYTES: u64 = 1 << 30;
    let platform = platform().start();
    let app = app(&platform, "large");
    let executable = env!("CARGO_BIN_EXE_dozen");
    let script = format!(
        "set -o pipefail; head -c {BYTES} /dev/urandom | tee >(sha256sum > sent) | '{executable}' run --no-tty -a large cat | sha256sum > back; \
         status=$?; while ! [ -s sent ]; do sleep 0.01; done; cmp sent back && exit $status"
    );
    let mut bash = platform.client_command("bash", app.directory());
    let done = bash.args(["-c", &script]).output().expect("bash");
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_client_that_vanishes_is_followed_by_signals_and_then_by_r16() {
    let platform = platform().limit("hangup_seconds", 1).start();
    let app = app(&platform, "vanished");
    let mut polite = on_terminal(&platform, &app, &["run", "echo up; exec sleep 1001"]);
    let mut stubborn = on_terminal(&platform, &app, &["run", "trap '' HUP; echo up; sleep 1002; sleep 1003"]);
    for client in [&mut polite, &mut stubborn] {
        client.wait_for("up\r");
        client.kill();
    }
    app.wait_for_log("Error R16 (Detached)");
    let gone = lines(&app, "sleep 1001");
    let signal = "Client connection closed. Sending SIGHUP to all processes";
    assert_eq!(gone[3..], [signal, "Process exited with status 129", "State changed from up to complete"]);
    let stayed = lines(&app, "sleep 1003");
    assert_eq!(stayed[3..6], [signal, signal, signal]);
    assert!(stayed[6].starts_with("Error R16 (Detached) -> "), "{stayed:?}");
    let running = app.heroku(&["ps"]).stdout;
    let name = running.split_whitespace().find(|word| word.starts_with("run.")).expect("it goes on");
    drop(app.heroku(&["ps:stop", name.trim_end_matches(':')]));
    app.wait_for_log("Stopping all processes with SIGTERM");
}

#[test]
fn silence_ends_a_session_and_nobody_coming_is_r13() {
    let platform = with_ssh().limit("attach_idle_seconds", 2).limit("attach_wait_seconds", 5).start();
    let app = app(&platform, "silent");
    drop(app.heroku(&["ps:scale", "worker=1"]));
    app.wait_for_log("worker.1]: State changed from starting to up");
    let mut guest = on_terminal(&platform, &app, &["ps:exec", "--dyno", "worker.1"]);
    guest.wait_for("Nothing was typed or shown for 2 seconds.");
    guest.end();
    app.wait_for_log("Session ended in worker.1 by user admin@localhost.localdomain (ps:exec) after ");
    let mut client = on_terminal(&platform, &app, &["run", "echo up; exec sleep 1000"]);
    client.wait_for("up\r");
    client.end();
    app.wait_for_log("Client connection closed. Sending SIGHUP to all processes");
    let body = serde_json::json!({"command": "sleep 1004", "attach": true});
    let (status, dyno) = platform.api("POST", "/apps/silent/dynos", Some(&body));
    assert_eq!(status, 201, "{dyno}");
    app.wait_for_log("Error R13 (Attach error) -> Failed to attach to process");
    let complete = || lines(&app, "sleep 1004").iter().any(|line| line == "State changed from up to complete");
    wait_until("its end", LONG, complete);
    let nobody = lines(&app, "sleep 1004");
    assert_eq!(
        nobody[3..5],
        ["Error R13 (Attach error) -> Failed to attach to process", "Stopping all processes with SIGTERM"]
    );
}

#[test]
fn detached_dynos_are_listed_logged_and_stopped() {
    let platform = platform().start();
    let app = app(&platform, "detached");
    let said = app.heroku(&["run:detached", "echo from afar; exec sleep 1000"]);
    app.wait_for_log("]: from afar");
    let listed = app.heroku(&["ps"]).stdout;
    let name = listed.split_whitespace().find(|word| word.starts_with("run.")).expect("it is listed");
    assert!(said.text().contains(name.trim_end_matches(':')), "{said}");
    drop(app.heroku(&["ps:stop", name.trim_end_matches(':')]));
    let ended = |command: &str| lines(&app, command).iter().any(|line| line == "State changed from up to complete");
    wait_until("it to stop", LONG, || ended("sleep 1000"));
    let body = serde_json::json!({"command": "exec sleep 1005", "time_to_live": 1});
    assert_eq!(platform.api("POST", "/apps/detached/dynos", Some(&body)).0, 201);
    wait_until("its time to live to end", LONG, || ended("sleep 1005"));
    drop(app.heroku(&["ps"]).says_not("run."));
}

#[test]
fn a_detached_dyno_is_cycled_at_its_age_and_not_started_again() {
    let platform = platform().limit("cycle_seconds", 3).limit("cycle_jitter_seconds", 0).start();
    let app = app(&platform, "aged");
    let body = serde_json::json!({"command": "exec sleep 1006", "attach": false});
    assert_eq!(platform.api("POST", "/apps/aged/dynos", Some(&body)).0, 201);
    let ended = || lines(&app, "sleep 1006").iter().any(|line| line == "State changed from up to complete");
    wait_until("its end", LONG, ended);
    let expected = ["Cycling", "Stopping all processes with SIGTERM", "Process exited with status 143"];
    assert_eq!(lines(&app, "sleep 1006")[2..5], expected);
    assert_eq!(platform.api("GET", "/apps/aged/dynos", None).1, serde_json::json!([]));
}

#[test]
fn a_command_runs_inside_a_running_dyno() {
    let platform = platform().start();
    let app = app(&platform, "inside");
    drop(app.heroku(&["ps:scale", "worker=1"]));
    app.wait_for_log("State changed from starting to up");
    let said = app.heroku(&["run:inside", "worker.1", "--", "echo", "$DYNO", "&&", "hostname"]);
    assert!(said.stdout.starts_with("worker.1\n"), "{said}");
    assert_eq!(app.try_heroku(&["run:inside", "-x", "worker.1", "exit 6"]).code, Some(6));
    app.wait_for_log("Session begun in worker.1 by user admin@localhost.localdomain (run:inside)");
    app.wait_for_log("Session ended in worker.1 by user admin@localhost.localdomain (run:inside) after ");
    let refused = app.try_heroku(&["run:inside", "worker.9", "true"]).failure();
    assert!(refused.text().contains("Couldn't find that dyno"), "{refused}");
    // A control role that is killed takes the session with it; its client is told, and so is the log.
    let mut exec = platform.client_command(env!("CARGO_BIN_EXE_dozen"), app.directory());
    exec.args(["exec", "-a", "inside", "-d", "worker.1", "echo inside; exec sleep 1007"]);
    let mut exec = exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a client");
    let mut begun = [0; 7];
    exec.stdout.as_mut().expect("piped").read_exact(&mut begun).expect("output");
    platform.kill_role("control");
    let lost = exec.wait_with_output().expect("a child of our own");
    let told = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert_eq!(
        (lost.status.code(), told.contains("the connection was lost, or worker.1 has stopped")),
        (Some(255), true)
    );
    app.wait_for_log("seconds, when the platform was restarted");
}
