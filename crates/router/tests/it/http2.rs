//! HTTP/2 from clients and to dynos: streams, trailers both ways, and clients that mean harm.

use bytes::Bytes;
use dozen_api::routes::{App, Dialogue};
use dozen_domain::limits::Limits;
use h2::{Reason, client::SendRequest};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Router, app, assert_line, mirror, saying, silent, soon, web};

async fn connect(router: &Router) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(router.address).await.expect("the router accepts");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    sender.ready().await.expect("a connection")
}

fn request(app: &App, method: &str, path: &str) -> Request<()> {
    let uri = format!("http://{}.apps.test{path}", app.name);
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

async fn body(response: Response<h2::RecvStream>) -> (Vec<u8>, Option<HeaderMap>) {
    let (mut all, mut incoming) = (Vec::new(), response.into_body());
    while let Some(piece) = soon("a piece", incoming.data()).await {
        let piece = piece.expect("a whole body");
        incoming.flow_control().release_capacity(piece.len()).expect("room");
        all.extend_from_slice(&piece);
    }
    (all, incoming.trailers().await.expect("an end"))
}

/// A web process that speaks HTTP/2 alone: sends the request's body back, and its trailers with one more.
async fn grpc() -> std::net::SocketAddr {
    web(|stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let te = request.headers().get("te").cloned();
                let mut incoming = request.into_body();
                let mut outgoing = respond.send_response(Response::new(()), false).expect("a client");
                while let Some(Ok(piece)) = incoming.data().await {
                    incoming.flow_control().release_capacity(piece.len()).expect("room");
                    outgoing.send_data(piece, false).expect("a client");
                }
                let mut trailers = incoming.trailers().await.ok().flatten().unwrap_or_default();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                if let Some(te) = te {
                    trailers.insert("x-te", te);
                }
                outgoing.send_trailers(trailers).expect("a client");
            });
        }
    })
    .await
}

#[tokio::test]
async fn grpc_goes_through_to_a_dyno_that_speaks_http_2() {
    let mut app = app("grpc", &[grpc().await]);
    app.dialogue = Dialogue { http2: true, ..Dialogue::default() };
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut sender = connect(&router).await;
    for _ in 0..3 {
        let mut call = request(&app, "POST", "/pkg.Service/Call");
        call.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let (response, mut outgoing) = sender.send_request(call, false).expect("a stream");
        // Both directions are open at once.
        let response = {
            outgoing.send_data(Bytes::from_static(b"one "), false).expect("a stream");
            soon("a response", response).await.expect("a response")
        };
        outgoing.send_data(Bytes::from_static(b"two"), false).expect("a stream");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        outgoing.send_trailers(trailers).expect("a stream");
        let (bytes, trailers) = body(response).await;
        let trailers = trailers.expect("trailers");
        assert_eq!(bytes, b"one two");
        assert_eq!(
            (&trailers["grpc-status"], &trailers["x-sum"], &trailers["x-te"]),
            (
                &"0".parse::<HeaderValue>().expect("a value"),
                &"7".parse().expect("a value"),
                &"trailers".parse().expect("a value")
            )
        );
        assert_line(
            &router.lines.next().await,
            &["at=info method=POST path=\"/pkg.Service/Call\"", "status=200 bytes=7"],
        );
    }
}

