//! The listeners: long heads, TLS, connections that are no HTTP, and a stop with requests in flight.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::server::{Server, TOKEN, until};

pub(crate) async fn tls(server: &Server, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    // The first answer says that the role is up and has its certificates.
    server.http("GET", "/stacks", "", b"").await;
    let roots = dozen_control::tls::client_roots(&server.data("tls/ca.pem")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("a configuration").with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.tls).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_sixteen_kilobytes_are_read() {
    let server = Server::start().await;
    let id = "0c9be2e5-6f5b-4b0f-a6c5-0f2c6f4a2f0e";
    let ids = vec![id; 450].join(",");
    let head = format!("Authorization: Bearer {TOKEN}\r\nRequest-Id: {ids}\r\n");
    assert!(head.len() > 16 << 10);
    let (status, _) = server.http("GET", "/account", &head, b"").await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_served_over_tls_under_all_local_names() {
    let server = Server::start().await;
    for name in ["localhost", "127.0.0.1", "::1"] {
        let mut stream = tls(&server, name).await.expect(name);
        let request = format!(
            "GET /account HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        );
        // Torn in two: what a connection speaks is not judged before it can be.
        let (first, rest) = request.split_at(2);
        stream.write_all(first.as_bytes()).await.expect("a beginning");
        stream.flush().await.expect("a flush");
        stream.write_all(rest.as_bytes()).await.expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(tls(&server, "example.com").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_so_and_let_in_when_another_has_gone() {
    let server = Server::with(|limits| limits.api_connections = 1).await;
    let mut first = TcpStream::connect(server.api).await.expect("a connection");
    first.write_all(b"GET /regions HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a request");
    let mut begin = [0; 12];
    first.read_exact(&mut begin).await.expect("an answer");
    assert_eq!(&begin, b"HTTP/1.1 200");
    let (status, refused) = server.http("GET", "/regions", "", b"").await;
    assert!(status == 503 && refused.contains("too_many_connections"), "{refused}");
    assert!(refused.contains("DOZEN_LIMIT_API_CONNECTIONS"), "{refused}");
    let mut stream = tls(&server, "localhost").await.expect("a connection");
    stream.write_all(b"GET /regions HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer and the end");
    assert!(answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
    drop(first);
    until("a place", || async { (server.http("GET", "/regions", "", b"").await.0 == 200).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_nobody_knows_is_met_with_a_close() {
    let server = Server::start().await;
    let mut stream = tls(&server, "localhost").await.expect("a connection");
    stream.write_all(b"0a1b2c3d\r\n").await.expect("a secret");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an end");
    assert!(answer.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_when_the_role_stops() {
    let mut server = Server::start().await;
    let mut stream = TcpStream::connect(server.api).await.expect("a connection");
    let head = format!(
        "POST /apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.expect("a word that the body is wanted");
    assert!(go_on.starts_with(b"HTTP/1.1 100"));
    let mut answer = Vec::new();
    let (stopped, ()) = tokio::join!(server.stop(), async {
        // Idle listeners are gone first.
        while TcpStream::connect(server_address(&stream)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        stream.write_all(br#"{"name":"shop"}"#).await.expect("a body");
        stream.read_to_end(&mut answer).await.expect("an answer");
    });
    let () = stopped;
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
}

fn server_address(stream: &TcpStream) -> std::net::SocketAddr {
    stream.peer_addr().expect("an address")
}
