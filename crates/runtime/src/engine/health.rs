//! Asks a new web dyno whether it is healthy, over HTTP, until it is or its boot time is over.

use std::{io, net::SocketAddr, time::Duration};

use dozen_api::engine::HealthCheck;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// `HTTP/1.1 200`
const STATUS: usize = 12;

/// Asks until an answer's status is below 400 or the time is over; says which.
pub(super) async fn is_healthy(check: &HealthCheck, addresses: &[SocketAddr], deadline: Instant) -> bool {
    let asking = async {
        loop {
            for address in addresses {
                if let Ok(Ok(200..=399)) = timeout(ANSWER, ask(check, *address)).await {
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    };
    timeout_at(deadline, asking).await.is_ok()
}

async fn ask(check: &HealthCheck, address: SocketAddr) -> io::Result<u16> {
    let HealthCheck { host, path } = check;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Dozen-Health-Check\r\nX-Forwarded-Proto: https\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; STATUS];
    stream.read_exact(&mut head).await?;
    let status = std::str::from_utf8(&head).ok().and_then(|head| head.strip_prefix("HTTP/1.")?.get(2..)?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn it_asks_until_the_status_is_good() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            for status in ["HTTP/1.1 503 No\r\n\r\n", "nonsense", "HTTP/1.1 204 Yes\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.expect("a question");
                let mut asked = [0; 1024];
                let n = stream.read(&mut asked).await.expect("a request");
                let asked = String::from_utf8_lossy(&asked[..n]).into_owned();
                assert!(asked.starts_with("GET /up?x HTTP/1.1\r\nHost: shop.test\r\n"), "{asked}");
                stream.write_all(status.as_bytes()).await.expect("an answer");
            }
        });
        let check = HealthCheck { host: "shop.test".to_owned(), path: "/up?x".to_owned() };
        let deadline = Instant::now() + Duration::from_secs(30);
        assert!(is_healthy(&check, &[address], deadline).await);
        serving.await.expect("three questions");
        assert!(!is_healthy(&check, &[address], Instant::now() + Duration::from_millis(10)).await);
    }
}
