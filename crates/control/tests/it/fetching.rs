//! Sources that the platform fetches itself: only from where it may.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dozen_control::{ops::fetch, state::Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::api::Api;

/// A server that answers every request with this; its address, and how often it was connected to.
async fn server(host: &str, answer: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((host, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let met = Arc::new(AtomicUsize::new(0));
    let count = met.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut head = vec![0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, met)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn allowing(networks: &[&str]) -> Api {
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = Settings::of_directory(directory.path().to_owned());
    settings.fetch_allow_networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
    Api::open(directory, settings).await
}

async fn fetched(api: &Api, url: &str) -> Result<String, String> {
    let path = api.directory.path().join("fetched");
    let url = fetch::check(url).expect("an address");
    fetch::to_file(&api.context, &url, &path, 1_000).await.map_err(|error| error.to_string())?;
    Ok(std::fs::read_to_string(&path).expect("a file"))
}

#[tokio::test]
async fn the_machine_itself_is_not_fetched_from() {
    let api = allowing(&[]).await;
    let (address, met) = server("127.0.0.1", ok("secret")).await;
    let port = address.rsplit(':').next().expect("a port");
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]", "127.1"] {
        let error = fetched(&api, &format!("http://{host}:{port}/x.tgz")).await.expect_err(host);
        assert!(!error.contains("secret"), "{error}");
    }
    let error = fetched(&api, &format!("http://127.0.0.1:{port}/x.tgz?key=hidden")).await.expect_err("refused");
    assert!(error.contains("DOZEN_FETCH_ALLOW_NETWORKS") && !error.contains("hidden"), "{error}");
    assert_eq!(met.load(Ordering::Relaxed), 0, "nobody was connected to");
}

#[tokio::test]
async fn what_the_operator_allows_is_fetched_from_and_what_it_redirects_to_is_not() {
    let api = allowing(&["127.0.0.1/32"]).await;
    let (secret, met) = server("127.0.0.2", ok("secret")).await;
    let (good, _) = server("127.0.0.1", ok("a source")).await;
    assert_eq!(fetched(&api, &format!("http://{good}/x.tgz")).await.as_deref(), Ok("a source"));
    let redirect = |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/x\r\nContent-Length: 0\r\n\r\n");
    let (around, _) = server("127.0.0.1", redirect(&good)).await;
    assert_eq!(fetched(&api, &format!("http://{around}/x.tgz")).await.as_deref(), Ok("a source"));
    let (away, _) = server("127.0.0.1", redirect(&secret)).await;
    let error = fetched(&api, &format!("http://{away}/x.tgz")).await.expect_err("refused");
    assert!(error.contains("is no address of the internet"), "{error}");
    assert_eq!(met.load(Ordering::Relaxed), 0, "nobody was connected to");
}
