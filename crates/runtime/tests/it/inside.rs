//! Processes and connections inside running dynos.

use std::collections::BTreeMap;

use dozen_api::engine::{Attach, Engine, Entered, Error, Inside, Program};
use dozen_domain::{dyno::Exit, ids::DynoId, limits::Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::platform::Platform;

fn command(command: &str) -> Inside {
    Inside {
        program: Program::Command(command.to_owned()),
        env: BTreeMap::new(),
        attach: Attach::Pipes,
        separate_errors: false,
    }
}

async fn said(entered: &mut Entered) -> String {
    let mut text = String::new();
    entered.output.read_to_string(&mut text).await.expect("text");
    text
}

async fn running(p: &Platform, script: &str) -> DynoId {
    let mut wanted = p.wanted(1, &[("worker", script, 1)]);
    wanted.env.insert("OF_THE_APP".to_owned(), dozen_domain::config::Secret::new("yes"));
    p.engine.apply(wanted).await.expect("applied");
    p.settle(&["worker.1 up"]).await;
    p.dyno("worker.1").id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_where_the_dyno_is_and_as_it_is() {
    let p = Platform::start(Limits::default()).await;
    let dyno = running(&p, "echo here > /tmp/mark; exec sleep 600").await;
    let status = "grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd|Uid):' /proc/self/status";
    let own = "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/mnt; cat /proc/self/cgroup";
    let engine = &p.engine;
    let ask = |script: String| async move {
        let mut entered = engine.enter(dyno, command(&script)).await.expect("entered");
        let text = said(&mut entered).await;
        assert_eq!(entered.exit.await, Ok(Some(Exit::Code(0))), "{text}");
        text
    };
    assert_eq!(
        ask("until cat /tmp/mark 2>/dev/null; do :; done; echo $DYNO $OF_THE_APP $FROM_IMAGE; pwd".into()).await,
        "here\nworker.1 yes yes\n/app\n"
    );
    assert_eq!(
        ask(status.into()).await,
        ask(format!("{} /proc/$(pgrep -x sleep)/status", status.replace("/proc/self/status", ""))).await
    );
    assert!(ask(status.into()).await.contains("Seccomp:\t2"), "filtered");
    let there = own.replace("/self/", "/$(pgrep -x sleep)/");
    assert_eq!(ask(own.into()).await, ask(there).await);
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_terminals_and_exits_are_a_process_own() {
    let p = Platform::start(Limits::default()).await;
    let dyno = running(&p, "exec sleep 600").await;
    let mut apart = Inside { separate_errors: true, ..command("cat; echo bad >&2; exit 3") };
    apart.env.insert("A".to_owned(), "b".to_owned());
    let mut entered = p.engine.enter(dyno, apart).await.expect("entered");
    entered.input.write_all(b"typed").await.expect("sent");
    entered.input.shutdown().await.expect("ended");
    drop(std::mem::replace(&mut entered.input, Box::new(tokio::io::sink())));
    assert_eq!(said(&mut entered).await, "typed");
    let mut errors = String::new();
    entered.errors.as_mut().expect("apart").read_to_string(&mut errors).await.expect("text");
    assert_eq!((errors.as_str(), entered.exit.await), ("bad\n", Ok(Some(Exit::Code(3)))));

    let shell = Inside {
        program: Program::Shell,
        env: [("TERM".to_owned(), "dumb".to_owned())].into(),
        attach: Attach::Terminal { columns: 90, rows: 30 },
        separate_errors: false,
    };
    let mut entered = p.engine.enter(dyno, shell).await.expect("entered");
    entered.resize.as_ref().expect("a terminal")(91, 31);
    entered.input.write_all(b"stty size; tty; kill -9 $$\n").await.expect("sent");
    let text = said(&mut entered).await;
    assert!(text.contains("31 91\r\n") && text.contains("/dev/pts/"), "{text}");
    assert_eq!(entered.exit.await, Ok(Some(Exit::Signal(9))));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_client_is_gone_is_hung_up() {
    let p = Platform::start(Limits::default()).await;
    let dyno = running(&p, "exec sleep 600").await;
    let entered = p.engine.enter(dyno, command("echo up; exec sleep 601")).await.expect("entered");
    let mut first =
        p.engine.enter(dyno, command("until pgrep -fx 'sleep 601' >/dev/null; do :; done")).await.expect("in");
    said(&mut first).await;
    drop(entered);
    let mut gone = p
        .engine
        .enter(dyno, command("while pgrep -fx 'sleep 601' >/dev/null; do :; done; echo gone"))
        .await
        .expect("in");
    assert_eq!(said(&mut gone).await, "gone\n");
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_their_dyno() {
    let p = Platform::start(Limits::default()).await;
    let dyno = running(&p, "exec sleep 600").await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let mut entered =
            p.engine.enter(dyno, command("trap '' TERM; echo up; sleep 600; sleep 600")).await.expect("in");
        let mut up = [0; 3];
        entered.output.read_exact(&mut up).await.expect("up");
        sessions.push(entered);
    }
    p.engine.apply(p.wanted(2, &[("worker", "exec sleep 600", 0)])).await.expect("applied");
    for mut entered in sessions {
        assert_eq!(said(&mut entered).await, "");
        assert_eq!(entered.exit.await, Ok(None));
    }
    p.settle(&[]).await;
    assert!(matches!(p.engine.enter(dyno, command("true")).await, Err(Error::NoSuchDyno | Error::Start { .. })));
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_why() {
    let p = Platform::start(Limits::default()).await;
    let dyno = running(&p, "exec sleep 600").await;
    let entered = p.engine.enter(dyno, command(&"x".repeat(1_000_000))).await.expect("entered");
    let reason = entered.exit.await.expect_err("too long");
    assert!(reason.contains("Argument list too long"), "{reason}");
    let mut many = Vec::new();
    let refused = loop {
        match p.engine.enter(dyno, command("exec sleep 600")).await {
            Ok(entered) => many.push(entered),
            Err(error) => break error,
        }
    };
    assert_eq!(many.len(), 64);
    assert!(std::error::Error::source(&refused).expect("why").to_string().contains("close one"), "{refused}");
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynos_own_loopback_can_be_dialled() {
    let p = Platform::start(Limits::default()).await;
    let serve = "exec python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 9229)); [s.accept()[0].sendall(b\"debugger\") for _ in range(2)]'";
    let dyno = running(&p, serve).await;
    let mut text = String::new();
    let mut stream = loop {
        match p.engine.dial(dyno, "127.0.0.1:9229".parse().expect("an address")).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    stream.read_exact(&mut [0; 8]).await.expect("bytes");
    let refused = p.engine.dial(dyno, "127.0.0.1:1".parse().expect("an address")).await.err().expect("nobody listens");
    text.push_str(&refused.to_string());
    assert!(text.contains("connect to 127.0.0.1:1 from the dyno"), "{text}");
    // This machine's own loopback is another one.
    let here = std::net::TcpListener::bind("127.0.0.1:0").expect("it binds");
    assert!(p.engine.dial(dyno, here.local_addr().expect("an address")).await.is_err());
    p.end().await;
}
