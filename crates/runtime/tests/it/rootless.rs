//! The same containers for a platform that runs as an ordinary user.

use std::{fs, os::unix::fs::PermissionsExt};

use dozen_api::shim::{Command, Network};
use dozen_domain::dyno::Exit;

use crate::dyno::{Setup, is_alive, wait_until};

/// An ordinary user of this machine, who need not have a name.
const USER: u32 = 2000;

fn rootless(script: &str) -> Setup {
    let mut setup = Setup::bash(script).with(|spec| {
        spec.sandbox.host_uid = None;
        spec.sandbox.system = None;
        spec.sandbox.cgroup = None;
        spec.sandbox.network = Network::Host;
    });
    // The executable may be where that user cannot read.
    let executable = setup.temp.path().join("executable");
    fs::copy(&setup.executable, &executable).expect("copied");
    fs::set_permissions(setup.temp.path(), PermissionsExt::from_mode(0o755)).expect("readable");
    setup.spec.sandbox.binds[0].0 = executable.clone();
    setup.executable = executable;
    setup.user = Some(USER);
    setup
}

#[test]
fn an_ordinary_users_dyno_runs_confined() {
    let script = "id -u; cat hello.txt; echo changed > hello.txt; cat hello.txt; cat /proc/self/uid_map; \
                  for what in mount unshare-user ptrace chroot; do /opt/probe probe $what; done; \
                  for path in /usr/x /etc/x /x /proc/sys/vm/drop_caches; do /opt/probe probe write $path; done; \
                  grep -E '^Cap(Eff|Prm|Bnd)' /proc/self/status; echo /proc/[0-9]*; mkdir -p a/b; chmod 0 a; exit 4";
    let mut dyno = rootless(script).start();
    assert_eq!(dyno.exit(), Exit::Code(4), "{}", dyno.output());
    let output = dyno.output();
    assert!(output.starts_with("1000\nhello from the image\nchanged\n"), "{output}");
    assert!(output.contains("1000       2000          1"), "{output}");
    assert_eq!(output.matches("Operation not permitted").count(), 4, "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 4, "{output}");
    assert_eq!(output.matches("0000000000000000").count(), 3, "{output}");
    let image = fs::read_to_string(dyno.spec.sandbox.layers[0].join("app/hello.txt")).expect("there");
    assert_eq!(image, "hello from the image\n", "the image is not changed");
    let scratch = dyno.spec.sandbox.scratch.clone();
    wait_until("the scratch directory's removal", || !scratch.exists());
    dyno.tell(&Command::Forget);
    wait_until("the shim's end", || !is_alive(dyno.shim));
}

#[test]
fn an_ordinary_users_dyno_is_stopped_and_has_a_terminal() {
    let mut dyno = rootless("stty size; trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done")
        .with(|spec| spec.terminal = Some((80, 24)))
        .start();
    dyno.wait_for_output("up");
    dyno.tell(&Command::Stop { signal: libc::SIGTERM, grace_ms: 30_000 });
    assert_eq!(dyno.exit(), Exit::Code(5));
    assert!(dyno.output().starts_with("24 80\r\n"));
}

#[test]
fn an_ordinary_users_processes_are_bounded() {
    let mut dyno = rootless("exec /opt/probe probe forks").start();
    dyno.exit();
    assert!(dyno.output().contains("stopped at 6"), "{}", dyno.output());
}
