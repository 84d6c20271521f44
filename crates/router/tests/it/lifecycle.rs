//! The router while control dies, comes back, or was never there; and its own stop.

use dozen_domain::limits::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Answer, Control, LONG, Router, app, assert_line, get, held, read_head, saying, short, silent, soon, web,
};

const ONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
const TWO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo";

#[tokio::test]
async fn routing_goes_on_while_control_is_dead_and_follows_the_next_one() {
    let one = app("one", &[saying(ONE).await]);
    let (router, control) = Router::start(Limits::default(), &[&one]).await;
    drop(control);
    assert_eq!(router.get(&one, "/").await.body, "one");
    let two = app("two", &[saying(TWO).await]);
    let _control = Control::start(&router.run(), vec![two.clone()]).await;
    assert_eq!(router.get(&two, "/").await.body, "two");
    assert_eq!(router.get(&one, "/").await.status(), 404);
}

#[tokio::test]
async fn control_is_told_which_dynos_that_left_still_have_requests() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let answering = std::sync::Arc::new(tokio::sync::Notify::new());
    let may = answering.clone();
    let slow = web(move |mut stream| {
        let (asked, may) = (asked.clone(), may.clone());
        async move {
            read_head(&mut stream).await;
            let _ = asked.send(());
            may.notified().await;
            let _ = stream.write_all(ONE.as_bytes()).await;
        }
    })
    .await;
    let mut one = app("one", &[slow]);
    let (router, mut control) = Router::start(Limits::default(), &[&one]).await;
    let mut stream = router.send(&get(&one, "/")).await;
    soon("the request", was_asked.recv()).await.expect("a request");
    let old = one.dynos[0].id;
    one.dynos[0] = app("one", &[saying(TWO).await]).dynos.remove(0);
    let ack = control.upsert(&one).await;
    assert_eq!(ack.busy, [old]);
    // New requests go to the other one meanwhile.
    assert_eq!(router.get(&one, "/").await.body, "two");
    answering.notify_one();
    assert_eq!(Answer::read(&mut stream).await.body, "one");
    let again = control.hear().await;
    assert_eq!((again.generation, again.busy), (ack.generation, Vec::new()));
}

#[tokio::test]
async fn a_router_without_control_starts_from_the_table_on_disk() {
    let one = app("one", &[saying(ONE).await]);
    let (router, control) = Router::start(Limits::default(), &[&one]).await;
    drop(control);
    let saved = router.run().join("routes.json");
    soon("the table on disk", async {
        while !saved.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let directory = router.stop().await;
    let router = Router::with(Limits::default(), directory, None);
    assert_eq!(router.get(&one, "/").await.body, "one");
}

#[tokio::test]
async fn a_table_on_disk_that_makes_no_sense_is_passed_over() {
    let directory = tempfile::TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("routes.json"), b"{\"snapshot\":").expect("a file");
    let router = Router::with(Limits::default(), directory, None);
    let one = app("one", &[saying(ONE).await]);
    let _control = Control::start(&router.run(), vec![one.clone()]).await;
    assert_eq!(router.get(&one, "/").await.body, "one");
}

#[tokio::test]
async fn requests_wait_for_the_first_table_but_not_for_ever() {
    let one = app("one", &[saying(ONE).await]);
    let router = Router::alone(Limits { router_table_wait_ms: LONG.as_millis() as u64, ..Limits::default() });
    let mut waiting = router.send(&get(&one, "/")).await;
    let _control = Control::start(&router.run(), vec![one.clone()]).await;
    assert_eq!(Answer::read(&mut waiting).await.body, "one");

    let router = Router::alone(short());
    assert_eq!(router.get(&one, "/").await.status(), 503);
}

#[tokio::test]
async fn open_requests_finish_when_the_router_stops() {
    let (slow, mut begun, release) = held(ONE).await;
    let app = app("slow", &[slow]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut idle = router.send("").await;
    let mut open = router.send(&get(&app, "/")).await;
    soon("the request", begun.recv()).await;
    router.begin_stop();
    // An idle connection is closed at once.
    assert_eq!(read_head(&mut idle).await, "");
    release.send_replace(true);
    let answer = Answer::read(&mut open).await;
    assert_eq!(answer.body, "one");
    assert_line(&router.lines.next().await, &["at=info", "status=200"]);
    router.stop().await;
}

#[tokio::test]
async fn requests_that_do_not_finish_in_time_are_cut_with_h24() {
    let (stuck, mut begun) = silent().await;
    let app = app("stuck", &[stuck]);
    let (mut router, _control) = Router::start(Limits { router_drain_ms: 50, ..Limits::default() }, &[&app]).await;
    let _open = router.send(&get(&app, "/")).await;
    soon("the request", begun.recv()).await;
    router.begin_stop();
    let line = router.lines.next().await;
    assert_line(&line, &["at=error code=H24 desc=\"Forced close\"", "dyno=web.1", " status= bytes=0 "]);
    router.stop().await;
}

/// A web process that upgrades to anything and echoes.
async fn echoing() -> std::net::SocketAddr {
    web(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            .await;
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: socket.apps.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn web_sockets_go_on_for_as_long_as_a_stop_may_take_and_are_then_cut_with_h24() {
    let app = app("socket", &[echoing().await]);
    let limits = Limits { router_drain_ms: LONG.as_millis() as u64, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    let mut stream = router.send(UPGRADE).await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut idle = router.send("").await;
    router.begin_stop();
    // Idle connections are closed by then, and the socket goes on.
    assert_eq!(read_head(&mut idle).await, "");
    for _ in 0..3 {
        stream.write_all(b"ping").await.expect("the router reads");
        let mut echo = [0; 4];
        soon("the echo", stream.read_exact(&mut echo)).await.expect("an echo");
    }
    drop(stream);
    assert_line(&router.lines.next().await, &["at=info", "path=\"/ws\"", "status=101 bytes=12"]);
    router.stop().await;

    let limits = Limits { router_drain_ms: 50, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    let mut stream = router.send(UPGRADE).await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    router.begin_stop();
    let mut rest = Vec::new();
    // A reset says the same.
    let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    assert_line(&router.lines.next().await, &["code=H24 desc=\"Forced close\"", "path=\"/ws\"", " status= "]);
    router.stop().await;
}

#[tokio::test]
async fn an_http_2_connection_says_goodbye_and_finishes_what_it_carries() {
    let (slow, mut begun, release) = held(ONE).await;
    let app = app("slow", &[slow]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let connect = async || {
        let stream = tokio::net::TcpStream::connect(router.address).await.expect("the router accepts");
        let (sender, connection) = h2::client::handshake::<_>(stream).await.expect("a handshake");
        (sender, tokio::spawn(connection))
    };
    let (idle, idle_connection) = connect().await;
    let (sender, connection) = connect().await;
    let mut sender = sender.ready().await.expect("a connection");
    let call = http::Request::get("http://slow.apps.test/").body(()).expect("a request");
    let (response, _) = sender.send_request(call, true).expect("a stream");
    soon("the request", begun.recv()).await;
    router.begin_stop();
    // Without a request it ends at once; with one it takes no other.
    soon("the idle connection's end", idle_connection).await.expect("no panic").expect("a goodbye");
    drop(idle);
    soon("the goodbye", async {
        while sender.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    release.send_replace(true);
    assert_eq!(soon("a response", response).await.expect("a response").status(), 200);
    soon("the connection's end", connection).await.expect("no panic").expect("a goodbye");
    assert_line(&router.lines.next().await, &["at=info", "status=200"]);
    router.stop().await;
}
