//! What an app must not be able to do, each tried from inside.

use dozen_api::shim::{Event, Sandbox};
use dozen_domain::dyno::Exit;
use dozen_runtime::sandbox::System;

use crate::dyno::{HOST_UID, Setup};

fn probe(what: &[&str]) -> (Exit, String) {
    let mut dyno = Setup::probe(what).start();
    (dyno.exit(), dyno.output())
}

fn script(script: &str) -> String {
    let mut dyno = Setup::bash(script).start();
    dyno.exit();
    dyno.output()
}

#[test]
fn system_calls_that_lead_out_are_refused() {
    for what in ["mount", "unshare-user", "clone-user", "setns", "ptrace", "keyctl", "bpf", "chroot", "mknod"] {
        let (exit, output) = probe(&[what]);
        assert_eq!(exit, Exit::Code(1), "{output}");
        assert!(output.contains("Operation not permitted"), "{output}");
    }
    for what in ["clone3", "io-uring"] {
        assert!(probe(&[what]).1.contains("Function not implemented"), "{what}");
    }
    // What the kernel offers to whoever administers it, traces others or looks into it.
    for call in [
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_open_by_handle_at,
        libc::SYS_fanotify_init,
        libc::SYS_pivot_root,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_move_mount,
        libc::SYS_umount2,
        libc::SYS_swapon,
        libc::SYS_reboot,
        libc::SYS_syslog,
        libc::SYS_quotactl,
        libc::SYS_sethostname,
        libc::SYS_settimeofday,
        libc::SYS_acct,
        libc::SYS_sched_setattr, // long turns on the processor
    ] {
        let (exit, output) = probe(&["call", &call.to_string()]);
        assert!(exit == Exit::Code(1) && output.contains("Operation not permitted"), "system call {call}: {output}");
    }
    for what in ["packet-socket", "alg-socket"] {
        assert!(probe(&[what]).1.contains("Address family not supported"), "{what}");
    }
    for what in ["raw-socket", "setuid-root"] {
        assert_eq!(probe(&[what]).0, Exit::Code(1), "{what}");
    }
    for what in ["thread", "route-socket"] {
        assert_eq!(probe(&[what]).0, Exit::Code(0), "{what}");
    }
}

#[test]
fn the_system_cannot_be_written() {
    for path in [
        "/usr/x",
        "/usr/bin/x",
        "/etc/passwd",
        "/etc/x",
        "/x",
        "/bin/x",
        "/dev/x",
        "/sys/x",
        "/opt/probe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ] {
        let (exit, output) = probe(&["write", path]);
        assert_eq!(exit, Exit::Code(1), "{path}: {output}");
    }
    for path in ["/app/x", "/tmp/x", "/dev/shm/x", "/var/tmp/x"] {
        assert_eq!(probe(&["write", path]).0, Exit::Code(0), "{path}");
    }
}

#[test]
fn the_machine_is_not_to_be_seen() {
    assert_eq!(
        script("ls -A / | sort | tr '\\n' ' '")
            .trim()
            .split(' ')
            .filter(|name| {
                ![
                    "app", "bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "opt", "proc", "run",
                    "sbin", "sys", "tmp", "usr", "var",
                ]
                .contains(name)
            })
            .collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
    assert_eq!(script("ls -A /root /home /run /opt 2>&1").lines().filter(|line| line.contains("No such")).count(), 1);
    assert_eq!(script("ls /etc/shadow /etc/ssl/private /root 2>/dev/null"), "");
    assert_eq!(script("cat /proc/kcore /proc/keys /proc/timer_list /proc/kallsyms 2>/dev/null | wc -c").trim(), "0");
    assert_eq!(script("ls /proc/scsi /proc/acpi 2>/dev/null | grep -v : "), "");
    // Its own processes alone: the init, the shell, and what the shell runs.
    let pids = script("echo /proc/[0-9]*");
    assert_eq!(pids.trim(), "/proc/1 /proc/2");
    assert_eq!(script("cat /proc/1/environ /proc/1/maps 2>/dev/null; ls /proc/1/root/ /proc/1/fd 2>/dev/null"), "");
    assert_eq!(script("cat /proc/self/mountinfo | wc -l").trim().parse::<u32>().map(|count| count < 100), Ok(true));
}

#[test]
fn a_dyno_is_nobody_outside_and_has_no_powers() {
    let status = script(
        "id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; whoami; cat /proc/self/uid_map",
    );
    let lines: Vec<&str> = status.lines().collect();
    assert_eq!(&lines[..3], ["1000", "1000", "1000"]);
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("Cap") && line.ends_with("0000000000000000")).count(),
        5,
        "{status}"
    );
    assert!(
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2") && status.contains("\ndyno\n"),
        "{status}"
    );
    assert!(
        lines.last().is_some_and(|map| map.split_whitespace().eq(["1000", &HOST_UID.to_string(), "1"])),
        "{status}"
    );
}

#[test]
fn nothing_of_the_shim_is_open_inside() {
    assert_eq!(
        script("for fd in /proc/self/fd/*; do readlink $fd; done | grep -v -e pipe: -e /dev/null -e /proc/ | sort -u"),
        ""
    );
    assert_eq!(
        script("trap > /dev/null; grep -E '^Sig(Ign|Blk)' /proc/self/status | cut -f2 | sort -u").trim(),
        "0000000000000000"
    );
}

