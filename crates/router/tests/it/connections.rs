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
