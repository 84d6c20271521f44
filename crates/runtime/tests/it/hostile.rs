//! A hostile app beside another: what it tries to read, to end, to starve or to reach, and what it finds.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use dozen_api::engine::{Engine, OneOff};
use dozen_domain::{config::Secret, dyno::Exit, ids::AppId, limits::Limits};

use crate::{
    dyno::LONG,
    platform::{Platform, SERVE, image},
};

const SECRET: &str = "5ecret-of-the-neighbour";

/// A platform on which a neighbour serves, with a secret in its environment, its files and its memory.
async fn beside_a_neighbour(limits: Limits) -> Platform {
    let mut p = Platform::start(limits).await;
    p.image = image(&p.host, p.app, &[("secret.txt", SECRET)]);
    let mut wanted = p.wanted(1, &[("web", &format!("echo $KEY > /tmp/secret; {SERVE}"), 1)]);
    wanted.env = BTreeMap::from([("KEY".to_owned(), Secret::new(SECRET))]);
    p.engine.apply(wanted).await.expect("applied");
    p.settle(&["web.1 up"]).await;
    p
}

/// A one-off of another app.
fn attack(p: &Platform, script: &str) -> OneOff {
    let app = AppId::random();
    let mut one_off = p.one_off("run.1", script);
    (one_off.app, one_off.image) = (app, image(&p.host, app, &[("own.txt", "own")]));
    one_off
}

/// Runs it to its end: how it ended, what it said.
async fn run(p: &Platform, one_off: OneOff) -> (Exit, String) {
    let dyno = p.engine.run(one_off).await.expect("started");
    let mut text = Vec::new();
    let mut output = p.engine.output(dyno.id).await.expect("output");
    tokio::io::AsyncReadExt::read_to_end(&mut output, &mut text).await.expect("text");
    (p.engine.wait(dyno.id).await.expect("it ends"), String::from_utf8_lossy(&text).into_owned())
}

fn answers(p: &Platform) -> bool {
    let mut greeting = String::new();
    let stream = TcpStream::connect_timeout(&p.address("web.1"), LONG);
    stream.and_then(|stream| stream.take(5).read_to_string(&mut greeting)).is_ok() && greeting == "hello"
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&entry.path(), found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_neighbour_or_of_the_platform_is_read_from_inside() {
    let p = beside_a_neighbour(Limits::default()).await;
    let data = p.data.path().display().to_string();
    let script = format!(
        "exec 2>/dev/null; ls -A {data} /var/lib/dozen; cat {data}/run/dynos/*/dyno.json; \
         cat /proc/[0-9]*/environ /proc/[0-9]*/root/app/secret.txt | tr '\\0' '\\n' | grep {SECRET}; \
         grep -rs {SECRET} /app /tmp /dev/shm /run /var /home /opt/x; ls /proc | grep -c '^[0-9]'; ls -A /tmp /dev/shm | tail -n +2"
    );
    let (_, said) = run(&p, attack(&p, &script)).await;
    let processes: u32 = said.lines().find_map(|line| line.parse().ok()).expect("its own processes");
    assert!(processes <= 5, "{said}");
    assert!(!said.contains(SECRET) && !said.contains("network.json") && !said.contains("\"app\""), "{said}");
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn even_outside_its_container_an_apps_user_may_nothing() {
    let p = beside_a_neighbour(Limits::default()).await;
    let hostile = attack(&p, "cat /proc/self/uid_map");
    let (_, map) = run(&p, hostile).await;
    let uid: u32 = map.split_whitespace().nth(1).and_then(|uid| uid.parse().ok()).expect("its user outside");
    assert!(uid > 65_536, "{map}");
    let as_it = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).uid(uid).gid(uid).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut files = Vec::new();
    files_below(p.data.path(), &mut files);
    assert!(files.iter().any(|path| path.ends_with("shim.sock")) && files.len() > 10, "{files:?}");
    for path in &files {
        let path = path.to_str().expect("text");
        assert!(!as_it("/usr/bin/test", &["-r", path]).0, "{path} can be read");
        assert!(!as_it("/usr/bin/test", &["-w", path]).0, "{path} can be written");
    }
    // The neighbour's init, its command and its shim.
    let web = p.dyno("web.1");
    let procs = Path::new("/sys/fs/cgroup/pids").join(p.host.cgroup(web.id).expect("a group")).join("cgroup.procs");
    let pids = fs::read_to_string(procs).unwrap_or_default();
    assert!(pids.lines().count() >= 2, "{pids:?}");
    for pid in pids.lines() {
        assert!(!as_it("/usr/bin/kill", &["-9", pid]).0, "{pid} can be killed");
        for file in ["environ", "mem", "root/app/secret.txt", "maps", "fd/0"] {
            let path = format!("/proc/{pid}/{file}");
            assert!(!as_it("/usr/bin/head", &["-c1", &path]).0, "{path} can be read");
        }
    }
    assert!(answers(&p));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_signals_only_itself() {
    let p = beside_a_neighbour(Limits::default()).await;
    let script = "for pid in $(seq 1 3000); do [ $pid = $$ ] || kill -9 $pid 2>/dev/null; done; kill -9 -1 2>/dev/null; echo alive";
    let (exit, said) = run(&p, attack(&p, script)).await;
    assert_eq!((exit, said.as_str()), (Exit::Code(0), "alive\n"), "its init does not die of it either");
    assert!(answers(&p));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_all_it_can_get_meets_its_own_bounds() {
    let limits = Limits { dyno_disk_bytes: 64 << 20, dyno_disk_files: 1_024, ..Limits::default() };
    let p = beside_a_neighbour(limits).await;
    let probe = "/opt/dozen/bin/dozen probe";
    for (script, met) in [
        ("bomb() { bomb | bomb & }; bomb; bomb() { :; }; sleep 1; echo over; kill -9 -1".to_owned(), "fork: "),
        (format!("{probe} forks"), "stopped at 25"),
        (format!("{probe} hoard"), "stopped at 999"),
        ("cat /dev/zero > /tmp/full; cat /dev/zero > /app/full".to_owned(), "No space left on device"),
        ("n=0; while : > /tmp/$n; do n=$((n + 1)); done; echo $n".to_owned(), "No space left on device"),
        ("cat /dev/zero > /dev/shm/full".to_owned(), "No space left on device"),
        (format!("{probe} allocate 3000000000; echo survived"), ""),
        ("head -c 64M /dev/zero | tr '\\0' 'x'; echo; echo the last line".to_owned(), "the last line"),
    ] {
        let (exit, said) = run(&p, attack(&p, &format!("exec 2>&1; {script}"))).await;
        let tail = &said[said.floor_char_boundary(said.len().saturating_sub(300))..];
        assert!(said.contains(met), "{script}: {exit:?} {tail}");
        assert!(!said.contains("survived"), "{script}: {exit:?} {tail}");
        assert!(answers(&p), "the neighbour after {script}");
    }
    p.end().await;
}
