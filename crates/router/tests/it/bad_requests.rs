//! Requests that are refused before any dyno hears of them.

use dozen_domain::limits::Limits;

use crate::harness::{Router, app, assert_line, nobody, saying};

async fn check(request: &str, status: u16) {
    let app = app("strict", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let answer = router.ask(request).await;
    let start: String = request.chars().take(100).collect();
    assert_eq!(answer.status(), status, "{start:?}");
    if status == 400 {
        assert_line(&answer.body, &["<title>Bad request</title>"]);
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "{start:?}");
    }
}

const HOST: &str = "host: strict.apps.test\r\n";

#[tokio::test]
async fn hosts_that_are_missing_or_ambiguous_are_refused() {
    check("GET / HTTP/1.1\r\n\r\n", 400).await;
    check("GET / HTTP/1.0\r\n\r\n", 400).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n"), 400).await;
    check(&format!("GET http://other.apps.test/ HTTP/1.1\r\n{HOST}\r\n"), 400).await;
    check(&format!("GET http://strict.apps.test/ HTTP/1.1\r\n{HOST}\r\n"), 200).await;
    check(&format!("CONNECT strict.apps.test:443 HTTP/1.1\r\n{HOST}\r\n"), 400).await;
}

#[tokio::test]
async fn heads_over_a_limit_are_refused() {
    let long = "x".repeat(8_200);
    check(&format!("GET /{long} HTTP/1.1\r\n{HOST}\r\n"), 400).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}a: {long}\r\n\r\n"), 400).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}{}: x\r\n\r\n", &long[..1_001]), 400).await;
    check(&format!("{} / HTTP/1.1\r\n{HOST}\r\n", "M".repeat(128)), 400).await;
    check(&format!("{} / HTTP/1.1\r\n{HOST}\r\n", "M".repeat(127)), 200).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "a: b\r\n".repeat(1_001)), 400).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "a: b\r\n".repeat(999)), 200).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", format!("a: {}\r\n", &long[..8_000]).repeat(100)), 400).await;
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    check("GET  / HTTP/1.1\r\n\r\n", 400).await;
    check("nonsense\r\n\r\n", 400).await;
    check("GET / HTTP/3.0\r\n\r\n", 400).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}a : b\r\n\r\n"), 400).await;
    check(&format!("GET / HTTP/1.1\r\n{HOST}a: b\r\n folded\r\n\r\n"), 400).await;
}

#[tokio::test]
async fn bodies_of_uncertain_length_are_refused() {
    let post = format!("POST / HTTP/1.1\r\n{HOST}");
    check(&format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\nab"), 400).await;
    check(&format!("{post}content-length: 1, 1\r\n\r\na"), 400).await;
    check(&format!("{post}content-length: -1\r\n\r\n"), 400).await;
    check(&format!("{post}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400).await;
    check(&format!("{post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 400).await;
    check(&format!("{post}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), 400).await;
}

#[tokio::test]
async fn an_app_is_told_of_the_bad_requests_that_name_it() {
    let app = app("told", &[nobody()]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let answer = router.ask("POST / HTTP/1.1\r\nhost: told.apps.test\r\nexpect: a-miracle\r\n\r\n").await;
    assert_eq!(answer.status(), 417);
    let cause = "at=error code=H26 desc=\"Request Error\" cause=\"unsupported expect header value\" method=POST ";
    let line = router.lines.next().await;
    assert!(line.starts_with(cause), "{line}");
    assert_line(&line, &["dyno= connect= service= status=417 bytes= "]);
    let long = "x".repeat(8_200);
    router.ask(&format!("GET / HTTP/1.1\r\nhost: told.apps.test\r\na: {long}\r\n\r\n")).await;
    assert_line(&router.lines.next().await, &["code=H26", "cause=\"bad header\"", "status=400"]);
}
