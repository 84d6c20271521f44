//! Connections to dynos that are kept, and what happens when they turn out to be stale.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dozen_domain::limits::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Answer, Router, app, assert_line, field, get, read_head, web};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A web process whose connections die at their second request; counts connections and requests.
async fn one_answer_each() -> (std::net::SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (connections.clone(), requests.clone());
    let address = web(move |mut stream: TcpStream| {
        counts.0.fetch_add(1, Ordering::SeqCst);
        let requests = counts.1.clone();
        async move {
            read_head(&mut stream).await;
            requests.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(OK).await;
            read_head(&mut stream).await;
        }
    })
    .await;
    (address, connections, requests)
}

#[tokio::test]
async fn a_connection_to_a_dyno_carries_many_requests() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let address = web(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let _ = stream.write_all(OK).await;
            }
        }
    })
    .await;
    let app = app("kept", &[address]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut client = router.send("").await;
    for _ in 0..50 {
        client.write_all(get(&app, "/").as_bytes()).await.expect("the router reads");
        assert_eq!(Answer::read(&mut client).await.body, "ok");
    }
    let opened = connections.load(Ordering::SeqCst);
    assert!(opened <= 5, "{opened} connections for 50 requests");
}

#[tokio::test]
async fn a_request_that_may_be_repeated_survives_a_stale_connection() {
    let (address, connections, requests) = one_answer_each().await;
    let app = app("stale", &[address]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    for _ in 0..10 {
        assert_eq!(router.get(&app, "/").await.body, "ok");
        assert_line(&router.lines.next().await, &["at=info", "status=200"]);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 10);
    assert!(connections.load(Ordering::SeqCst) >= 10);
}

#[tokio::test]
async fn a_request_that_may_have_been_acted_on_is_not_repeated() {
    let (address, _, requests) = one_answer_each().await;
    let app = app("stale", &[address]);
    // The kept connection counts as fresh, however slow this machine is.
    let limits = Limits { router_upstream_fresh_ms: 60_000, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    let post = "POST / HTTP/1.1\r\nhost: stale.apps.test\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(router.ask(post).await.body, "ok");
    router.lines.next().await;
    assert_eq!(router.ask(post).await.status(), 503);
    assert_line(&router.lines.next().await, &["code=H13"]);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_that_cannot_be_repeated_gets_no_connection_that_was_idle_for_long() {
    let (address, connections, _) = one_answer_each().await;
    let app = app("stale", &[address]);
    let limits = Limits { router_upstream_fresh_ms: 0, ..Limits::default() };
    let (router, _control) = Router::start(limits, &[&app]).await;
    let post = "POST / HTTP/1.1\r\nhost: stale.apps.test\r\ncontent-length: 0\r\n\r\n";
    for _ in 0..5 {
        assert_eq!(router.ask(post).await.body, "ok");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_connection_that_the_dyno_closes_is_not_kept() {
    let address = web(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
        let mut more = [0; 1];
        assert_eq!(stream.read(&mut more).await.unwrap_or(0), 0, "a second request came");
    })
    .await;
    let app = app("closing", &[address]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    for _ in 0..5 {
        let answer = router.get(&app, "/").await;
        assert_eq!((answer.status(), field(&answer.head, "connection")), (200, None));
    }
}

#[tokio::test]
async fn a_connection_is_not_shared_before_its_response_has_ended() {
    let (release, released) = tokio::sync::watch::channel(false);
    let address = web(move |mut stream| {
        let mut released = released.clone();
        async move {
            while let head = read_head(&mut stream).await
                && !head.is_empty()
            {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
                if head.starts_with("GET /slow") {
                    let _ = released.wait_for(|released| *released).await;
                }
                let _ = stream.write_all(b"lf").await;
            }
        }
    })
    .await;
    let app = app("shared", &[address]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut slow = router.send(&get(&app, "/slow")).await;
    read_head(&mut slow).await;
    for _ in 0..5 {
        assert_eq!(router.get(&app, "/fast").await.body, "half");
    }
    release.send_replace(true);
    let mut body = [0; 4];
    slow.read_exact(&mut body).await.expect("the rest");
    assert_eq!(&body, b"half");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_get_their_own_answers_and_one_line_each() {
    const CLIENTS: usize = 40;
    const REQUESTS: usize = 50;
    let mut dynos = Vec::new();
    for _ in 0..3 {
        dynos.push(crate::harness::mirror().await);
    }
    let app = app("busy", &dynos);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let mut stream = router.send("").await;
        let app = app.clone();
        clients.push(tokio::spawn(async move {
            for number in 0..REQUESTS {
                let path = format!("/{client}/{number}");
                stream.write_all(get(&app, &path).as_bytes()).await.expect("the router reads");
                let answer = Answer::read(&mut stream).await;
                assert!(answer.body.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{path}: {}", answer.body);
            }
        }));
    }
    for client in clients {
        client.await.expect("no panic");
    }
    let mut paths = std::collections::HashSet::new();
    for _ in 0..CLIENTS * REQUESTS {
        let line = router.lines.next().await;
        assert_line(&line, &["at=info", "status=200"]);
        let path = line.split('"').nth(1).expect("a path").to_owned();
        assert!(paths.insert(path), "{line} came twice");
    }
}

#[tokio::test]
async fn an_app_that_wants_no_kept_connections_gets_none() {
    let (address, connections, _) = one_answer_each().await;
    let heads = crate::harness::mirror().await;
    let (mut counted, mut mirrored) = (app("fresh", &[address]), app("close", &[heads]));
    for app in [&mut counted, &mut mirrored] {
        app.dialogue.keep_alive = false;
    }
    let (router, _control) = Router::start(Limits::default(), &[&counted, &mirrored]).await;
    for _ in 0..5 {
        assert_eq!(router.get(&counted, "/").await.body, "ok");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 5);
    assert_line(&router.get(&mirrored, "/").await.body, &["connection: close\r\n"]);
}
