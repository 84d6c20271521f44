//! Requests that servers are known to read differently, through the router to eight real servers: none may see a
//! request that the router did not see, whatever the router made of what was sent.
//!
//! A smuggled request has a path of its own. What the router saw is in its access lines, what a server saw in its own
//! notes; the second must be a part of the first. The same bytes are also sent to the servers without a router between,
//! where they disagree, which shows that the table is worth something.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use dozen_domain::limits::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    harness::{Router, app, soon},
    servers,
};

/// Field lines that some read as chunks, some as none, and some as an error.
const CODINGS: &[&str] = &[
    "Transfer-Encoding: chunked",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding: CHUNKED",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked\x0c",
    "Transfer-Encoding: chunked\0",
    "\0Transfer-Encoding: chunked",
    "Transfer\0-Encoding: chunked",
    "Transfer_Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding\r\n : chunked",
    "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
    "Connection: content-length",
];

/// Lengths that some read as the number in them and some do not. `{n}` is the number.
const LENGTHS: &[&str] = &[
    "Content-Length: {n}",
    "Content-Length: +{n}",
    "Content-Length: -{n}",
    "Content-Length: 0{n}",
    "Content-Length: 0x{n}",
    "Content-Length: {n}.0",
    "Content-Length: {n}_0",
    "Content-Length: {n} 0",
    "Content-Length: {n},{n}",
    "Content-Length: {n}, 0",
    "Content-Length: 0, {n}",
    "Content-Length: \"{n}\"",
    "Content-Length: {n}\x0b",
    "Content-Length: \x0c{n}",
    "Content-Length: {n}\0",
    "Content-Length : {n}",
    "Content-Length\t: {n}",
    " Content-Length: {n}",
    "Content_Length: {n}",
    "Content-Length:\r\n {n}",
    "X: y\nContent-Length: {n}",
    "X: y\rContent-Length: {n}",
    "Content-Length: 0\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nContent-Length: 0",
    "Content-Length: {n}\r\nContent-Length: {n}",
    "Content-Length: 0\r\nContent-Length : {n}",
    "Content-Length: \r\nContent-Length: {n}",
    "Content-Length: 18446744073709551616{n}",
];

/// Chunked bodies that some take for ended and some do not; `{s}` is the second request.
const CHUNKS: &[&str] = &[
    "0\r\n\r\n{s}",
    "0\n\n{s}",
    "0\n\r\n{s}",
    "0\r\n\n{s}",
    "0\r\r\n{s}",
    "00000000000000000000\r\n\r\n{s}",
    "0x0\r\n\r\n{s}",
    "+0\r\n\r\n{s}",
    "-0\r\n\r\n{s}",
    "0 \r\n\r\n{s}",
    " 0\r\n\r\n{s}",
    "0\t\r\n\r\n{s}",
    "0;\r\n\r\n{s}",
    "0;a=b\r\n\r\n{s}",
    "0;a=\"\r\n\r\n{s}",
    "0;a\n\r\n{s}",
    "0;a\r\n{s}",
    "0 ;a\r\n\r\n{s}",
    "0\0\r\n\r\n{s}",
    "0_0\r\n\r\n{s}",
    "\r\n0\r\n\r\n{s}",
    "1\r\nZ0\r\n\r\n{s}",
    "1\r\nZZ\r\n0\r\n\r\n{s}",
    "1\r\nZ\n0\r\n\r\n{s}",
    "2\nab\n0\n\n{s}",
    "10000000000000000\r\n\r\n{s}",
    "10000000000000001\r\nZ\r\n0\r\n\r\n{s}",
    "0\r\nContent-Length: 5\r\n\r\n{s}",
    "0\r\nTransfer-Encoding: chunked\r\n\r\n{s}",
    "0\r\nHost: other\r\n\r\n{s}",
    "0\r\nno colon\r\n\r\n{s}",
    "0\r\n folded\r\n\r\n{s}",
    "0\r\nX: y\n\r\n{s}",
];

