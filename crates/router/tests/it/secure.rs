//! TLS and HTTP/2 from clients.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use bytes::Bytes;
use dozen_api::routes::{App, Certificate, Challenge, Mode};
use dozen_domain::{config::Secret, limits::Limits};
use dozen_router::Https;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{Answer, Control, Router, app, assert_line, field, mirror, soon};

/// A certificate of its own for each name, as control tells them.
pub(crate) fn certificate(names: &[&str]) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names.clone()).expect("a certificate");
    Certificate { hosts: names, chain: made.cert.pem(), key: Secret::new(made.signing_key.serialize_pem()) }
}

fn write(directory: &Path, made: &Certificate) {
    std::fs::write(directory.join("default.pem"), &made.chain).expect("a file");
    std::fs::write(directory.join("default.key"), made.key.expose()).expect("a file");
}

fn trust<'a>(made: impl IntoIterator<Item = &'a Certificate>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for made in made {
        roots.add(CertificateDer::from_pem_slice(made.chain.as_bytes()).expect("a certificate")).expect("a root");
    }
    roots
}

fn https(directory: &TempDir) -> Https {
    Https {
        listener: std::net::TcpListener::bind("127.0.0.1:0").expect("a port"),
        certificate: directory.path().join("default.pem"),
        key: directory.path().join("default.key"),
    }
}

/// A router whose default certificate is for `any.test` and `*.apps.test`; all certificates of the apps are trusted.
async fn secure(limits: Limits, apps: &[&App]) -> (Router, Control, RootCertStore) {
    let directory = TempDir::new().expect("a directory");
    let default = certificate(&["any.test", "*.apps.test"]);
    write(directory.path(), &default);
    let https = https(&directory);
    let router = Router::with(limits, directory, Some(https));
    let control = Control::start(&router.run(), apps.iter().map(|app| (*app).clone()).collect()).await;
    let roots = trust(apps.iter().flat_map(|app| &app.edge.certificates).chain([&default]));
    (router, control, roots)
}

fn client(roots: &RootCertStore, versions: &[&'static SupportedProtocolVersion], alpn: &[u8]) -> ClientConfig {
    let mut configuration = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    configuration.alpn_protocols = vec![alpn.to_vec()];
    configuration
}

async fn handshake(
    address: SocketAddr,
    name: &'static str,
    configuration: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name).expect("a name");
    soon("a handshake", TlsConnector::from(configuration.clone()).connect(name, stream)).await
}

async fn connect(
    address: SocketAddr,
    name: &'static str,
    roots: &RootCertStore,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    handshake(address, name, &Arc::new(client(roots, &[&TLS13, &TLS12], alpn))).await
}

/// Asks for a host over a connection that was opened for a name.
async fn ask(router: &Router, roots: &RootCertStore, name: &'static str, host: &str) -> Answer {
    let address = router.secure.expect("an address");
    let mut stream = connect(address, name, roots, b"http/1.1").await.expect("a certificate of this name");
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nuser-agent: a \"tester\"\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a reader");
    Answer::read(&mut stream).await
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_or_the_default() {
    let mut app = app("safe", &[mirror().await]);
    app.hosts = vec!["custom.test".to_owned(), "any.test".to_owned()];
    app.edge.certificates = vec![certificate(&["custom.test"])];
    let (mut router, _control, roots) = secure(Limits::default(), &[&app]).await;
    let address = router.secure.expect("an address");
    for name in ["custom.test", "any.test"] {
        let mut stream = connect(address, name, &roots, b"http/1.1").await.expect("a certificate of this name");
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {name}\r\n\r\n").as_bytes()).await.expect("a reader");
        let answer = Answer::read(&mut stream).await;
        assert_eq!(field(&answer.body, "x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(field(&answer.body, "x-forwarded-port"), Some(address.port().to_string()));
        assert_line(&router.lines.next().await, &["at=info", "protocol=https"]);
    }
    // Another name gets the default certificate, which is not for it.
    assert!(connect(address, "other.test", &roots, b"http/1.1").await.is_err());
}

#[tokio::test]
async fn http_2_is_spoken_over_tls_and_in_clear_text_by_prior_knowledge() {
    let mut app = app("two", &[mirror().await]);
    app.hosts = vec!["custom.test".to_owned()];
    app.edge.certificates = vec![certificate(&["custom.test"])];
    let (mut router, _control, roots) = secure(Limits::default(), &[&app]).await;
    let stream = connect(router.secure.expect("an address"), "custom.test", &roots, b"h2").await.expect("a connection");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    http_2(TokioIo::new(stream), "https://custom.test/x?y").await;
    assert_line(&router.lines.next().await, &["method=GET path=\"/x?y\" host=custom.test", "protocol=https"]);
    let stream = TcpStream::connect(router.address).await.expect("a connection");
    http_2(TokioIo::new(stream), "http://custom.test:80/x?y").await;
    assert_line(&router.lines.next().await, &["host=custom.test", "status=200", "protocol=http"]);
}

async fn http_2<I>(io: I, uri: &str)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
    tokio::spawn(connection);
    let request = http::Request::get(uri)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let response = soon("a response", sender.send_request(request)).await.expect("a response");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["via"]),
        (200, &"1.1 heroku-router".parse().expect("a value"))
    );
    let body = soon("a body", response.into_body().collect()).await.expect("a body").to_bytes();
    let head = String::from_utf8_lossy(&body).into_owned();
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    assert!(field(&head, "host").is_some_and(|host| host.starts_with("custom.test")), "{head}");
    assert_eq!(field(&head, "cookie").as_deref(), Some("a=1; b=2"));
}

