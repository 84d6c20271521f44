//! Drains to receivers that work, fail, stall, come back and lie about who they are.

use std::{fs, time::Duration};

use dozen_api::logs::{Session, Source, announce};
use dozen_domain::{ids::AppId, limits::Limits};
use dozen_testkit::{
    accounting::{Stream, of_drain},
    receivers::{Act, Certificate, Http, Inbox, Syslog, message},
};
use tokio::{io::AsyncReadExt, net::TcpListener, time::timeout};

use crate::{
    receivers::{drain, set},
    role::{LONG, Process, Role, all, line, text},
    shim::Shim,
};

/// Limits with which failures are over soon.
fn quick() -> Limits {
    Limits { drain_request_ms: 300, drain_retry_ms: 1, drain_connect_ms: 2_000, ..Limits::default() }
}

/// The text of a syslog message.
fn said(message: &str) -> &str {
    message.split_once(" - - ").or_else(|| message.split_once(" - ")).expect("a message").1
}

fn numbers(messages: &[String]) -> Vec<u64> {
    messages.iter().filter_map(|message| said(message).parse().ok()).collect()
}

/// Lines told to be dropped.
fn told(messages: &[String]) -> u64 {
    let count = |message: &String| {
        let text = said(message).strip_prefix("Error L10 (output buffer overflow): ")?;
        assert!(message.starts_with("<172>1 ") && message.contains(" heroku logplex "), "{message}");
        text.split_once(" messages dropped since ")?.0.parse::<u64>().ok()
    };
    messages.iter().filter_map(count).sum()
}

fn assert_ordered(numbers: &[u64]) {
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "out of order or repeated: {numbers:?}");
}

#[tokio::test]
async fn a_syslog_server_gets_the_lines_that_come_after_its_drain_in_order() {
    let role = Role::start().await;
    let (app, sender) = (AppId::random(), role.sender());
    sender.send(line(app, Source::App, "web.1", "before"));
    sender.flushed().await;
    let server = Syslog::start().await;
    let drain = drain(app, &server.url);
    set(&role, std::slice::from_ref(&drain)).await;
    sender.send(line(app, Source::App, "web.1", "caf\u{e9}"));
    sender.send(line(app, Source::Heroku, "router", "at=info"));
    sender.send(line(AppId::random(), Source::App, "web.1", "somebody else's"));
    sender.send(line(app, Source::Heroku, "web.1", "State changed from starting to up"));
    let time = "2024-01-01T00:00:00.000000+00:00";
    let token = &drain.token;
    assert_eq!(
        server.inbox.until("to up").await,
        [
            format!("<190>1 {time} {token} app web.1 - - caf\u{e9}"),
            format!("<158>1 {time} {token} heroku router - - at=info"),
            format!("<45>1 {time} {token} heroku web.1 - - State changed from starting to up"),
        ]
    );
    set(&role, &[]).await;
    sender.send(line(app, Source::App, "web.1", "after"));
    sender.flushed().await;
    role.history_up_to(app, "after").await;
    assert_eq!(server.inbox.all().len(), 3, "a removed drain gets nothing more");
    let left = fs::read_dir(role.directory.path().join("logs").join(app.to_string())).unwrap();
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with("drain-")));
}