#[tokio::test]
async fn trailers_of_chunks_become_trailers_of_http_2() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let app = app("trails", &[saying(answer).await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let (response, _) = connect(&router).await.send_request(request(&app, "GET", "/"), true).expect("a stream");
    let (bytes, trailers) = body(soon("a response", response).await.expect("a response")).await;
    assert_eq!((&bytes[..], &trailers.expect("trailers")["x-sum"]), (&b"ok"[..], &HeaderValue::from_static("7")));
}

#[tokio::test]
async fn a_request_of_http_2_reaches_the_dyno_as_one_of_http_1() {
    let app = app("plain", &[mirror().await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut call = request(&app, "GET", "/a?b");
    call.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    call.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    call.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
    let (response, _) = connect(&router).await.send_request(call, true).expect("a stream");
    let (bytes, _) = body(soon("a response", response).await.expect("a response")).await;
    let head = String::from_utf8_lossy(&bytes);
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\nhost: plain.apps.test\r\n"), "{head}");
    assert_line(&head, &["cookie: a=1; b=2\r\n", "x-forwarded-for: 6.6.6.6, 127.0.0.1\r\n"]);
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
}

#[tokio::test]
async fn what_http_1_would_read_otherwise_is_refused() {
    let app = app("strict", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut sender = connect(&router).await;
    let refused = [("host", "other.apps.test"), ("content-length", "1, 1"), ("expect", "a-miracle")];
    for (name, value) in refused {
        let mut call = request(&app, "POST", "/");
        call.headers_mut().insert(name, value.parse().expect("a value"));
        let (response, _) = sender.send_request(call, true).expect("a stream");
        match soon("a response", response).await {
            Ok(response) => assert!(matches!(response.status().as_u16(), 400 | 417), "{name}: {:?}", response.status()),
            Err(error) => assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{name}"),
        }
    }
    let (response, _) = sender.send_request(request(&app, "POST", "/"), true).expect("a stream");
    assert_eq!(soon("a response", response).await.expect("a response").status(), 200);
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let app = app("rapid", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = TcpStream::connect(router.address).await.expect("the router accepts");
    let mut flood = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    for index in 0..10_000_u32 {
        let id = (index * 2 + 1).to_be_bytes();
        // GET / over http, without an authority, and at once its reset.
        flood.extend_from_slice(&[&[0, 0, 3, 1, 5][..], &id, &[0x82, 0x84, 0x86]].concat());
        flood.extend_from_slice(&[&[0, 0, 4, 3, 0][..], &id, &[0, 0, 0, 8]].concat());
    }
    // The router hangs up before it has read all.
    let (mut from, mut to) = stream.split();
    let mut answers = Vec::new();
    let (_, read) = tokio::join!(to.write_all(&flood), soon("the end", from.read_to_end(&mut answers)));
    let went_away = answers.windows(4).any(|frame| frame[3] == 7);
    assert!(read.is_err() || went_away, "no end in {} bytes", answers.len());
    assert_eq!(router.get(&app, "/").await.status(), 200);
}

#[tokio::test]
async fn a_head_that_goes_on_for_ever_ends_the_connection() {
    let app = app("endless", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = TcpStream::connect(router.address).await.expect("the router accepts");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("the router reads");
    stream.write_all(&[0, 0, 3, 1, 1, 0, 0, 0, 1, 0x82, 0x84, 0x86]).await.expect("the router reads");
    // A field `a: bbbb...` that is never indexed, again and again, without an end.
    let mut field = vec![0x10, 1, b'a', 0x7f, 0x81, 0x7d];
    field.resize(field.len() + 16_000, b'b');
    let length = (field.len() as u32).to_be_bytes();
    let frame = [&length[1..], &[9, 0, 0, 0, 0, 1], &field].concat();
    let (mut from, mut to) = stream.split();
    let mut answers = Vec::new();
    let flood = async {
        for _ in 0..1_000 {
            if to.write_all(&frame).await.is_err() {
                return true;
            }
        }
        false
    };
    let (cut, _) = tokio::join!(flood, async {
        let _ = soon("the end", from.read_to_end(&mut answers)).await;
    });
    assert!(cut || !answers.is_empty());
    assert_eq!(router.get(&app, "/").await.status(), 200);
}

/// An app whose dyno takes requests and never answers; says when it has one.
async fn stuck(name: &str) -> (App, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let (server, dyno_sees) = silent().await;
    (app(name, &[server]), dyno_sees)
}

#[tokio::test]
async fn a_stream_that_breaks_is_h33_and_one_that_is_given_up_h27() {
    let (app, mut dyno_sees) = stuck("streams").await;
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut sender = connect(&router).await;
    let given_up = "sock=client at=warning code=H27";
    let broken = "at=error code=H33 desc=\"HTTP/2 Stream Broken\"";
    for (reason, expected) in [
        (Reason::CANCEL, given_up),
        (Reason::NO_ERROR, given_up),
        (Reason::PROTOCOL_ERROR, broken),
        (Reason::INTERNAL_ERROR, broken),
    ] {
        // With a body still to come, and with none.
        for whole in [false, true] {
            sender = sender.ready().await.expect("a connection");
            let (response, mut body) = sender.send_request(request(&app, "POST", "/"), whole).expect("a stream");
            soon("the request", dyno_sees.recv()).await.expect("a request");
            body.send_reset(reason);
            let line = router.lines.next().await;
            assert!(line.starts_with(expected), "{reason:?}: {line}");
            assert_line(&line, &["dyno=web.1", "status=499 bytes=0"]);
            drop(response);
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_h33_and_one_that_ends_h27() {
    let (app, mut dyno_sees) = stuck("connections").await;
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    // A frame that no state of a connection allows: DATA on stream 0.
    for (nonsense, expected) in [(&[0, 0, 1, 0, 0, 0, 0, 0, 0, b'x'][..], "code=H33"), (&[], "code=H27")] {
        let mut stream = TcpStream::connect(router.address).await.expect("the router accepts");
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // GET / over http, and the authority as it is.
        let authority = "connections.apps.test";
        let block = [&[0x82, 0x84, 0x86, 0x01, authority.len() as u8][..], authority.as_bytes()].concat();
        bytes.extend_from_slice(&[&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], &block].concat());
        stream.write_all(&bytes).await.expect("the router reads");
        soon("the request", dyno_sees.recv()).await.expect("a request");
        stream.write_all(nonsense).await.expect("the router reads");
        stream.shutdown().await.expect("a connection");
        assert_line(&router.lines.next().await, &[expected, "status=499 bytes=0"]);
    }
}
