//! Clients and dynos that mean harm, each doing what its attack is known for: what they hold is bounded, others go on
//! being served, and whoever is told wrong things is told so.

use std::time::Duration;

use dozen_api::routes::App;
use dozen_domain::limits::Limits;
use h2::Reason;
use http::Request;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{
    Answer, Control, Router, app, assert_line, field, get, mirror, nobody, read_head, saying, saying_once, silent,
    soon, web,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends a byte again and again until the router hangs up; what it said before that.
async fn drip(stream: &mut TcpStream, byte: u8) -> String {
    let (mut from, mut to) = stream.split();
    let mut answer = Vec::new();
    let dripping = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if to.write_all(&[byte]).await.is_err() {
                // The answer is still to be read.
                std::future::pending::<()>().await;
            }
        }
    };
    let reading = async {
        // A reset may follow the answer.
        let _ = soon("the end", from.read_to_end(&mut answer)).await;
    };
    tokio::select! {
        () = dripping => {}
        () = reading => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off_and_its_app_is_told() {
    let app = app("slow", &[saying(OK).await]);
    let limits = Limits { router_head_ms: 400, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    let mut stream = router.send("GET / HTTP/1.1\r\nhost: slow.apps.test\r\nx-drip: ").await;
    let answer = drip(&mut stream, b'x').await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_line(&answer, &["connection: close\r\n", "<title>Request timeout</title>"]);
    let line = router.lines.next().await;
    assert_line(
        &line,
        &["at=warning code=H28 desc=\"Client Connection Idle\" method=GET path=\"/\"", "dyno= connect="],
    );
    // Before anything names an app, and before anything comes at all.
    let mut nameless = router.send("G").await;
    assert!(drip(&mut nameless, b'E').await.starts_with("HTTP/1.1 408 "));
    assert_eq!(router.get(&app, "/").await.body, "ok");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let limits = Limits { router_keep_alive_ms: 200, ..Limits::default() };
    let (router, _control) = Router::start(limits, &[]).await;
    let mut silent = router.send("").await;
    assert_eq!(read_head(&mut silent).await, "");
    // Nor does one hold that begins like HTTP/2 and goes no further.
    let mut halfway = router.send("PRI * HTTP/2.0\r\n").await;
    assert_eq!(read_head(&mut halfway).await, "");
}

#[tokio::test]
async fn hundreds_of_dripping_heads_keep_nobody_from_being_served() {
    let app = app("busy", &[saying(OK).await]);
    let limits = Limits { router_head_ms: 600_000, ..Limits::default() };
    let (router, _control) = Router::start(limits, &[&app]).await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(router.send("GET / HTTP/1.1\r\nhost: busy.apps.test\r\nx-drip: ").await);
    }
    for _ in 0..20 {
        assert_eq!(router.get(&app, "/").await.body, "ok");
        for stream in &mut held {
            stream.write_all(b"x").await.expect("nobody is cut off for others' sake");
        }
    }
}

/// A web process that waits for bodies without an end.
async fn patient() -> std::net::SocketAddr {
    web(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await
}

#[tokio::test]
async fn bodies_that_drip_lose_their_places_when_places_become_rare() {
    let app = app("drip", &[patient().await]);
    let limits = Limits { router_backlog_per_dyno: 4, router_idle_ms: 3_000, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &[&app]).await;
    let post = "POST / HTTP/1.1\r\nhost: drip.apps.test\r\ncontent-length: 1000000\r\n\r\n";
    // One alone is left in peace, for twice as long as a body is given to bring something.
    let mut alone = router.send(post).await;
    assert!(timeout(Duration::from_millis(7_000), drip(&mut alone, b'x')).await.is_err(), "places were not rare");
    let mut streams = vec![alone];
    for _ in 0..3 {
        streams.push(router.send(post).await);
    }
    let drips = streams.into_iter().map(|mut stream| tokio::spawn(async move { drip(&mut stream, b'x').await }));
    let drips: Vec<_> = drips.collect();
    for _ in 0..3 {
        assert_line(&router.lines.next().await, &["at=warning code=H28", "dyno=web.1", "status=499"]);
    }
    drips.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn heads_without_an_end_are_refused_long_before_they_are_held() {
    let app = app("flood", &[saying(OK).await]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    // One endless line, endless lines, and endless empty lines.
    for piece in ["x".repeat(1 << 16), "a: b\r\n".repeat(1 << 14), "\r\n".repeat(1 << 15)] {
        let start = if piece.starts_with('\r') { "" } else { "GET / HTTP/1.1\r\nhost: flood.apps.test\r\n" };
        let mut stream = router.send(start).await;
        let (mut from, mut to) = stream.split();
        let flood = async {
            for _ in 0..1_000 {
                if to.write_all(piece.as_bytes()).await.is_err() {
                    return true;
                }
            }
            false
        };
        let mut answer = Vec::new();
        let (cut, _) = tokio::join!(soon("the end of the flood", flood), async {
            // A reset follows when too much was on the way.
            let _ = soon("the end", from.read_to_end(&mut answer)).await;
        });
        assert!(cut, "the router read 64 MB of {:?}", &piece[..4]);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
        if !start.is_empty() {
            assert_line(&router.lines.next().await, &["code=H26 desc=\"Request Error\" cause=\"bad header\""]);
        }
    }
    assert_eq!(router.get(&app, "/").await.body, "ok");
}

/// Connects as a load balancer in front does, for a client at this address.
async fn connect_as(router: &Router, client: &str) -> TcpStream {
    router.send(&format!("PROXY TCP4 {client} 198.51.100.2 56324 80\r\n")).await
}

#[tokio::test]
async fn one_address_cannot_hold_all_connections() {
    let app = app("crowd", &[saying(OK).await]);
    let limits = Limits { router_connections_per_address: 8, ..Limits::default() };
    let trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    let mut router = Router::behind(limits, TempDir::new().expect("a directory"), None, trusted);
    let _control = Control::start(&router.run(), vec![app.clone()]).await;
    // Far too many are closed without a word: 0.
    let ask = async |stream: &mut TcpStream| {
        let _ = stream.write_all(get(&app, "/").as_bytes()).await;
        let head = read_head(stream).await;
        let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let _ = stream.read_exact(&mut vec![0; length]).await;
        head.get(9..12).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0)
    };
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = connect_as(&router, "203.0.113.1").await;
        assert_eq!(ask(&mut stream).await, 200);
        assert_line(&router.lines.next().await, &["at=info"]);
        held.push(stream);
    }
    let mut told = connect_as(&router, "203.0.113.1").await;
    assert_eq!(ask(&mut told).await, 503);
    assert_line(&router.lines.next().await, &["code=H22 desc=\"Connection limit reached\"", "fwd=\"203.0.113.1\""]);
    assert_eq!(read_head(&mut told).await, "", "it is closed");
    let mut other = connect_as(&router, "203.0.113.2").await;
    assert_eq!(ask(&mut other).await, 200);
    // With room again, the first is served as well.
    held.clear();
    soon("room", async { while ask(&mut connect_as(&router, "203.0.113.1").await).await != 200 {} }).await;
}

#[tokio::test]
async fn one_app_cannot_hold_all_connections() {
    let (server, mut dyno_sees) = silent().await;
    let (stuck, fine) = (app("stuck", &[server]), app("fine", &[saying(OK).await]));
    let limits = Limits { router_requests_per_app: 2, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &[&stuck, &fine]).await;
    let held = [router.send(&get(&stuck, "/")).await, router.send(&get(&stuck, "/")).await];
    for _ in &held {
        soon("the request", dyno_sees.recv()).await.expect("a request");
    }
    assert_eq!(router.get(&stuck, "/over").await.status(), 503);
    assert_line(&router.lines.next().await, &["path=\"/over\"", "code=H22"]);
    assert_eq!(router.get(&fine, "/").await.body, "ok");
    drop(held);
}

async fn http2(
    router: &Router,
) -> (h2::client::SendRequest<bytes::Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(router.address).await.expect("the router accepts");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    (sender, tokio::spawn(connection))
}

fn request(app: &App) -> Request<()> {
    Request::get(format!("http://{}.apps.test/", app.name)).body(()).expect("a request")
}

#[tokio::test]
async fn requests_that_are_given_up_as_soon_as_a_dyno_has_them_end_the_connection() {
    const LIMIT: usize = 10;
    let (server, mut dyno_sees) = silent().await;
    let app = app("rapid", &[server]);
    let limits = Limits { router_http2_resets: LIMIT as u64, ..Limits::default() };
    let (router, _control) = Router::start(limits, &[&app]).await;
    let (sender, connection) = http2(&router).await;
    let (mut sender, mut sent) = (Some(sender), 0);
    while let Some(ready) = sender.take() {
        let Ok(mut ready) = soon("room for a request", ready.ready()).await else { break };
        let Ok((mut response, _)) = ready.send_request(request(&app), true) else { break };
        sent += 1;
        assert!(sent < 100 * LIMIT, "{sent} requests were given up and nobody minded");
        // The dyno has it, or the connection is at its end.
        tokio::select! {
            _ = dyno_sees.recv() => {}
            _ = &mut response => {}
        }
        drop(response);
        sender = Some(ready);
    }
    let end = soon("the end", connection).await.expect("no panic").expect_err("the router hangs up");
    // Frames that were on their way when it hung up may turn the word into a reset.
    assert!(end.is_io() || end.reason() == Some(Reason::ENHANCE_YOUR_CALM), "{end}");
    assert!(sent >= LIMIT);
}

#[tokio::test]
async fn a_client_that_gives_some_requests_up_is_served_on() {
    let server = web(|mut stream| async move {
        while let head = read_head(&mut stream).await
            && !head.is_empty()
        {
            if !head.starts_with("GET /stuck") {
                let _ = stream.write_all(OK.as_bytes()).await;
            }
        }
    })
    .await;
    let app = app("browser", &[server]);
    let limits = Limits { router_http2_resets: 5, ..Limits::default() };
    let (router, _control) = Router::start(limits, &[&app]).await;
    let (mut sender, _connection) = http2(&router).await;
    for _ in 0..20 {
        for _ in 0..2 {
            sender = soon("room", sender.ready()).await.expect("a connection");
            let (response, _) = sender.send_request(request(&app), true).expect("a stream");
            assert_eq!(soon("a response", response).await.expect("a response").status(), 200);
        }
        let mut stuck = request(&app);
        *stuck.uri_mut() = "http://browser.apps.test/stuck".parse().expect("an address");
        drop(sender.send_request(stuck, true).expect("a stream"));
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_piled_up() {
    let (router, _control) = Router::start(Limits::default(), &[]).await;
    for frame in [&b"\0\0\x08\x06\0\0\0\0\0abcdefgh"[..], b"\0\0\0\x04\0\0\0\0\0"] {
        let mut stream = router.send("").await;
        stream.write_all(PREFACE).await.expect("the router reads");
        // PING and SETTINGS want an answer each. 32 MB of them get none before those are read.
        let flood = frame.repeat((32 << 20) / frame.len());
        let sent = timeout(Duration::from_secs(2), stream.write_all(&flood)).await;
        assert!(!matches!(sent, Ok(Ok(()))), "the router holds answers to {} bytes", flood.len());
    }
}

#[tokio::test]
async fn a_dyno_cannot_split_its_answer() {
    // Bytes that some clients take for a line's end.
    for value in
        ["a\rset-cookie: evil=1", "a\nset-cookie: evil=1", "a\r\r\nset-cookie: evil=1", "a\0b", "a\r\n\tb", "a\x0bb"]
    {
        let answer: &'static str = format!("HTTP/1.1 200 OK\r\nx-a: {value}\r\ncontent-length: 2\r\n\r\nok").leak();
        let app = app("split", &[saying_once(answer).await]);
        let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
        let answer = router.get(&app, "/").await;
        assert_eq!(answer.status(), 503, "{value:?}: {}", answer.head);
        assert!(!answer.head.contains("evil"), "{}", answer.head);
        assert_line(&router.lines.next().await, &["at=error code=H1"]);
    }
    // In the reason, and in trailers.
    for answer in [
        "HTTP/1.1 200 OK\rset-cookie: evil=1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: a\rset-cookie: evil=1\r\n\r\n",
    ] {
        let app = app("split", &[saying_once(answer).await]);
        let (router, _control) = Router::start(Limits::default(), &[&app]).await;
        let mut stream = router.send(&get(&app, "/")).await;
        let mut all = Vec::new();
        let _ = soon("the end", async {
            let head = read_head(&mut stream).await;
            all.extend_from_slice(head.as_bytes());
            if field(&head, "transfer-encoding").is_some() {
                let _ = stream.read_to_end(&mut all).await;
            }
        })
        .await;
        assert!(!String::from_utf8_lossy(&all).contains("evil"), "{}", String::from_utf8_lossy(&all));
    }
}

#[tokio::test]
async fn what_a_dyno_says_too_much_reaches_nobody() {
    // Two answers to one request; and a body where none belongs.
    let twice = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let app = app("double", &[saying(twice).await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send("").await;
    for _ in 0..10 {
        stream.write_all(get(&app, "/").as_bytes()).await.expect("the router reads");
        assert_eq!(Answer::read(&mut stream).await.body, "ok");
        stream.write_all(b"HEAD / HTTP/1.1\r\nhost: double.apps.test\r\n\r\n").await.expect("the router reads");
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn whatever_a_client_claims_the_last_address_is_its_own() {
    let app = app("honest", &[mirror().await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    for claim in [
        "X-Forwarded-For: 6.6.6.6",
        "x-forwarded-for: 6.6.6.6\r\nX-FORWARDED-FOR: 7.7.7.7",
        "X_Forwarded_For: 6.6.6.6",
        "X-Forwarded-For: 6.6.6.6\r\nConnection: x-forwarded-for",
        "X-Forwarded-For: 6.6.6.6\r\nConnection: close, X-Forwarded-For",
        "X-Forwarded-For: 6.6.6.6,",
        "X-Forwarded-For:",
        "X-Forwarded-For: \"",
        "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 6.6.6.6",
        "Forwarded: for=6.6.6.6\r\nConnection: forwarded",
        "Forwarded: for=\"",
    ] {
        let answer = router.ask(&format!("GET / HTTP/1.1\r\nhost: honest.apps.test\r\n{claim}\r\n\r\n")).await;
        let seen = field(&answer.body, "x-forwarded-for").expect("a list");
        assert_eq!(seen.rsplit(", ").next(), Some("127.0.0.1"), "{claim}: {}", answer.body);
        assert_eq!(answer.body.to_ascii_lowercase().matches("forwarded-for:").count(), 1, "{claim}: {}", answer.body);
        assert!(!answer.body.contains("X_Forwarded"), "{claim}: {}", answer.body);
        if claim.contains("Forwarded: for") {
            let seen = field(&answer.body, "forwarded").expect("a list");
            assert!(seen.ends_with(", for=127.0.0.1"), "{claim}: {seen}");
        }
    }
    // A stranger's PROXY header is no header at all.
    let forged = "PROXY TCP4 6.6.6.6 198.51.100.2 1 80\r\nGET / HTTP/1.1\r\nhost: honest.apps.test\r\n\r\n";
    assert_eq!(router.ask(forged).await.status(), 400);
}

#[tokio::test]
async fn a_flood_of_bad_requests_opens_no_connection_to_a_dyno() {
    let app = app("bad", &[nobody()]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    for _ in 0..200 {
        // A dyno that was asked would have refused, with 503.
        let answer = router.ask("GET / HTTP/1.1\r\nhost: bad.apps.test\r\nbad header\r\n\r\n").await;
        assert_eq!(answer.status(), 400);
    }
}

#[tokio::test]
async fn interim_answers_without_an_end_are_cut_off() {
    let server = web(|mut stream| async move {
        read_head(&mut stream).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(1_000);
        while stream.write_all(hints.as_bytes()).await.is_ok() {}
    })
    .await;
    let app = app("hints", &[server]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut stream = router.send(&get(&app, "/")).await;
    let mut hints = 0;
    let head = loop {
        let head = read_head(&mut stream).await;
        if !head.starts_with("HTTP/1.1 103 ") {
            break head;
        }
        hints += 1;
    };
    assert!(head.starts_with("HTTP/1.1 503 ") && hints == 32, "{hints} and then {head}");
    assert_line(&router.lines.next().await, &["code=H17"]);
}
