//! From start to forgotten: exit statuses, signals, timers, what is left behind.

use std::{fs, io::Write, os::unix::fs::MetadataExt};

use dozen_api::shim::{Command, Event, Hello, Lost, Record, Spec};
use dozen_domain::dyno::Exit;
use dozen_runtime::{sandbox::UPPER, shim};

use crate::dyno::{Setup, is_alive, read_output, wait_until};

#[test]
fn a_dyno_runs_its_command_and_its_exit_code_is_reported() {
    let mut dyno = Setup::bash("cat hello.txt; exit 3").start();
    assert_eq!(dyno.exit(), Exit::Code(3));
    assert_eq!(dyno.output(), "hello from the image\n");
    let record: Record =
        serde_json::from_slice(&fs::read(dyno.directory.join(shim::RECORD)).expect("there")).expect("JSON");
    assert_eq!(record, dyno.spec.record);
    let exit: Event = serde_json::from_slice(&fs::read(dyno.directory.join(shim::EXIT)).expect("there")).expect("JSON");
    assert_eq!(Some(&exit), dyno.seen.last());
}

#[test]
fn a_command_ended_by_a_signal_is_reported_so() {
    let mut dyno = Setup::bash("kill -ABRT $$").start();
    assert_eq!(dyno.exit(), Exit::Signal(libc::SIGABRT));
}

#[test]
fn who_takes_what_a_dyno_leaves_is_told_when_nothing_writes_any_more() {
    let script = "for n in 1 2 3 4; do (while :; do echo x >> /app/file$n; done) & done; until [ -s /app/file4 ]; do sleep 0.01; done";
    let keep = |spec: &mut Spec| _ = spec.record.engine.insert(shim::KEEP_SCRATCH.to_owned(), String::new());
    let mut dyno = Setup::bash(script).with(keep).start();
    dyno.exit();
    assert!(!is_alive(dyno.pid), "the init ends last of all");
    let upper = dyno.spec.sandbox.scratch.join(UPPER);
    assert!(fs::metadata(upper.join("file4")).expect("it was written").len() > 0);
}

#[test]
fn a_command_that_is_not_there_fails_to_start() {
    let error = Setup::new(&["/app/nothing"]).try_start().err().expect("it cannot start");
    assert!(error.contains("start /app/nothing: No such file"), "{error}");
    let error = Setup::bash("true").with(|spec| spec.sandbox.workdir = "/nowhere".into()).try_start();
    assert!(error.is_err_and(|error| error.contains("change to /nowhere")));
    let gone = Setup::bash("true").with(|spec| spec.sandbox.layers[0] = "/nonexistent/layer".into()).try_start();
    assert!(gone.is_err_and(|error| error.contains("open layer /nonexistent/layer")));
}

#[test]
fn a_command_without_a_slash_is_found_on_its_path() {
    let mut dyno = Setup::new(&["true"]).start();
    assert_eq!(dyno.exit(), Exit::Code(0));
}

#[test]
fn stop_signals_every_process() {
    let script = "trap 'echo parent; wait; exit 9' TERM; bash -c 'trap \"echo child; exit\" TERM; echo up; while :; do sleep 0.01; done' & wait";
    let mut dyno = Setup::bash(script).start();
    dyno.wait_for_output("up");
    dyno.tell(&Command::Stop { signal: libc::SIGTERM, grace_ms: 30_000 });
    assert_eq!(dyno.exit(), Exit::Code(9));
    let output = dyno.output();
    assert!(output.contains("parent") && output.contains("child"), "{output}");
    assert!(dyno.seen.iter().any(|event| matches!(event, Event::Stopping { .. })));
    assert!(!dyno.seen.iter().any(|event| matches!(event, Event::StopTimeout { .. })));
}

#[test]
fn a_dyno_that_outlives_its_grace_is_killed() {
    let mut dyno = Setup::bash("trap '' TERM; echo up; while :; do sleep 0.01; done").start();
    dyno.wait_for_output("up");
    dyno.tell(&Command::Stop { signal: libc::SIGTERM, grace_ms: 50 });
    assert_eq!(dyno.exit(), Exit::Signal(libc::SIGKILL));
    let kinds: Vec<_> = dyno.seen.iter().map(std::mem::discriminant).collect();
    let at = libc::SIGKILL.into();
    let expected = [
        Event::Started { at, pid: 0 },
        Event::Stopping { at },
        Event::StopTimeout { at },
        Event::Exited { at, exit: Exit::Code(0) },
    ];
    assert_eq!(kinds, expected.each_ref().map(std::mem::discriminant));
}

#[test]
fn a_web_dyno_that_does_not_listen_in_time_is_killed() {
    let mut dyno = Setup::bash("sleep 600")
        .with(|spec| {
            spec.port = Some(5000);
            spec.boot_ms = 50;
        })
        .start();
    dyno.wait_for(|event| matches!(event, Event::BootTimeout { .. }).then_some(()));
    assert_eq!(dyno.exit(), Exit::Signal(libc::SIGKILL));
}

