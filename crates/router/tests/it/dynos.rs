//! Dynos that misbehave: each way has its code.

use std::net::SocketAddr;

use dozen_domain::limits::Limits;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::harness::{
    Answer, Router, app, assert_line, dyno, get, nobody, read_head, saying, saying_once, short, web, web_on,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn check(dyno: SocketAddr, status: u16, parts: &[&str]) {
    let app = app("broken", &[dyno]);
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    let answer = router.get(&app, "/").await;
    let line = router.lines.next().await;
    assert_eq!(answer.status(), status, "{line}");
    assert_line(&answer.body, &["<title>Application error</title>"]);
    assert_line(&line, parts);
    assert_line(&line, &[&format!("status={status} "), "dyno=web.1"]);
}

#[tokio::test]
async fn no_answer_in_time_is_h12() {
    let stall = web(|mut stream| async move { while !read_head(&mut stream).await.is_empty() {} }).await;
    check(stall, 503, &["at=error code=H12 desc=\"Request timeout\"", " bytes=0 "]).await;
}

#[tokio::test]
async fn a_close_without_a_byte_is_h13() {
    let close = saying_once("").await;
    check(close, 503, &["at=error code=H13 desc=\"Connection closed without response\"", " bytes=0 "]).await;
}

#[tokio::test]
async fn what_is_not_http_is_h17() {
    let h17 = &["at=error code=H17 desc=\"Poorly formatted HTTP response\""];
    check(saying("hello\r\n\r\n").await, 503, h17).await;
    check(saying("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n").await, 503, h17).await;
    check(saying("HTTP/1.1 200 OK\r\nno colon\r\n\r\n").await, 503, h17).await;
    check(saying("HTTP/1.1 200 OK\r\na: b\r\n folded\r\ncontent-length: 0\r\n\r\n").await, 503, h17).await;
    check(saying("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n").await, 503, h17).await;
    check(saying("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await, 503, h17)
        .await;
}

#[tokio::test]
async fn a_status_line_may_have_an_empty_reason() {
    let app = app("tomcat", &[saying("HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok").await]);
    let (router, _control) = Router::start(short(), &[&app]).await;
    assert_eq!(router.get(&app, "/").await.body, "ok");
}

#[tokio::test]
async fn half_a_head_is_h18_and_so_is_half_a_body() {
    check(saying_once("HTTP/1.1 200 OK\r\ncontent-le").await, 503, &["sock=backend at=error code=H18"]).await;
    let app = app("half", &[saying_once("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await]);
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    let answer = router.get(&app, "/").await;
    assert!(answer.status() == 200 && !answer.whole);
    let line = router.lines.next().await;
    assert!(line.starts_with("sock=backend at=error code=H18 desc=\"Server Request Interrupted\""), "{line}");
    assert_line(&line, &["status=503 bytes=4"]);
}

#[tokio::test]
async fn a_response_that_stops_in_the_middle_is_h15() {
    let app = app("idle", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await]);
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    let answer = router.get(&app, "/").await;
    assert!(answer.status() == 200 && !answer.whole);
    assert_line(&router.lines.next().await, &["at=error code=H15 desc=\"Idle connection\"", "status=503 bytes=4"]);
}

#[tokio::test]
async fn a_refused_connection_is_h21_and_then_the_dyno_is_passed_over() {
    let (up, down) = (saying(OK).await, nobody());
    let mut app = app("refusing", &[down]);
    let limits = Limits { router_quarantine_first_ms: 60_000, router_quarantine_ms: 60_000, ..short() };
    let (mut router, mut control) = Router::start(limits, &[&app]).await;
    router.get(&app, "/").await;
    assert_line(
        &router.lines.next().await,
        &["code=H21 desc=\"Backend connection refused\"", "dyno=web.1", "service= status=503"],
    );
    // Still in quarantine, and nothing else to try.
    router.get(&app, "/").await;
    assert_line(
        &router.lines.next().await,
        &["code=H34 desc=\"All up dynos are quarantined\"", "dyno= connect= service= status=503"],
    );
    app.dynos.push(dyno(2, &[up]));
    control.upsert(&app).await;
    for _ in 0..20 {
        assert_eq!(router.get(&app, "/").await.status(), 200);
        assert_line(&router.lines.next().await, &["at=info", "dyno=web.2"]);
    }
}

#[tokio::test]
async fn a_dyno_that_refuses_is_replaced_by_another_within_the_request() {
    for _ in 0..10 {
        let app = app("mixed", &[nobody(), saying(OK).await, nobody()]);
        let (mut router, _control) = Router::start(short(), &[&app]).await;
        assert_eq!(router.get(&app, "/").await.status(), 200);
        assert_line(&router.lines.next().await, &["at=info", "dyno=web.2"]);
    }
}

#[tokio::test]
async fn the_number_of_attempts_is_limited() {
    let app = app("none", &(0..5).map(|_| nobody()).collect::<Vec<_>>());
    let limits = Limits {
        router_connect_attempts: 2,
        router_quarantine_first_ms: 60_000,
        router_quarantine_ms: 60_000,
        ..short()
    };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    for expected in ["code=H21", "code=H21", "code=H21", "code=H34"] {
        router.get(&app, "/").await;
        assert_line(&router.lines.next().await, &[expected]);
    }
}

#[tokio::test]
async fn a_connection_that_is_not_taken_is_h19() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let full = listener.local_addr().expect("an address");
    // Fills the queue of connections that nobody accepts.
    let mut held = Vec::new();
    while let Ok(connected) = timeout(std::time::Duration::from_millis(200), TcpStream::connect(full)).await {
        held.push(connected);
        assert!(held.len() < 100, "the queue never fills");
    }
    let app = app("full", &[full]);
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    assert_eq!(router.get(&app, "/").await.status(), 503);
    let line = router.lines.next().await;
    assert_line(&line, &["code=H19 desc=\"Backend connection timeout\"", "dyno=web.1", "service= status=503"]);
    let connect = line.split("connect=").nth(1).and_then(|rest| rest.split("ms").next()).expect("a time");
    assert!(connect.parse::<u64>().expect("a number") >= 500, "{line}");
}

#[tokio::test]
async fn responses_over_a_limit_are_h25() {
    fn leak(text: String) -> &'static str {
        Box::leak(text.into_boxed_str())
    }
    let long = "x".repeat(9_000);
    let cookie = leak(format!("HTTP/1.1 200 OK\r\nset-cookie: a={long}\r\ncontent-length: 0\r\n\r\n"));
    check(saying(cookie).await, 502, &["code=H25 desc=\"HTTP restriction: oversized cookie\""]).await;
    let status = leak(format!("HTTP/1.1 200 {long}\r\ncontent-length: 0\r\n\r\n"));
    check(saying(status).await, 502, &["code=H25 desc=\"HTTP restriction: oversized status line\""]).await;
    let header = leak(format!("HTTP/1.1 200 OK\r\na: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(600_000)));
    check(saying(header).await, 502, &["code=H25 desc=\"HTTP restriction: oversized header\""]).await;
    let lengths = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
    check(saying(lengths).await, 502, &["code=H25 desc=\"HTTP restriction: invalid content length\""]).await;
    check(saying("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").await, 502, &["invalid content length"]).await;
}

#[tokio::test]
async fn a_server_on_ipv6_alone_is_reached_at_its_second_address() {
    let server = web_on("[::1]:0", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(OK.as_bytes()).await;
    })
    .await;
    let mut app = app("six", &[server]);
    app.dynos[0].addresses.insert(0, ([127, 0, 0, 1], server.port()).into());
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    assert_eq!(router.get(&app, "/").await.body, "ok");
}

#[tokio::test]
async fn a_length_beside_chunks_is_dropped_on_the_way() {
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let app = app("both", &[saying(both).await]);
    let (router, _control) = Router::start(short(), &[&app]).await;
    let mut stream = router.send(&get(&app, "/")).await;
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.body.as_str(), answer.field("content-length")), ("hello", None));
}

#[tokio::test]
async fn a_request_that_finds_all_dynos_in_quarantine_is_served_once_one_of_them_listens() {
    // An address of this process's own, which nobody else takes meanwhile.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let down = SocketAddr::from(([127, a | 0x80, b, c], 8_999));
    let app = app("mending", &[down]);
    let limits = Limits {
        router_connect_attempts: 10_000,
        router_quarantine_first_ms: 20,
        router_quarantine_ms: 200,
        ..Limits::default()
    };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    router.get(&app, "/").await;
    assert_line(&router.lines.next().await, &["code=H21"]);
    // Tries again and again, ever more rarely, without a change of the table.
    let mut waiting = router.send(&get(&app, "/")).await;
    web_on(&down.to_string(), |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(OK.as_bytes()).await;
    })
    .await;
    assert_eq!(Answer::read(&mut waiting).await.body, "ok");
    assert_line(&router.lines.next().await, &["at=info", "dyno=web.1", "status=200"]);
}

#[tokio::test]
async fn a_request_that_finds_all_dynos_in_quarantine_gives_up_after_as_many_attempts_as_any() {
    let app = app("gone", &[nobody(), nobody()]);
    let limits = Limits {
        router_connect_attempts: 5,
        router_quarantine_first_ms: 10,
        router_quarantine_ms: 20,
        ..Limits::default()
    };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    // Some find a dyno that is out of its quarantine by then.
    let mut line = String::new();
    for _ in 0..1_000 {
        router.get(&app, "/").await;
        line = router.lines.next().await;
        if line.contains("code=H34") {
            break;
        }
        assert_line(&line, &["code=H21"]);
    }
    assert_line(&line, &["code=H34 desc=\"All up dynos are quarantined\"", "status=503"]);
}
