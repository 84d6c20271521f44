//! Bodies on their way: streamed both ways, framed anew on each side, never where none belongs.

use dozen_domain::limits::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Answer, Router, app, assert_line, field, get, read_head, saying, short, soon, web};

/// Answers with what comes, piece by piece, until the connection ends.
async fn echo(mut stream: TcpStream) {
    let head = read_head(&mut stream).await;
    if field(&head, "transfer-encoding").as_deref() != Some("chunked") {
        return;
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut piece = [0; 4096];
    // The request's chunks are the response's chunks.
    while let Ok(n) = stream.read(&mut piece).await
        && n > 0
    {
        let _ = stream.write_all(&piece[..n]).await;
    }
}

#[tokio::test]
async fn bodies_are_streamed_in_both_directions_at_once() {
    let app = app("echo", &[web(echo).await]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send("POST / HTTP/1.1\r\nhost: echo.apps.test\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for word in ["one", "two", "three"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        stream.write_all(chunk.as_bytes()).await.expect("the router reads");
        let mut back = vec![0; chunk.len()];
        soon("the echo", stream.read_exact(&mut back)).await.expect("an echo");
        assert_eq!(String::from_utf8_lossy(&back), chunk);
    }
    stream.write_all(b"0\r\n\r\n").await.expect("the router reads");
    let mut end = [0; 5];
    soon("the end", stream.read_exact(&mut end)).await.expect("an end");
    assert_eq!(&end, b"0\r\n\r\n");
    assert_line(&router.lines.next().await, &["at=info", "status=200 bytes=11"]);
}

#[tokio::test]
async fn a_large_body_arrives_whole_in_both_directions() {
    const SIZE: usize = 20 << 20;
    let server = web(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let mut body = vec![0; field(&head, "content-length").expect("a length").parse().expect("a number")];
        stream.read_exact(&mut body).await.expect("a body");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.expect("a reader");
        stream.write_all(&body).await.expect("a reader");
    })
    .await;
    let app = app("large", &[server]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let body: Vec<u8> = (0..SIZE).map(|index| b'a' + (index % 23) as u8).collect();
    let mut stream =
        router.send(&format!("PUT / HTTP/1.1\r\nhost: large.apps.test\r\ncontent-length: {SIZE}\r\n\r\n")).await;
    stream.write_all(&body).await.expect("the router reads");
    let answer = Answer::read(&mut stream).await;
    assert!(answer.body.as_bytes() == body, "the body came back different");
    assert_line(&router.lines.next().await, &[&format!("status=200 bytes={SIZE}")]);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let app =
        app("old", &[saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let answer = router.ask("GET / HTTP/1.0\r\nhost: old.apps.test\r\n\r\n").await;
    assert_eq!((answer.body.as_str(), answer.field("transfer-encoding")), ("hello", None));
}

#[tokio::test]
async fn a_dyno_of_http_1_0_ends_its_body_by_closing() {
    let server = crate::harness::saying_once("HTTP/1.0 200 OK\r\n\r\nhello").await;
    let app = app("older", &[server]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let answer = router.get(&app, "/").await;
    assert_eq!((answer.body.as_str(), answer.whole), ("hello", true));
    assert!(answer.head.starts_with("HTTP/1.1 200 OK"), "{}", answer.head);
    assert_line(&router.lines.next().await, &["at=info", "bytes=5"]);
}

#[tokio::test]
async fn there_is_no_body_where_none_belongs() {
    let (length, nothing) = ("HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n");
    let unchanged = "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n";
    for (method, answer) in [("HEAD", length), ("GET", nothing), ("GET", unchanged)] {
        let app = app("empty", &[saying(answer).await]);
        let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
        // Two on one connection: a body where none belongs would be taken for the second answer.
        let request = format!("{method} / HTTP/1.1\r\nhost: empty.apps.test\r\n\r\n");
        let mut stream = router.send(&request.repeat(2)).await;
        for _ in 0..2 {
            let head = read_head(&mut stream).await;
            assert_eq!(head.get(9..12), answer.get(9..12), "{head}");
            let expected = (method == "HEAD").then(|| "42".to_owned());
            assert_eq!(field(&head, "content-length"), expected, "{head}");
            assert_line(&router.lines.next().await, &["at=info", " bytes=0 "]);
        }
    }
}

#[tokio::test]
async fn a_page_in_answer_to_head_has_no_body() {
    let (router, _control) = Router::start(Limits::default(), &[]).await;
    let request = "HEAD / HTTP/1.1\r\nhost: x.apps.test\r\n\r\n";
    let mut stream = router.send(&request.repeat(2)).await;
    for _ in 0..2 {
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 404") && field(&head, "content-length").is_some(), "{head}");
    }
}

#[tokio::test]
async fn the_router_itself_says_100_continue() {
    let server = web(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert_eq!(field(&head, "expect"), None);
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.expect("a body");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
        let _ = stream.write_all(&body).await;
    })
    .await;
    let app = app("polite", &[server]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let head = "POST / HTTP/1.1\r\nhost: polite.apps.test\r\ncontent-length: 4\r\nexpect: 100-Continue\r\n\r\n";
    let mut stream = router.send(head).await;
    assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.expect("the router reads");
    assert_eq!(Answer::read(&mut stream).await.body, "body");
}

#[tokio::test]
async fn a_broken_chunk_is_h26() {
    let server = web(|mut stream| async move {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let app = app("chunky", &[server]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let head = "POST / HTTP/1.1\r\nhost: chunky.apps.test\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = router.send(head).await;
    stream.write_all(b"5\r\nhello\r\nzz\r\n").await.expect("the router reads");
    assert_eq!(Answer::read(&mut stream).await.status(), 400);
    assert_line(
        &router.lines.next().await,
        &["at=error code=H26 desc=\"Request Error\" cause=\"bad chunk\"", "status=400"],
    );
}

#[tokio::test]
async fn a_get_may_have_a_body() {
    let server = web(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert_eq!(field(&head, "transfer-encoding").as_deref(), Some("chunked"), "{head}");
        let mut body = [0; 10];
        stream.read_exact(&mut body).await.expect("a body");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
        let _ = stream.write_all(&body).await;
    })
    .await;
    let app = app("search", &[server]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let head = "GET / HTTP/1.1\r\nhost: search.apps.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n";
    assert_eq!(router.ask(head).await.body, "5\r\nquery\r\n");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let server = web(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
            .await;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let app = app("early", &[server]);
    let (router, _control) = Router::start(short(), &[&app]).await;
    let mut stream =
        router.send("POST / HTTP/1.1\r\nhost: early.apps.test\r\ncontent-length: 1000000\r\n\r\npart").await;
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status(), answer.body.as_str()), (413, "big"));
}

#[tokio::test]
async fn trailers_pass_to_a_client_that_takes_them() {
    let answer =
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let app = app("trails", &[saying(answer).await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let request = get(&app, "/").replace("\r\n\r\n", "\r\nte: trailers\r\nconnection: te\r\n\r\n");
    let mut stream = router.send(&request).await;
    assert_eq!(field(&read_head(&mut stream).await, "trailer").as_deref(), Some("x-sum"));
    let mut rest = vec![0; "2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n".len()];
    soon("trailers", stream.read_exact(&mut rest)).await.expect("trailers");
    assert_eq!(String::from_utf8_lossy(&rest), "2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n");
}

#[tokio::test]
async fn a_body_that_looks_like_the_servers_own_answer_passes_untouched() {
    const BODY: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let server = web(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 94\r\n\r\n").await;
        // Once the head has arrived, the body is sent in writes of its own.
        for _ in 0..2 {
            let mut tick = [0; 1];
            stream.read_exact(&mut tick).await.expect("a tick");
            let _ = stream.write_all(BODY.as_bytes()).await;
        }
    })
    .await;
    let app = app("mime", &[server]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send("POST / HTTP/1.1\r\nhost: mime.apps.test\r\ncontent-length: 2\r\n\r\n").await;
    read_head(&mut stream).await;
    for _ in 0..2 {
        stream.write_all(b".").await.expect("the router reads");
        let mut body = [0; BODY.len()];
        soon("the body", stream.read_exact(&mut body)).await.expect("a body");
        assert_eq!(String::from_utf8_lossy(&body), BODY);
    }
}

#[tokio::test]
async fn a_bad_request_after_a_good_one_gets_the_page() {
    let app = app("twice", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send(&get(&app, "/")).await;
    assert_eq!(Answer::read(&mut stream).await.body, "ok");
    stream.write_all(b"nonsense\r\n\r\n").await.expect("the router reads");
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status(), answer.field("via").as_deref()), (400, Some("1.1 heroku-router")));
}