#[test]
fn every_control_connection_hears_all_that_happened() {
    let mut dyno = Setup::bash("exit 0").start();
    dyno.exit();
    let mut late = dyno.connect(&Hello::Control);
    let events: Vec<Event> = (0..dyno.seen.len())
        .map(|_| dozen_api::frame::read_blocking(&mut late).expect("in time").expect("an event"))
        .collect();
    assert_eq!(events, dyno.seen);
}

#[test]
fn when_all_is_recorded_nothing_is_left() {
    let mut dyno =
        Setup::bash("echo x > file; mkdir -p a/b; chmod 0 a; echo done").with(|spec| spec.record.logged = true).start();
    dyno.exit();
    let scratch = dyno.spec.sandbox.scratch.clone();
    wait_until("the scratch directory's removal", || !scratch.exists());
    dyno.tell(&Command::Forget);
    assert!(is_alive(dyno.shim), "output is not stored yet");
    let mut logs = dyno.connect(&Hello::Output { from: 0, ack: true });
    let mut end = 0;
    while let Some(piece) = read_output(&mut logs).filter(|piece| !piece.bytes.is_empty()) {
        end = piece.offset + piece.bytes.len() as u64;
    }
    logs.write_all(&dozen_api::frame::encode(&end).expect("encoded")).expect("sent");
    wait_until("the shim's end", || !is_alive(dyno.shim));
    assert!(!dyno.directory.exists());
}

#[test]
fn output_that_nobody_stores_is_held_for_a_while_only() {
    let mut dyno = Setup::bash("echo done")
        .with(|spec| {
            spec.record.logged = true;
            spec.linger_ms = 100;
        })
        .start();
    dyno.exit();
    dyno.tell(&Command::Forget);
    wait_until("the shim's end", || !is_alive(dyno.shim));
    let left = fs::read(dyno.directory.with_extension(Lost::EXTENSION)).expect("it says what is lost");
    let lost: Lost = serde_json::from_slice(&left).expect("JSON");
    assert_eq!((lost.app, lost.name, lost.bytes), (dyno.spec.record.app, dyno.spec.record.name.clone(), 5));
}

#[test]
fn when_the_shim_is_killed_its_dyno_dies_and_no_other() {
    let mut one = Setup::bash("sleep 600").start();
    let other = Setup::bash("sleep 600").start();
    assert!(matches!(one.next(), Event::Started { .. }));
    let shim = rustix::process::Pid::from_raw(one.shim).expect("a pid");
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("killed");
    wait_until("the dyno's death", || !is_alive(one.pid));
    assert!(is_alive(other.pid));
    // What it leaves is for the engine, which finds no exit.
    assert!(!one.directory.join(shim::EXIT).exists());
    let group = dozen_runtime::cgroup::Cgroup::open(one.spec.sandbox.cgroup.as_deref().expect("asked for"));
    group.kill();
    group.remove().expect("empty");
}

#[test]
fn a_shim_is_nobodys_child_and_in_a_session_of_its_own() {
    let dyno = Setup::bash("sleep 600").start();
    let stat = fs::read_to_string(format!("/proc/{}/stat", dyno.shim)).expect("it lives");
    let fields: Vec<i32> =
        stat.rsplit_once(") ").expect("a name").1.split(' ').skip(1).map_while(|field| field.parse().ok()).collect();
    assert_ne!(fields[0], i32::try_from(std::process::id()).expect("a pid"));
    assert_eq!(fields[2], dyno.shim);
}

#[test]
fn what_is_written_to_app_can_be_kept() {
    let mut dyno = Setup::bash("echo new > made.txt; cat /in/source /in/list/one; echo result > /out/result.json")
        .with(|spec| {
            spec.record.engine.insert(shim::KEEP_SCRATCH.to_owned(), String::new());
            spec.sandbox.layers.clear();
            let base = spec.sandbox.scratch.with_file_name("outside");
            for (directory, file) in [("list", "one"), ("out", "nothing")] {
                fs::create_dir_all(base.join(directory)).expect("made");
                fs::write(base.join(directory).join(file), "first\n").expect("written");
            }
            fs::write(base.join("source"), "source\n").expect("written");
            std::os::unix::fs::chown(base.join("out"), Some(crate::dyno::HOST_UID), None).expect("chown");
            spec.sandbox.system = None; // as for builds
            spec.sandbox.binds.extend([
                (base.join("source"), "/in/source".into(), false),
                (base.join("list"), "/in/list".into(), false),
                (base.join("out"), "/out".into(), true),
            ]);
        })
        .start();
    assert_eq!(dyno.exit(), Exit::Code(0), "{}", dyno.output());
    assert_eq!(dyno.output(), "source\nfirst\n");
    let scratch = dyno.spec.sandbox.scratch.clone();
    dyno.tell(&Command::Forget);
    wait_until("the shim's end", || !is_alive(dyno.shim));
    let made = scratch.join(dozen_runtime::sandbox::UPPER).join("made.txt");
    assert_eq!(fs::read_to_string(&made).expect("kept"), "new\n");
    assert_eq!(fs::metadata(made).expect("there").uid(), crate::dyno::HOST_UID);
    assert_eq!(
        fs::read_to_string(scratch.with_file_name("outside").join("out/result.json")).expect("there"),
        "result\n"
    );
}