#[test]
fn memory_is_bounded() {
    let mut dyno =
        Setup::probe(&["allocate", "600000000"]).with(|spec| spec.sandbox.memory_bound_bytes = 64 << 20).start();
    assert_eq!(dyno.exit(), Exit::Signal(libc::SIGKILL));
    assert!(dyno.seen.iter().any(|event| matches!(event, Event::OutOfMemory { .. })), "{:?}", dyno.seen);
    let script = "/opt/probe probe allocate 600000000; sleep 600";
    let mut dyno = Setup::bash(script).with(|spec| spec.sandbox.memory_bound_bytes = 64 << 20).start();
    dyno.wait_for(|event| matches!(event, Event::OutOfMemory { .. }).then_some(()));
    assert_eq!(dyno.exit(), Exit::Signal(libc::SIGKILL), "what is left of it goes too");
}

#[test]
fn processes_are_bounded() {
    let mut dyno = Setup::probe(&["forks"]).start();
    dyno.exit();
    // 64 with the init and the probe itself.
    assert!(dyno.output().contains("stopped at 62"), "{}", dyno.output());
    let mut dyno = Setup::probe(&["forks"]).with(|spec| spec.sandbox.cgroup = None).start();
    dyno.exit();
    assert!(dyno.output().contains("stopped at 6"), "{}", dyno.output());
}

#[test]
fn open_files_are_bounded_and_nothing_dumps_core() {
    assert_eq!(script("ulimit -n; ulimit -Hn; ulimit -c"), "1024\n1024\n0\n");
}

#[test]
fn turns_on_the_processor_are_short() {
    let dyno = Setup::bash("sleep 600").start();
    let mut attributes = [0_u64; 6]; // struct sched_attr; the fourth is the turn in nanoseconds
    let size = size_of_val(&attributes);
    // SAFETY: the place has the size that is said.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, dyno.pid, attributes.as_mut_ptr(), size, 0) };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    // Before Linux 6.12 there are none of a process's own.
    assert!(matches!(attributes[3], 300_000 | 0), "{attributes:?}");
}

#[test]
fn a_dyno_finds_what_it_expects() {
    let output = script(
        "hostname; pwd; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; getent hosts localhost | head -1; ls -l /dev/fd/ > /dev/null && echo fds; echo x > >(cat); cat /etc/heroku/dyno",
    );
    assert!(output.starts_with("dyno\n/app\n268435456\n"), "{output}");
    assert!(output.contains("localhost") && output.contains("fds\n"), "{output}");
    assert!(output.contains("\"name\":\"web.1\"") && output.contains("\"name\":\"sheltered-peak-1234\""), "{output}");
    assert_eq!(script("test -s /etc/ssl/certs/ca-certificates.crt && echo certificates").trim(), "certificates");
    assert_eq!(
        script("echo private > /tmp/x; chmod 600 /tmp/x; stat -c '%u %a' /tmp/x /app/hello.txt | head -1"),
        "1000 600\n"
    );
}

#[test]
fn a_root_is_the_same_whether_it_was_ready_or_is_made() {
    let look = "find / -path /proc -prune -o -path /usr -prune -o -path '/etc/*/*' -prune -o -printf '%p %y %m %U %l\\n' | sort; \
                cut -d' ' -f5,6 /proc/self/mountinfo | sort; cat /etc/hosts /etc/hostname /etc/passwd /etc/resolv.conf";
    let seen = |change: fn(&mut Sandbox)| {
        let mut dyno = Setup::bash(look).with(|spec| change(&mut spec.sandbox)).start();
        assert_eq!(dyno.exit(), Exit::Code(0));
        dyno.output()
    };
    let ready = seen(|_| {});
    assert!(ready.contains("\n/etc/passwd f 644 ") && ready.contains("\n/app rw,"), "{ready}");
    assert_eq!(ready, seen(|sandbox| sandbox.system = None));
    // A platform that ended while the dyno was started.
    let gone = |sandbox: &mut Sandbox| sandbox.system.as_mut().expect("ready").namespace = "/proc/0/fd/3".into();
    assert_eq!(ready, seen(gone));
}

#[test]
fn a_ready_root_is_nowhere_to_be_seen_outside() {
    let place = tempfile::tempdir().expect("a directory");
    let system = System::make(place.path(), &[]).expect("a furnished root");
    assert_eq!(std::fs::read_dir(place.path()).expect("there").count(), 0);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&*place.path().to_string_lossy()), "{mounts}");
    drop(system);
}

#[test]
fn a_link_in_an_image_does_not_lead_a_bind_outside() {
    let target = tempfile::tempdir().expect("a directory");
    let marker = target.path().join("outside");
    std::fs::create_dir(&marker).expect("made");
    let mut dyno = Setup::bash("ls /app/cache/ /app/link/ 2>&1; true")
        .with(|spec| {
            let app = spec.sandbox.layers[0].join("app");
            std::os::unix::fs::symlink(&marker, app.join("link")).expect("a link");
            let source = spec.sandbox.layers[0].clone();
            spec.sandbox.binds.push((source, "/app/link/deeper".into(), false));
        })
        .try_start();
    assert_eq!(std::fs::read_dir(&marker).expect("there").count(), 0, "nothing was made or mounted outside");
    if let Ok(dyno) = &mut dyno {
        dyno.exit();
    }
}

#[test]
fn root_runs_no_dyno_as_itself() {
    for uid in [None, Some(0)] {
        let error = Setup::bash("true").with(|spec| spec.sandbox.host_uid = uid).try_start().err();
        assert!(error.is_some_and(|error| error.contains("needs a user of its own")));
    }
}