#[tokio::test]
async fn a_body_over_http_2_reaches_the_dyno() {
    let server = crate::harness::web(|mut stream| async move {
        let head = crate::harness::read_head(&mut stream).await;
        let length: usize = field(&head, "content-length").expect("a length").parse().expect("a number");
        let mut body = vec![0; length];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.expect("a body");
        let _ = stream.write_all(format!("HTTP/1.1 201 Made\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await;
        let _ = stream.write_all(&body).await;
    })
    .await;
    let app = app("post", &[server]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let stream = TcpStream::connect(router.address).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let body = Bytes::from(vec![b'x'; 300_000]);
    let request = http::Request::post("http://post.apps.test/").body(Full::new(body.clone())).expect("a request");
    let response = soon("a response", sender.send_request(request)).await.expect("a response");
    assert_eq!(response.status(), 201);
    assert_eq!(soon("a body", response.into_body().collect()).await.expect("a body").to_bytes(), body);
}

#[tokio::test]
async fn an_http_2_connection_that_nobody_uses_is_closed() {
    let router = Router::alone(Limits { router_keep_alive_ms: 50, ..Limits::default() });
    let stream = TcpStream::connect(router.address).await.expect("a connection");
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    soon("the end", connection).await.expect("a graceful end");
}

#[tokio::test]
async fn a_certificate_that_control_tells_is_shown_from_then_on() {
    let mut app = app("safe", &[mirror().await]);
    app.hosts = vec!["www.custom.test".to_owned(), "*.custom.test".to_owned()];
    let (router, mut control, roots) = secure(Limits::default(), &[&app]).await;
    let address = router.secure.expect("an address");
    assert!(connect(address, "www.custom.test", &roots, b"http/1.1").await.is_err());
    app.edge.certificates = vec![certificate(&["www.custom.test"]), certificate(&["*.custom.test"])];
    let roots = trust(&app.edge.certificates);
    control.upsert(&app).await;
    for name in ["www.custom.test", "other.custom.test"] {
        assert_eq!(ask(&router, &roots, name, name).await.status(), 200);
    }
    // A table from disk brings the keys back, and nobody else can read them.
    let saved = router.run().join("routes.json");
    soon("the table on disk", async {
        while !std::fs::read_to_string(&saved).is_ok_and(|table| table.contains("PRIVATE KEY")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mode = std::fs::metadata(&saved).expect("a table").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(control);
    let directory = router.stop().await;
    let https = https(&directory);
    let alone = Router::with(Limits::default(), directory, Some(https));
    assert_eq!(ask(&alone, &roots, "www.custom.test", "www.custom.test").await.status(), 200);
}

#[tokio::test]
async fn a_request_for_another_app_is_misdirected_whatever_the_certificate() {
    let (mut one, mut two) = (app("one", &[mirror().await]), app("two", &[mirror().await]));
    one.hosts = vec!["one.test".to_owned(), "also.one.test".to_owned(), "bare.one.test".to_owned()];
    two.hosts = vec!["two.test".to_owned()];
    one.edge.certificates = vec![certificate(&["one.test", "also.one.test"])];
    two.edge.certificates = vec![certificate(&["two.test"])];
    let (mut router, _control, roots) = secure(Limits::default(), &[&one, &two]).await;
    let answer = ask(&router, &roots, "one.test", "two.test").await;
    assert_eq!(answer.status(), 421);
    assert_line(&answer.body, &["<title>Misdirected request</title>"]);
    let line = router.lines.next().await;
    assert_line(&line, &["at=error code=H31 desc=\"Misdirected Request\" agent=\"a %22tester%22\" method=GET"]);
    assert_line(&line, &["host=two.test", "dyno= connect= service= status=421 bytes="]);
    // The default certificate names both, which makes neither the other's.
    assert_eq!(ask(&router, &roots, "one.apps.test", "two.apps.test").await.status(), 421);
    assert_line(&router.lines.next().await, &["code=H31"]);
    // A name that is nobody's opens no app either.
    assert_eq!(ask(&router, &roots, "any.test", "two.test").await.status(), 421);
    assert_line(&router.lines.next().await, &["code=H31"]);
    // Within an app, what the certificate names is served, and nothing else.
    assert_eq!(ask(&router, &roots, "one.test", "also.one.test").await.status(), 200);
    assert_line(&router.lines.next().await, &["at=info", "status=200"]);
    let answer = ask(&router, &roots, "one.test", "bare.one.test").await;
    assert_eq!(answer.status(), 495);
    assert_line(&answer.body, &["<title>Certificate mismatch</title>"]);
    assert_line(&router.lines.next().await, &["code=H32 desc=\"TLS Certificate Mismatch\" method=GET", "status=495"]);
}

#[tokio::test]
async fn both_versions_are_spoken_and_their_sessions_resumed() {
    let app = app("safe", &[mirror().await]);
    let (router, _control, roots) = secure(Limits::default(), &[&app]).await;
    let address = router.secure.expect("an address");
    for version in [&TLS12, &TLS13] {
        let configuration = Arc::new(client(&roots, &[version], b"http/1.1"));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = handshake(address, "safe.apps.test", &configuration).await.expect("a handshake");
            stream.write_all(b"GET / HTTP/1.1\r\nhost: safe.apps.test\r\n\r\n").await.expect("a reader");
            assert_eq!(Answer::read(&mut stream).await.status(), 200);
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        assert!(kinds[0] != Some(HandshakeKind::Resumed), "{kinds:?}");
        assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[tokio::test]
async fn a_renewed_default_certificate_is_shown_without_a_restart() {
    let app = app("safe", &[mirror().await]);
    let limits = Limits { router_certificate_look_ms: 10, ..Limits::default() };
    let (router, _control, former) = secure(limits, &[&app]).await;
    let address = router.secure.expect("an address");
    connect(address, "any.test", &former, b"http/1.1").await.expect("the former one");
    let fresh = certificate(&["any.test"]);
    write(&router.run(), &fresh);
    let roots = trust([&fresh]);
    soon("the fresh one", async { while connect(address, "any.test", &roots, b"http/1.1").await.is_err() {} }).await;
}

#[tokio::test]
async fn a_certificate_authority_finds_its_answers_and_nobody_else_does() {
    let mut app = app("fresh", &[mirror().await]);
    app.hosts = vec!["new.test".to_owned(), "other.test".to_owned()];
    app.mode = Mode::Maintenance;
    let shown = certificate(&["new.test"]);
    app.edge.challenges = vec![
        Challenge::Http { host: "new.test".to_owned(), token: "token".to_owned(), answer: "token.thumb".to_owned() },
        Challenge::Tls { host: "new.test".to_owned(), chain: shown.chain.clone(), key: shown.key.clone() },
    ];
    let (mut router, mut control, _) = secure(Limits::default(), &[&app]).await;
    let get =
        |host: &str, token: &str| format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let answer = router.ask(&get("new.test", "token")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, "token.thumb"));
    assert_line(&router.lines.next().await, &["at=info", "dyno= ", "status=200"]);
    for request in [get("other.test", "token"), get("new.test", "tok"), get("new.test", "")] {
        assert_eq!(router.ask(&request).await.status(), 503, "the app's own answer");
        assert_line(&router.lines.next().await, &["code=H80"]);
    }
    let roots = trust([&shown]);
    let address = router.secure.expect("an address");
    let mut stream = connect(address, "new.test", &roots, b"acme-tls/1").await.expect("the challenge's certificate");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    // Nothing is served over it.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: new.test\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = soon("the end", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)).await;
    assert!(rest.is_empty());
    assert!(connect(address, "other.test", &roots, b"acme-tls/1").await.is_err());
    app.edge.challenges.clear();
    control.upsert(&app).await;
    assert!(connect(address, "new.test", &roots, b"acme-tls/1").await.is_err());
}

#[tokio::test]
async fn plain_http_is_sent_to_https_where_the_app_wants_it() {
    let mut app = app("strict", &[mirror().await]);
    let (mut router, mut control, roots) = secure(Limits::default(), &[&app]).await;
    assert_eq!(router.get(&app, "/a?b").await.status(), 200);
    router.lines.next().await;
    app.edge.https_redirect = true;
    control.upsert(&app).await;
    let port = router.secure.expect("an address").port();
    let answer = router.get(&app, "/a?b").await;
    assert_eq!(answer.status(), 308);
    assert_eq!(answer.field("location"), Some(format!("https://strict.apps.test:{port}/a?b")));
    assert_line(&router.lines.next().await, &["at=info method=GET path=\"/a?b\"", "dyno= ", "status=308"]);
    assert_eq!(ask(&router, &roots, "strict.apps.test", "strict.apps.test").await.status(), 200);
}
