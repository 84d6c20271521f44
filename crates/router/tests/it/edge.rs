//! What happens around requests: proxies in front, browsers kept at a dyno, figures, a table of a hundred thousand hosts.

use std::time::Duration;

use dozen_api::{
    routes::App,
    traffic::{Counts, Summary},
};
use dozen_domain::limits::Limits;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::harness::{Answer, Control, Router, app, assert_line, dyno, field, mirror, saying, saying_once, soon};

async fn behind(app: &App) -> (Router, Control) {
    let directory = TempDir::new().expect("a directory");
    let router = Router::behind(Limits::default(), directory, None, vec!["127.0.0.0/8".parse().expect("a network")]);
    let control = Control::start(&router.run(), vec![app.clone()]).await;
    (router, control)
}

async fn send(router: &Router, pieces: &[&[u8]]) -> Answer {
    let mut stream = TcpStream::connect(router.address).await.expect("the router accepts");
    stream.set_nodelay(true).expect("a socket");
    for piece in pieces {
        stream.write_all(piece).await.expect("the router reads");
        tokio::task::yield_now().await;
    }
    Answer::read(&mut stream).await
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let app = app("proxied", &[mirror().await]);
    let (mut router, _control) = behind(&app).await;
    let request = "GET / HTTP/1.1\r\nhost: proxied.apps.test\r\nx-forwarded-for: 1.1.1.1\r\n\r\n";
    let seen = |answer: &Answer| {
        ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"]
            .map(|name| field(&answer.body, name).unwrap_or_default())
    };
    let first = b"PROXY TCP4 203.0.113.9 198.51.100.2 56324 443\r\n";
    let answer = send(&router, &[first, request.as_bytes()]).await;
    // Whatever the client claims stands before the entry that is the router's own.
    assert_eq!(seen(&answer), ["1.1.1.1, 203.0.113.9", "443", "http"]);
    assert_line(&router.lines.next().await, &["fwd=\"1.1.1.1, 203.0.113.9\""]);
    // However the bytes arrive, and with the request in the same packet.
    let joined = [&first[..], request.as_bytes()].concat();
    assert_eq!(seen(&send(&router, &[&joined]).await)[1], "443");
    let single: Vec<&[u8]> = joined.chunks(1).collect();
    assert_eq!(seen(&send(&router, &single).await)[1], "443");

    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x14".to_vec();
    second.extend_from_slice(&[203, 0, 113, 9, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb]);
    second.extend_from_slice(&[0x20, 0, 5, 1, 0, 0, 0, 0]);
    let answer = send(&router, &[&second, request.as_bytes()]).await;
    assert_eq!(seen(&answer), ["1.1.1.1, 203.0.113.9", "443", "https"]);
    // A health check of the proxy's own.
    let answer = send(&router, &[b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", request.as_bytes()]).await;
    assert_eq!(seen(&answer)[0], "1.1.1.1, 127.0.0.1");
}

#[tokio::test]
async fn a_trusted_proxy_without_a_header_and_a_stranger_with_one_are_refused() {
    let app = app("proxied", &[mirror().await]);
    let (router, _control) = behind(&app).await;
    for start in
        [&b"GET / HTTP/1.1\r\nhost: proxied.apps.test\r\n\r\n"[..], b"PROXY TCP4 999.0.113.9 198.51.100.2 1 443\r\n"]
    {
        let mut stream = TcpStream::connect(router.address).await.expect("the router accepts");
        stream.write_all(start).await.expect("sent");
        let mut answer = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let forged = "PROXY TCP4 203.0.113.9 198.51.100.2 56324 443\r\nGET / HTTP/1.1\r\nhost: proxied.apps.test\r\n\r\n";
    assert_eq!(router.ask(forged).await.status(), 400);
}

#[tokio::test]
async fn a_browser_stays_at_its_dyno_for_as_long_as_that_is_up() {
    let (one, two) = (
        saying("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await,
        saying("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo").await,
    );
    let mut app = app("sticky", &[one, two]);
    let (router, mut control) = Router::start(Limits::default(), &[&app]).await;
    assert_eq!(router.get(&app, "/").await.field("set-cookie"), None, "not unless the app wants it");
    app.edge.session_affinity = true;
    control.upsert(&app).await;
    let first = router.get(&app, "/").await;
    let cookie = first.field("set-cookie").expect("a cookie");
    let (pair, rest) = cookie.split_once("; ").expect("attributes");
    assert!(pair.starts_with("heroku-session-affinity="), "{cookie}");
    assert_eq!(rest, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax");
    let with = format!("GET / HTTP/1.1\r\nhost: sticky.apps.test\r\ncookie: a=b; {pair}; c=d\r\n\r\n");
    for _ in 0..20 {
        let answer = router.ask(&with).await;
        assert_eq!((answer.body.as_str(), answer.field("set-cookie")), (first.body.as_str(), None));
    }
    // Its dyno goes: another answers and is named from then on.
    let gone = usize::from(first.body == "two");
    app.dynos[gone] = dyno(gone as u32 + 1, &[saying("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").await]);
    app.dynos.swap_remove(gone);
    control.upsert(&app).await;
    let answer = router.ask(&with).await;
    assert_ne!(answer.body, first.body);
    assert!(answer.field("set-cookie").is_some_and(|fresh| !fresh.starts_with(pair)));
    // A cookie that is nobody's is no harm.
    let forged = "GET / HTTP/1.1\r\nhost: sticky.apps.test\r\ncookie: heroku-session-affinity=../../x\r\n\r\n";
    assert_eq!(router.ask(forged).await.status(), 200);
}

#[tokio::test]
async fn control_is_told_how_each_apps_requests_went() {
    let good = app("good", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await]);
    let bad = app("bad", &[saying_once("nonsense\r\n\r\n").await]);
    let limits = Limits { router_traffic_ms: 20, ..Limits::default() };
    let (router, mut control) = Router::start(limits, &[&good, &bad]).await;
    for _ in 0..10 {
        assert_eq!(router.get(&good, "/").await.status(), 200);
    }
    assert_eq!(router.get(&bad, "/").await.status(), 503);
    let mut told: Vec<(_, Counts)> = Vec::new();
    let of = |told: &[(_, Counts)], app: &App| {
        Summary::of(told.iter().filter(|(id, _)| *id == app.id).map(|(_, counts)| counts))
    };
    while of(&told, &good).requests + of(&told, &bad).requests < 11 {
        told.extend(control.traffic().await.apps);
    }
    let (good, bad) = (of(&told, &good), of(&told, &bad));
    assert_eq!((good.requests, good.errors, bad.requests, bad.errors), (10, 0, 1, 1));
    assert!(good.p95_ms.is_some_and(|time| time < 5_000), "{good:?}");
}

#[tokio::test]
async fn prometheus_reads_the_routers_own_figures() {
    let app = app("seen", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    for _ in 0..3 {
        assert_eq!(router.get(&app, "/").await.status(), 200);
    }
    assert_eq!(router.ask("GET / HTTP/1.1\r\nhost: nobody.test\r\n\r\n").await.status(), 404);
    assert_eq!(router.ask("GET / HTTP/1.1\r\nhost: seen.apps.test\r\nexpect: x\r\n\r\n").await.status(), 417);
    let ask = async |path: &str| {
        let mut stream = TcpStream::connect(router.metrics).await.expect("the page");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("sent");
        Answer::read(&mut stream).await
    };
    let page = ask("/metrics").await;
    assert_eq!(page.status(), 200);
    assert_line(
        &page.body,
        &[
            "dozen_router_requests_total{status=\"2xx\"} 3\n",
            "dozen_router_requests_total{status=\"4xx\"} 2\n",
            "dozen_router_errors_total{code=\"H26\"} 1\n",
            "dozen_router_upstream_connects_total{outcome=\"opened\"} 1\n",
            "dozen_router_upstream_connects_total{outcome=\"kept\"} 2\n",
            "dozen_router_access_lines_lost_total 0\n",
            "dozen_router_table_generation 1\n",
            "dozen_router_table_apps 1\n",
            "dozen_router_table_hosts 1\n",
            "dozen_router_request_seconds_bucket{le=\"+Inf\"} 5\n",
            "dozen_router_request_seconds_count 5\n",
        ],
    );
    // Every line is a comment, or a name with labels and a number.
    for line in page.body.lines().filter(|line| !line.starts_with('#')) {
        let (name, number) = line.rsplit_once(' ').expect("two words");
        assert!(name.starts_with("dozen_router_") && number.parse::<f64>().is_ok(), "{line}");
    }
    assert_eq!(ask("/").await.status(), 404);
}

#[tokio::test]
async fn a_change_among_a_hundred_thousand_hosts_is_in_force_within_ten_milliseconds() {
    let dyno_address = saying("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await;
    let mut apps: Vec<App> = (0..1_000)
        .map(|number| {
            let mut app = app(&format!("app-{number}"), &[dyno_address]);
            app.hosts = (0..100).map(|host| format!("h{host}.a{number}.example.com")).collect();
            app
        })
        .collect();
    apps[7].hosts.push("*.wild.example.com".to_owned());
    let (router, mut control) = Router::start(Limits::default(), &apps.iter().collect::<Vec<_>>()).await;
    let ask = async |host: &str| router.ask(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await.status();
    assert_eq!(ask("h99.a999.example.com").await, 200);
    assert_eq!(ask("any.wild.example.com").await, 200);
    assert_eq!(ask("h100.a999.example.com").await, 404);
    // From the change leaving control to the router's word that requests see it; the median, as the machine is shared.
    let mut took = Vec::new();
    for round in 0..51 {
        let app = &mut apps[round * 19];
        app.hosts[0] = format!("fresh{round}.example.org");
        let app = app.clone();
        let began = Instant::now();
        control.upsert(&app).await;
        took.push(began.elapsed());
        assert_eq!(ask(&format!("fresh{round}.example.org")).await, 200);
    }
    took.sort_unstable();
    assert!(took[25] < Duration::from_millis(10), "{took:?}");

    // With everything else dead, a router serves from the table on disk.
    let saved = router.run().join("routes.json");
    soon("the table on disk", async {
        while !std::fs::read_to_string(&saved).is_ok_and(|table| table.contains("fresh50.example.org")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(control);
    let alone = Router::with(Limits::default(), router.stop().await, None);
    assert_eq!(alone.ask("GET / HTTP/1.1\r\nhost: h99.a999.example.com\r\n\r\n").await.status(), 200);
    assert_eq!(alone.get(&apps[3], "/").await.status(), 200);
}