#[tokio::test]
async fn an_http_receiver_gets_frames_as_logplex_sends_them_over_one_connection() {
    let role = Role::start().await;
    let (app, sender) = (AppId::random(), role.sender());
    let server = Http::start().await;
    let drain = drain(app, &server.url);
    set(&role, std::slice::from_ref(&drain)).await;
    for n in 0..3 {
        sender.send(line(app, Source::App, "web.1", &n.to_string()));
        server.inbox.until(&format!(" - {n}")).await;
    }
    for request in server.requests() {
        let messages = request.checked(&drain.token);
        let host = request.header("host").unwrap();
        assert!(server.url.contains(host), "{host}");
        assert!(messages[0].starts_with("<190>1 2024-01-01T00:00:00.000000+00:00 host app web.1 - "), "{messages:?}");
    }
    assert_eq!(*server.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_frame_is_tried_three_times_under_one_id_and_then_counted() {
    let role = Role::start_with(quick()).await;
    let (app, sender) = (AppId::random(), role.sender());
    let server = Http::start().await;
    set(&role, &[drain(app, &server.url)]).await;
    // Whatever is no refusal is tried again.
    server.next(&[Act::Answer(500), Act::Stall]);
    sender.send(line(app, Source::App, "web.1", "1"));
    assert_eq!(numbers(&server.inbox.until(" - 1").await), [1]);
    server.next(&[Act::Answer(429), Act::Close]);
    sender.send(line(app, Source::App, "web.1", "2"));
    assert_eq!(numbers(&server.inbox.until(" - 2").await), [1, 2]);
    let ids = |from: usize| -> Vec<String> {
        let requests = server.requests.lock().unwrap();
        requests[from..].iter().map(|request| request.header("logplex-frame-id").unwrap().to_owned()).collect()
    };
    let first = ids(0);
    assert!(first.len() == 6 && first[0] == first[1] && first[1] == first[2] && first[3] == first[5], "{first:?}");
    assert_ne!(first[0], first[3]);
    // Three failures, and a refusal, drop their frames.
    server.next(&[Act::Answer(500), Act::Answer(302), Act::Answer(503), Act::Answer(404)]);
    sender.send(line(app, Source::App, "web.1", "3"));
    server.inbox.when(|_| ids(6).len() == 3).await;
    sender.send(line(app, Source::App, "web.1", "4"));
    server.inbox.when(|_| ids(6).len() == 4).await;
    sender.send(line(app, Source::App, "web.1", "5"));
    let messages = server.inbox.until(" - 5").await;
    assert_eq!((numbers(&messages), told(&messages)), (vec![1, 2, 5], 2));
    assert!(said(&messages[2]).starts_with("Error L10"), "the notice stands where the lines are missing: {messages:?}");
}

#[tokio::test]
async fn what_waits_too_long_for_a_dead_receiver_is_dropped_and_the_count_is_exact() {
    let role = Role::start_with(quick()).await;
    let (app, sender) = (AppId::random(), role.sender());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener); // nobody listens
    let working = Syslog::start().await;
    set(&role, &[drain(app, &format!("syslog://{address}")), drain(app, &working.url)]).await;
    for n in 1..=5_000 {
        sender.send(line(app, Source::App, "web.1", &n.to_string()));
    }
    sender.flushed().await;
    let messages = working.inbox.until(" 5000").await;
    let got = numbers(&messages);
    assert_ordered(&got);
    assert_eq!(got.len() as u64 + told(&messages), 5_000);
    let late = Syslog::on(TcpListener::bind(address).await.unwrap());
    let messages = late.inbox.until(" 5000").await;
    assert_eq!(told(&messages), 5_000 - 1_024, "{}", messages[0]);
    assert_eq!(numbers(&messages), (5_000 - 1_024 + 1..=5_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_burst_of_short_lines_from_many_dynos_reaches_a_receiver_that_keeps_up() {
    const DYNOS: u64 = 4;
    const LINES: u64 = 3_000; // each dyno has more before it than may wait for a drain
    // However long the receiver takes on a busy machine, it is waited for.
    let patient = Limits {
        drain_patience_ms: 3_600_000,
        drain_connect_ms: 60_000,
        drain_send_ms: 60_000,
        drain_request_ms: 60_000,
        ..Limits::default()
    };
    let role = Role::start_with(patient).await;
    let app = AppId::random();
    let (server, http) = (Syslog::start().await, Http::start().await);
    set(&role, &[drain(app, &server.url), drain(app, &http.url)]).await;
    let start = |n| Shim::start(&role.dynos(), app, &format!("web.{n}"), 60_000);
    let shims: Vec<Shim> = (1..=DYNOS).map(start).collect();
    for shim in &shims {
        shim.write((0..LINES).map(|n| format!("{n}\n")).collect::<String>());
    }
    for shim in &shims {
        announce(&role.socket(), shim.dyno).await.unwrap();
    }
    for inbox in [&server.inbox, &http.inbox] {
        let counted = |messages: &[String]| numbers(messages).len() as u64 + told(messages) >= DYNOS * LINES;
        let messages = inbox.when(counted).await;
        assert_eq!((numbers(&messages).len() as u64, told(&messages)), (DYNOS * LINES, 0));
    }
}

#[tokio::test]
async fn a_stalled_receiver_delays_neither_others_nor_tails() {
    let role = Role::start_with(quick()).await;
    let (app, sender) = (AppId::random(), role.sender());
    let stalled = TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections and reads nothing
    let (working, http) = (Syslog::start().await, Http::start().await);
    http.next(&[Act::Stall; 3]);
    let url = format!("syslog://{}", stalled.local_addr().unwrap());
    set(&role, &[drain(app, &url), drain(app, &http.url), drain(app, &working.url)]).await;
    let mut tail = role.session(Session { tail: true, ..all(app) });
    tail.caught().await;
    let long = "x".repeat(9_000);
    for n in 1..=2_000 {
        sender.send(line(app, Source::App, "web.1", &long));
        if n % 500 == 0 {
            let mark = format!("mark {n}");
            sender.send(line(app, Source::App, "web.1", &mark));
            tail.until(&mark).await;
            working.inbox.until(&mark).await;
        }
    }
    assert_eq!(told(&working.inbox.all()), 0);
}

#[tokio::test]
async fn a_drain_goes_on_where_the_former_role_ended() {
    let mut role = Role::start_with(quick()).await;
    let (app, sender) = (AppId::random(), role.sender());
    let (syslog, http) = (Syslog::start().await, Http::start().await);
    // Nobody tells the role of them again: it has kept them.
    set(&role, &[drain(app, &syslog.url), drain(app, &http.url)]).await;
    for n in 1..=5 {
        sender.send(line(app, Source::App, "web.1", &n.to_string()));
        sender.flushed().await;
        if n % 2 == 1 {
            syslog.inbox.until(&format!(" - - {n}")).await;
            http.inbox.until(&format!(" - {n}")).await;
        }
        role.restart().await;
    }
    sender.send(line(app, Source::App, "web.1", "6"));
    assert_eq!(numbers(&syslog.inbox.until(" - - 6").await), [1, 2, 3, 4, 5, 6]);
    let expected: Vec<u64> = (1..=6).collect();
    http.inbox.when(|messages| numbers(messages).last() == Some(&6)).await;
    let mut got = numbers(&http.inbox.all());
    got.dedup(); // a frame that was under way may come again, as what it was
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_frame_under_way_when_the_role_is_killed_comes_again_under_its_id() {
    let role = Role::stopped(quick());
    let (app, sender) = (AppId::random(), role.sender());
    let server = Http::start().await;
    server.next(&[Act::Stall]);
    let mut process = Process::start(&role);
    let drains = [drain(app, &server.url)];
    while dozen_api::drains::replace(&role.socket(), drains.to_vec()).await.is_err() {
        tokio::task::yield_now().await; // the role is starting
    }
    sender.send(line(app, Source::App, "web.1", "1"));
    let requests = server.requests.clone();
    let seen = async {
        while requests.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, seen).await.unwrap();
    process.kill();
    sender.send(line(app, Source::App, "web.1", "2"));
    let _again = Process::start(&role);
    assert_eq!(numbers(&server.inbox.until(" - 2").await), [1, 2]);
    let ids: Vec<String> = {
        let requests = requests.lock().unwrap();
        requests.iter().map(|request| request.header("logplex-frame-id").unwrap().to_owned()).collect()
    };
    assert!(ids.len() == 3 && ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn what_a_killed_role_had_sent_and_nobody_confirmed_is_sent_again() {
    let role = Role::stopped(Limits { log_history_lines: 100_000, ..quick() });
    let certificate = Certificate::of("localhost");
    fs::write(role.directory.path().join("trust.pem"), certificate.pem()).unwrap();
    let (app, sender) = (AppId::random(), role.sender());
    let server = Syslog::start_tls(&certificate).await;
    let mut process = Process::start(&role);
    let to = [drain(app, &server.url)];
    while dozen_api::drains::replace(&role.socket(), to.to_vec()).await.is_err() {
        tokio::task::yield_now().await; // the role is starting
    }
    let long = "x".repeat(9_000);
    let mut sent = 0;
    for round in 0..3 {
        // It takes nothing, and what it said first (of TLS) is not read by who only writes: the end of such a connection
        // is a reset, and with it goes what the kernel had still to send.
        server.stall(true);
        for _ in 0..900 {
            sent += 1;
            sender.send(line(app, Source::App, "web.1", &format!("{sent} {long}")));
        }
        sender.flushed().await;
        if round != 1 {
            tokio::time::sleep(Duration::from_millis(300)).await; // at any instant; nothing is waited for
        }
        process.kill();
        server.stall(false);
        process = Process::start(&role);
    }
    sender.send(line(app, Source::App, "web.1", "the end"));
    server.inbox.until(" - - the end").await;
    let connections: Vec<_> = server.inbox.by_connection().iter().map(|all| of_drain(all)).collect();
    println!("{}", Stream::new(role.history(app).await).account("syslog+tls", &connections, 0));
    drop(process);
}

#[tokio::test]
async fn what_a_broken_connection_had_not_carried_is_sent_again() {
    let role = Role::start_with(quick()).await;
    let (app, sender) = (AppId::random(), role.sender());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    set(&role, &[drain(app, &format!("syslog://{}", listener.local_addr().unwrap()))]).await;
    let long = "x".repeat(8_000);
    let mut sent = 0;
    let inbox = Inbox::default();
    // Each connection is read for a while and then reset with bytes unread: what its kernel had confirmed is gone for
    // good, as with any syslog server that dies, but nothing else may be.
    for round in 0..4 {
        for _ in 0..300 {
            sent += 1;
            sender.send(line(app, Source::App, "web.1", &format!("{sent} {long}")));
        }
        let (mut connection, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
        for _ in 0..50 {
            inbox.push(message(&mut connection).await.unwrap());
        }
        if round < 3 {
            sender.flushed().await;
            let mut taken = vec![0; 1 << 20];
            // All that the kernel has confirmed is taken, whole messages or not, so that nothing is lost with it.
            let mut rest = Vec::new();
            while let Ok(Ok(n)) = timeout(Duration::from_millis(100), connection.read(&mut taken)).await {
                rest.extend_from_slice(&taken[..n]);
            }
            let mut rest = rest.as_slice();
            while let Some(message) = message(&mut rest).await {
                inbox.push(message);
            }
            connection.set_zero_linger().unwrap();
        } else {
            sender.send(line(app, Source::App, "web.1", "end"));
            while let Some(message) = message(&mut connection).await {
                let end = said(&message) == "end";
                inbox.push(message);
                if end {
                    break;
                }
            }
        }
    }
    let messages = inbox.all();
    let mut got: Vec<u64> =
        messages.iter().filter_map(|message| said(message).split(' ').next()?.parse().ok()).collect();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len() as u64 + told(&messages), sent);
}

#[tokio::test]
async fn a_tls_server_is_verified_and_told_apart_from_an_impostor() {
    let mut role = Role::stopped(quick());
    let certificate = Certificate::of("localhost");
    fs::write(role.directory.path().join("trust.pem"), certificate.pem()).unwrap();
    role.run().await;
    let (app, sender) = (AppId::random(), role.sender());
    let server = Syslog::start_tls(&certificate).await;
    let impostor = Syslog::start_tls(&Certificate::of("localhost")).await; // which nobody trusts
    set(&role, &[drain(app, &server.url), drain(app, &impostor.url)]).await;
    let mut tail = role.session(Session { tail: true, ..all(app) });
    sender.send(line(app, Source::App, "web.1", "secret"));
    assert!(server.inbox.until("secret").await[0].starts_with("<190>1 "));
    let complaint = loop {
        let (_, line) = tail.line().await;
        if line.contains("L14") {
            break line;
        }
    };
    assert!(complaint.contains("heroku[logplex]: Error L14 (certificate validation): error=\""), "{complaint}");
    assert!(text(&complaint).ends_with(&format!("uri=\"{}\"", impostor.url)), "{complaint}");
    server.inbox.until(text(&complaint)).await;
    assert_eq!(impostor.inbox.all(), Vec::<String>::new());
    // Who asks for it gets it without a look at the certificate.
    set(&role, &[drain(app, &format!("{}#insecure", impostor.url))]).await;
    sender.send(line(app, Source::App, "web.1", "for anyone"));
    assert!(impostor.inbox.until("for anyone").await.iter().all(|message| !message.contains(" secret")));
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told() {
    let mut role = Role::stopped(quick());
    let certificates = [Certificate::expired("localhost"), Certificate::of("logs.example.com")];
    let trusted: String = certificates.iter().map(Certificate::pem).collect();
    fs::write(role.directory.path().join("trust.pem"), trusted).unwrap();
    role.run().await;
    for (certificate, what) in
        certificates.iter().zip(["certificate expired", "not valid for name 'localhost'; certificate is only valid"])
    {
        let (app, sender) = (AppId::random(), role.sender());
        let server = Syslog::start_tls(certificate).await;
        set(&role, &[drain(app, &server.url)]).await;
        let mut tail = role.session(Session { tail: true, ..all(app) });
        sender.send(line(app, Source::App, "web.1", "secret"));
        let complaint = loop {
            let (_, line) = tail.line().await;
            if line.contains("L14") {
                break line;
            }
        };
        assert!(complaint.contains(what), "{complaint}");
        assert_eq!(server.inbox.all(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_https_receiver_gets_each_line_once_whatever_it_does_to_requests() {
    // A frame is never given up, so that no slow moment of the machine counts as the receiver's.
    let mut role = Role::stopped(Limits { drain_tries: u64::MAX, drain_request_ms: 1_000, ..quick() });
    let certificate = Certificate::of("localhost");
    fs::write(role.directory.path().join("trust.pem"), certificate.pem()).unwrap();
    role.run().await;
    let (app, sender) = (AppId::random(), role.sender());
    let server = Http::start_tls(&certificate).await;
    let to = drain(app, &server.url);
    set(&role, std::slice::from_ref(&to)).await;
    let acts = [Act::Answer(500), Act::Stall, Act::Reset, Act::Close, Act::Answer(503), Act::Answer(429)];
    for n in 0..24 {
        // One failure before each line that is taken.
        server.next(&[acts[n % acts.len()]]);
        sender.send(line(app, Source::App, "web.1", &n.to_string()));
        if n % 2 == 1 {
            server.inbox.until(&format!(" - {n}")).await;
        }
    }
    let messages = server.inbox.until(" - 23").await;
    assert_eq!((numbers(&messages), told(&messages)), ((0..24).collect(), 0));
    // Every request was framed as it says, those that were refused too, and what was tried again kept its id.
    let requests = server.requests();
    requests.iter().for_each(|request| drop(request.checked(&to.token)));
    let ids: std::collections::BTreeSet<_> = requests.iter().map(|r| (r.header("logplex-frame-id"), &r.body)).collect();
    let different: std::collections::BTreeSet<_> = ids.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), different.len(), "one id is one frame");
    assert!(requests.len() > ids.len(), "some were tried again");
}
