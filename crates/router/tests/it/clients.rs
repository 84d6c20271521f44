//! Clients that go away, fall silent, upgrade, or are too many.

use dozen_domain::limits::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Answer, Router, app, assert_line, field, get, read_head, saying, short, silent, soon, web};

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_is_h27() {
    let (seen, mut dyno_sees) = tokio::sync::mpsc::unbounded_channel();
    let server = web(move |mut stream| {
        let seen = seen.clone();
        async move {
            read_head(&mut stream).await;
            let _ = seen.send("request");
            let _ = stream.read_u8().await;
            let _ = seen.send("end");
        }
    })
    .await;
    let app = app("abort", &[server]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let stream = router.send(&get(&app, "/")).await;
    assert_eq!(soon("the request", dyno_sees.recv()).await, Some("request"));
    drop(stream);
    let line = router.lines.next().await;
    assert!(
        line.starts_with("sock=client at=warning code=H27 desc=\"Client Request Interrupted\" method=GET"),
        "{line}"
    );
    assert_line(&line, &["dyno=web.1", "status=499 bytes=0"]);
    assert_eq!(soon("the end at the dyno", dyno_sees.recv()).await, Some("end"));
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_its_body_is_h27() {
    let app = app("abort", &[silent().await.0]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let stream = router.send("POST / HTTP/1.1\r\nhost: abort.apps.test\r\ncontent-length: 100\r\n\r\nsome").await;
    drop(stream);
    assert_line(&router.lines.next().await, &["sock=client at=warning code=H27", "status=499"]);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_for_a_dyno_is_h27() {
    let mut app = app("abort", &[]);
    app.web_quantity = 1;
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    drop(router.send(&get(&app, "/")).await);
    assert_line(&router.lines.next().await, &["code=H27", "dyno= connect= service= status=499 bytes= "]);
}

#[tokio::test]
async fn a_client_that_stops_in_its_body_is_h28() {
    let app = app("quiet", &[silent().await.0]);
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    let _stream = router.send("POST / HTTP/1.1\r\nhost: quiet.apps.test\r\ncontent-length: 100\r\n\r\nsome").await;
    assert_line(&router.lines.next().await, &["at=warning code=H28 desc=\"Client Connection Idle\"", "status=499"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let server = web(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
        let piece = vec![b'x'; 1 << 16];
        while stream.write_all(&piece).await.is_ok() {}
    })
    .await;
    let app = app("deaf", &[server]);
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    let _stream = router.send(&get(&app, "/")).await;
    assert_line(&router.lines.next().await, &["at=warning code=H28", "status=499"]);
}

#[tokio::test]
async fn a_body_that_keeps_coming_slowly_is_not_cut() {
    let server = web(|mut stream| async move {
        read_head(&mut stream).await;
        let mut body = [0; 6];
        stream.read_exact(&mut body).await.expect("a body");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let app = app("slow", &[server]);
    let limits = Limits { router_idle_ms: 3_000, router_first_byte_ms: 500, ..Limits::default() };
    let (router, _control) = Router::start(limits, &[&app]).await;
    let mut stream = router.send("POST / HTTP/1.1\r\nhost: slow.apps.test\r\ncontent-length: 6\r\n\r\n").await;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(150));
    for byte in b"slowly" {
        tick.tick().await;
        stream.write_all(&[*byte]).await.expect("the router reads");
    }
    assert_eq!(Answer::read(&mut stream).await.status(), 200);
}

async fn upgrading(mut stream: TcpStream) {
    let head = read_head(&mut stream).await;
    assert_eq!(field(&head, "upgrade").as_deref(), Some("websocket"), "{head}");
    assert_eq!(field(&head, "connection").as_deref(), Some("upgrade"), "{head}");
    let _ = stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\nhello")
        .await;
    let mut piece = [0; 1024];
    while let Ok(n) = stream.read(&mut piece).await
        && n > 0
    {
        let _ = stream.write_all(&piece[..n]).await;
    }
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: wss.apps.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nsec-websocket-key: y\r\n\r\nearly";

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let app = app("wss", &[web(upgrading).await]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send(UPGRADE).await;
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(field(&head, "upgrade").as_deref(), Some("websocket"));
    assert_eq!(field(&head, "sec-websocket-accept").as_deref(), Some("x"));
    let mut hello = [0; 10];
    soon("first bytes", stream.read_exact(&mut hello)).await.expect("bytes");
    assert_eq!(&hello, b"helloearly");
    stream.write_all(b"ping").await.expect("the router reads");
    let mut ping = [0; 4];
    soon("the echo", stream.read_exact(&mut ping)).await.expect("bytes");
    assert_eq!(&ping, b"ping");
    drop(stream);
    assert_line(&router.lines.next().await, &["at=info method=GET path=\"/ws\"", "status=101 bytes=14"]);
}

#[tokio::test]
async fn a_silent_upgraded_connection_is_h15() {
    let app = app("wss", &[web(upgrading).await]);
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    let mut stream = router.send(UPGRADE).await;
    let mut all = Vec::new();
    soon("the end", stream.read_to_end(&mut all)).await.expect("an end");
    assert_line(&router.lines.next().await, &["at=error code=H15"]);
}

#[tokio::test]
async fn a_refused_upgrade_is_a_plain_answer() {
    let app = app("wss", &[saying("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno").await]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let answer = router.ask(UPGRADE.trim_end_matches("early")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (426, "no"));
    assert_line(&router.lines.next().await, &["status=426 bytes=2"]);
}

#[tokio::test]
async fn http_2_in_clear_text_by_upgrade_is_not_passed_on() {
    let app = app("wss", &[crate::harness::mirror().await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let upgrade = "GET / HTTP/1.1\r\nhost: wss.apps.test\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n";
    let answer = router.ask(upgrade).await;
    assert_eq!((field(&answer.body, "upgrade"), field(&answer.body, "http2-settings")), (None, None));
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so() {
    let app = app("crowd", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await]);
    let limits = Limits { router_connections: 1, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    let mut first = router.send(&get(&app, "/")).await;
    assert_eq!(Answer::read(&mut first).await.body, "ok");
    router.lines.next().await;
    assert_eq!(router.get(&app, "/").await.status(), 503);
    assert_line(&router.lines.next().await, &["code=H22 desc=\"Connection limit reached\"", "status=503"]);
    drop(first);
}