/// Whole first requests, `{h}` being the host and `{p}` the path, behind which the second one comes.
const STARTS: &[&str] = &[
    "GET {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "HEAD {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET {p} HTTP/1.1\nHost: {h}\n\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\n\n",
    "GET {p} HTTP/1.1\rHost: {h}\r\r",
    "GET {p}\r\n\r\n",
    "GET {p} HTTP/0.9\r\nHost: {h}\r\n\r\n",
    "GET {p} HTTP/1.0\r\nHost: {h}\r\nConnection: keep-alive\r\n\r\n",
    "GET {p} HTTP/1.0\r\nHost: {h}\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET {p} HTTP/1.2\r\nHost: {h}\r\n\r\n",
    "GET {p} HTTP/2.0\r\nHost: {h}\r\n\r\n",
    "GET {p} http/1.1\r\nHost: {h}\r\n\r\n",
    "GET {p} HTTP/1.1 \r\nHost: {h}\r\n\r\n",
    "GET  {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET\t{p}\tHTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET {p}\x0bHTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET {p} x HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET {p}#f HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET http://{h}{p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET http://other{p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\nHost: other\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}, other\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\n Host: other\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost : {h}\r\nHost: {h}\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\nX: a\0b\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\nX\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\n: y\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\nX: y\r\n\t\r\n\r\n",
    "\r\n\r\nGET {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "\n\nGET {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "\rGET {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
    "GET {p} HTTP/1.1\r\nHost: {h}\r\nExpect: 100-continue\r\n\r\n",
    "POST {p} HTTP/1.1\r\nHost: {h}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    "POST {p} HTTP/1.1\r\nHost: {h}\r\nContent-Length: 4\r\n\r\nbody\r\n",
    "POST {p} HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
    "POST {p} HTTP/1.1\r\nHost: {h}\r\nConnection: keep-alive, Content-Length\r\nContent-Length: 4\r\n\r\nbody",
    "CONNECT {h}:80 HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "TRACE {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
];

/// All that is sent over one connection each, for one host.
fn requests(host: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<String> = Vec::new();
    let path = |number: usize| format!("/first-{number}");
    let second = |number: usize| format!("GET /second-{number} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for coding in CODINGS {
        for method in ["POST", "GET"] {
            // One who sees no chunks takes the second request for a part of the first; one who does, for its own.
            let number = all.len();
            let body = format!("0\r\n\r\n{}", second(number));
            let start =
                format!("{method} {} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", path(number), body.len());
            all.push(format!("{start}{coding}\r\n\r\n{body}"));
            // And the other way round.
            let number = all.len();
            let (inner, start) = (second(number), format!("{method} {} HTTP/1.1\r\nHost: {host}\r\n", path(number)));
            let size = format!("{:x}\r\n", inner.len());
            let length = size.len();
            all.push(format!("{start}{coding}\r\nContent-Length: {length}\r\n\r\n{size}{inner}\r\n0\r\n\r\n"));
            // Without any length.
            let number = all.len();
            let start = format!("{method} {} HTTP/1.1\r\nHost: {host}\r\n", path(number));
            all.push(format!("{start}{coding}\r\n\r\n0\r\n\r\n{}", second(number)));
        }
    }
    for length in LENGTHS {
        for method in ["POST", "GET"] {
            let number = all.len();
            let body = second(number);
            let length = length.replace("{n}", &body.len().to_string());
            all.push(format!("{method} {} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n\r\n{body}", path(number)));
        }
    }
    for chunks in CHUNKS {
        let number = all.len();
        let body = chunks.replace("{s}", &second(number));
        let start = format!("POST {} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n", path(number));
        all.push(format!("{start}\r\n{body}"));
    }
    for start in STARTS {
        let number = all.len();
        all.push(start.replace("{h}", host).replace("{p}", &path(number)) + &second(number));
    }
    all.into_iter().map(String::into_bytes).collect()
}

/// Sends each of them over a connection of its own, a few at once, and reads until the end or a long silence.
async fn send(address: SocketAddr, requests: &[Vec<u8>], silence: Duration) {
    let mut open = JoinSet::new();
    for request in requests {
        if open.len() >= 64 {
            open.join_next().await;
        }
        let request = request.clone();
        open.spawn(async move {
            let Ok(mut stream) = TcpStream::connect(address).await else { return };
            let mut answer = vec![0; 1 << 14];
            let _ = stream.write_all(&request).await;
            while let Ok(Ok(1..)) = timeout(silence, stream.read(&mut answer)).await {}
        });
    }
    open.join_all().await;
}

fn count(seen: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    seen.into_iter().for_each(|request| *counted.entry(request).or_default() += 1);
    counted
}

/// Method and path of an access line whose request went to a dyno.
fn sent(line: &str) -> Option<(String, String)> {
    let of = |name: &str| line.split(&format!(" {name}=")).nth(1)?.split(' ').next().map(str::to_owned);
    let path = of("path")?;
    (!of("dyno")?.is_empty()).then_some((of("host")?, format!("{} {}", of("method")?, path.trim_matches('"'))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_sees_two_requests_where_the_router_saw_one() {
    let servers = servers::all().await;
    let apps: Vec<_> = servers.iter().map(|server| app(&format!("on-{}", server.name), &[server.address])).collect();
    // Connections end soon after their last answer, and requests whose rest never comes soon as well.
    let limits = Limits { router_keep_alive_ms: 400, router_head_ms: 400, router_idle_ms: 1_500, ..Limits::default() };
    let (mut router, _control) = Router::start(limits, &apps.iter().collect::<Vec<_>>()).await;
    for app in &apps {
        send(router.address, &requests(&format!("{}.apps.test", app.name)), Duration::from_secs(60)).await;
    }
    let mut saw: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for app in &apps {
        // What came before is in the stream of lines before this.
        assert_ne!(router.get(app, "/last").await.status(), 503, "{}", app.name);
    }
    let mut last = 0;
    while last < apps.len() {
        let line = router.lines.next().await;
        last += usize::from(line.contains(" path=\"/last\" "));
        let Some((host, request)) = sent(&line) else { continue };
        *saw.entry(host).or_default().entry(request).or_default() += 1;
    }
    let _directory = soon("the router's end", router.stop()).await;
    for (server, app) in servers.iter().zip(&apps) {
        let host = format!("{}.apps.test", app.name);
        let (saw, seen) = (&saw[&host], count(server.seen()));
        let beyond: Vec<_> = seen.iter().filter(|(request, count)| saw.get(*request).unwrap_or(&0) < *count).collect();
        assert!(beyond.is_empty(), "{} saw what the router did not: {beyond:?}\n{}", server.name, server.said());
        // Not because nothing arrived: the plain ones among them, of both bodies and methods, did.
        let arrived = seen.keys().filter(|request| request.contains("/first-")).count();
        assert!(arrived > 30 && saw.contains_key("GET /last"), "{}: only {arrived} arrived", server.name);
    }
    // Without the router between them servers disagree on most of these.
    let before: Vec<_> = servers.iter().map(|server| count(server.seen())).collect();
    for server in &servers {
        send(server.address, &requests("localhost"), Duration::from_millis(400)).await;
    }
    let mut splits: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (index, (server, before)) in servers.iter().zip(before).enumerate() {
        for (request, count) in count(server.seen()) {
            if request.contains("/second-") && before.get(&request).unwrap_or(&0) < &count {
                splits.entry(request).or_default().insert(index);
            }
        }
    }
    let disputed = splits.values().filter(|split| split.len() < servers.len()).count();
    assert!(disputed > 20, "servers that are asked directly disagree on {disputed} only: {splits:?}");
}
