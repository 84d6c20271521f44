//! Roles killed at each step of a deploy: nothing is lost, nothing is doubled, and requests go on.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use dozen_testkit::{App, LONG, TestPlatform, wait_until};

use crate::{lives, platform};

/// Asks the app all the time; ends with what was not answered with 200.
struct Asking {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Asking {
    fn start(platform: &TestPlatform, host: &str) -> Self {
        let (address, host) = (platform.address("DOZEN_ROUTER_LISTEN"), host.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let answer = ask(&address, &host);
                if !answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                    failed.push(format!("{answer:?}"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            failed
        });
        Self { stop, thread }
    }

    fn failed(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn ask(address: &str, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONG))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A line of the log for each step of a deploy, in their order; a role is killed when it appears.
const STEPS: &[(&str, &str)] = &[
    ("Build started by user", "control"),
    ("Build started by user", "logs"),
    ("Build succeeded", "control"),
    ("Running release command", "control"),
    ("heroku[release.", "logs"),
    ("Starting process with command `/usr/bin/python3", "control"),
    ("State changed from starting to up", "control"),
    ("Stopping all processes with SIGTERM", "control"),
];

#[test]
fn a_role_that_is_killed_at_any_step_of_a_deploy_costs_time_alone() {
    let platform = platform().start();
    let app = App::plain(&platform, "interrupted");
    app.write("Procfile", "web: /usr/bin/python3 -u server.py\nrelease: echo Running release command; sleep 0.2\n");
    app.commit("with a release phase");
    let _pushed = app.push();
    let asking = Asking::start(&platform, "interrupted.localhost");
    for (n, (step, role)) in STEPS.iter().enumerate() {
        app.write("server.py", &App::SERVER.replace("hello from", &format!("hello number {n} from")));
        app.commit(step);
        let from = jiff::Timestamp::now().as_microsecond();
        let mut pushing = platform
            .client_command("git", app.directory())
            .args(["push", "-q", "heroku", "main"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("git");
        // By time: the history is short, and every request is a line of it.
        wait_until(step, LONG, || {
            lives::lines(&app)
                .iter()
                .any(|line| line.at >= from && format!("{}: {}", line.who, line.text).contains(step))
        });
        platform.kill_role(role);
        let pushed = pushing.wait().expect("a child of our own");
        wait_until("the API to answer", LONG, || platform.api("GET", "/account", None).0 == 200);
        if !pushed.success() {
            // As the pusher is told to: push again. What was done already is not done twice.
            let again = || app.try_push().code == Some(0);
            wait_until("the push to go through", LONG, again);
        }
        let expected = format!("hello number {n} from");
        wait_until(&format!("the release that was interrupted at {step:?}"), LONG, || {
            app.get("/").body.contains(&expected)
        });
        wait_until("one web dyno and no more", LONG, || {
            let dynos = platform.api("GET", "/apps/interrupted/dynos", None).1;
            dynos.as_array().is_some_and(|dynos| dynos.len() == 1 && dynos[0]["state"] == "up")
        });
    }
    let failed = asking.failed();
    assert!(failed.is_empty(), "{failed:#?}\n{}", app.log());
    drop(platform.dozen(&["ledger:verify"]).success());
    let (_, releases) = platform.api("GET", "/apps/interrupted/releases", None);
    let releases = releases.as_array().expect("a list");
    let versions: Vec<u64> = releases.iter().filter_map(|release| release["version"].as_u64()).collect();
    assert!(versions.iter().copied().eq(1..=versions.len() as u64), "{versions:?}");
    assert!(releases.iter().all(|release| release["status"] == "succeeded"), "{releases:#?}");
    // The app's two first, its first deploy, one for each step, and at most one more for each push that was repeated.
    assert!((3 + STEPS.len()..=3 + 2 * STEPS.len()).contains(&releases.len()), "{releases:#?}");
}

#[test]
fn the_doctor_says_what_holds_here() {
    let platform = platform().start();
    let said = platform.dozen(&["doctor"]).success();
    drop(said.says("Linux").says("git version").says("MB free").says("the platform runs"));
}
