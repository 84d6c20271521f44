//! TLS and HTTP/2 from clients.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use dozen_domain::limits::Limits;
use dozen_router::{Https, tls};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{Answer, Control, Router, app, assert_line, field, mirror, soon};

fn certificate(directory: &Path, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    std::fs::write(directory.join(format!("{name}.pem")), made.cert.pem()).expect("a file");
    std::fs::write(directory.join(format!("{name}.key")), made.signing_key.serialize_pem()).expect("a file");
    CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("a certificate")
}

/// A router with a default certificate for `any.test` and one for `custom.test`, with the two as roots.
async fn secure(apps: &[&dozen_api::routes::App]) -> (Router, Control, RootCertStore) {
    let directory = TempDir::new().expect("a directory");
    let path = |file: &str| directory.path().join(file);
    let mut roots = RootCertStore::empty();
    for name in ["any.test", "custom.test"] {
        roots.add(certificate(directory.path(), name)).expect("a root");
    }
    let custom = tls::load(&path("custom.test.pem"), &path("custom.test.key")).expect("a certificate");
    let certificates = tls::Certificates::default();
    certificates.replace(HashMap::from([("custom.test".to_owned(), custom)]));
    let https = Https {
        listener: std::net::TcpListener::bind("127.0.0.1:0").expect("a port"),
        certificate: path("any.test.pem"),
        key: path("any.test.key"),
        certificates: Some(Arc::new(certificates)),
    };
    let router = Router::with(Limits::default(), directory, Some(https));
    let control = Control::start(&router.run(), apps.iter().map(|app| (*app).clone()).collect()).await;
    (router, control, roots)
}

async fn connect(
    address: SocketAddr,
    name: &'static str,
    roots: &RootCertStore,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut configuration = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    configuration.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name).expect("a name");
    soon("a handshake", TlsConnector::from(Arc::new(configuration)).connect(name, stream)).await
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_or_the_default() {
    let mut app = app("safe", &[mirror().await]);
    app.hosts = vec!["custom.test".to_owned(), "any.test".to_owned()];
    let (mut router, _control, roots) = secure(&[&app]).await;
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
    let (mut router, _control, roots) = secure(&[&app]).await;
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
