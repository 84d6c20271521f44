//! `Expect: 100-continue`: the router's own word by default, the dyno's where the app wants that.

use dozen_api::routes::{App, Dialogue};
use dozen_domain::limits::Limits;
use h2::client::ResponseFuture;
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Answer, Router, app, assert_line, field, read_head, short, soon, web};

fn end_to_end(name: &str, dyno: std::net::SocketAddr) -> App {
    let mut app = app(name, &[dyno]);
    app.dialogue = Dialogue { end_to_end_continue: true, ..Dialogue::default() };
    app
}

fn ask(app: &App) -> String {
    format!("POST / HTTP/1.1\r\nhost: {}.apps.test\r\nexpect: 100-Continue\r\ncontent-length: 4\r\n\r\n", app.name)
}

/// A web process that lets clients go on whose path does not forbid it, and says the body back.
async fn choosy(mut stream: TcpStream) {
    while let head = read_head(&mut stream).await
        && !head.is_empty()
    {
        assert_eq!(field(&head, "expect").as_deref(), Some("100-continue"), "{head}");
        // What the connection is to become is said by the answer alone, and an interim one has no fields.
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\nconnection: close\r\nx: y\r\n\r\n").await;
        let mut body = [0; 4];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
        let _ = stream.write_all(&body).await;
    }
}

#[tokio::test]
async fn the_dynos_word_reaches_the_client_where_the_app_wants_that() {
    let app = end_to_end("choosy", web(choosy).await);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send("").await;
    for _ in 0..3 {
        stream.write_all(ask(&app).as_bytes()).await.expect("the router reads");
        assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"body").await.expect("the router reads");
        let answer = Answer::read(&mut stream).await;
        assert_eq!((answer.body.as_str(), answer.field("connection")), ("body", None));
        assert_line(&router.lines.next().await, &["at=info", "status=200 bytes=4"]);
    }
    // One who does not wait gets the same.
    stream.write_all(format!("{}body", ask(&app)).as_bytes()).await.expect("the router reads");
    assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(Answer::read(&mut stream).await.body, "body");
}

#[tokio::test]
async fn a_final_answer_in_place_of_the_word_closes_the_connection() {
    let server = web(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno").await;
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "the body was never asked for");
    })
    .await;
    let app = end_to_end("strict", server);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send(&ask(&app)).await;
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status(), answer.body.as_str()), (401, "no"));
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
    assert_eq!(read_head(&mut stream).await, "");
}

#[tokio::test]
async fn a_dyno_that_gives_no_word_is_h12_and_one_that_gives_two_h17() {
    let silent = web(|mut stream| async move { while !read_head(&mut stream).await.is_empty() {} }).await;
    let (silent, twice) = (end_to_end("silent", silent), end_to_end("twice", web(two_words).await));
    // The client's time to send a body has not begun.
    let (mut router, _control) = Router::start(short(), &[&silent, &twice]).await;
    assert_eq!(router.ask(&ask(&silent)).await.status(), 503);
    assert_line(&router.lines.next().await, &["code=H12", "dyno=web.1"]);
    let mut stream = router.send(&ask(&twice)).await;
    assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(Answer::read(&mut stream).await.status(), 503);
    assert_line(&router.lines.next().await, &["code=H17"]);
}

async fn two_words(mut stream: TcpStream) {
    read_head(&mut stream).await;
    let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
    let _ = stream.read(&mut [0; 16]).await;
}

async fn http2(router: &Router, app: &App) -> (ResponseFuture, h2::SendStream<bytes::Bytes>) {
    let stream = TcpStream::connect(router.address).await.expect("the router accepts");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("a connection");
    let call = Request::post(format!("http://{}.apps.test/", app.name)).header("expect", "100-continue");
    sender.send_request(call.body(()).expect("a request"), false).expect("a stream")
}

#[tokio::test]
async fn a_client_of_http_2_is_told_to_go_on_too() {
    let plain = web(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert_eq!(field(&head, "expect"), None, "{head}");
        // A chunk and the end.
        let mut body = [0; 14];
        stream.read_exact(&mut body).await.expect("a body");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let chunks = web(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert_eq!(field(&head, "expect").as_deref(), Some("100-continue"), "{head}");
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let mut body = [0; 14];
        stream.read_exact(&mut body).await.expect("a body");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let (plain, through) = (app("plain", &[plain]), end_to_end("through", chunks));
    let (router, _control) = Router::start(Limits::default(), &[&plain, &through]).await;
    for app in [&plain, &through] {
        let (mut response, mut body) = http2(&router, app).await;
        let word = soon("a word", std::future::poll_fn(|context| response.poll_informational(context))).await;
        assert_eq!(word.expect("a word").expect("no error").status(), 100);
        body.send_data(bytes::Bytes::from_static(b"body"), true).expect("a stream");
        assert_eq!(soon("a response", response).await.expect("a response").status(), 200);
    }
}
