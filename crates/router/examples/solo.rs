//! The router without the rest of the platform, for `bench/router`: it serves the table that is in its directory.
//!
//! `solo router DIR HTTP_PORT [HTTPS_PORT CERTIFICATE KEY]` routes; `solo logs DIR` takes its access lines as the logs
//! role does and throws them away. `solo echo PORT` is a dyno that upgrades to anything and echoes; `solo ping PORT
//! CONNECTIONS SECONDS` sends small messages to it through a proxy and prints how many came back.

use std::{
    env,
    error::Error,
    io::{self, Write},
    net::TcpListener,
    path::PathBuf,
    time::Duration,
};

use dozen_api::{frame, logs::Hello, socket};
use dozen_domain::limits::Limits;
use dozen_router::{Https, Options};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Builder,
    time::{Instant, timeout_at},
};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["logs", directory] => Builder::new_current_thread().enable_all().build()?.block_on(logs(directory.into())),
        ["echo", port] => Builder::new_current_thread().enable_all().build()?.block_on(echo(port.parse()?)),
        ["ping", port, connections, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            Builder::new_current_thread().enable_all().build()?.block_on(ping(port.parse()?, connections.parse()?, time))
        }
        ["router", directory, port] => router(directory.into(), port, None),
        ["router", directory, port, secure, certificate, key] => {
            let https = Https {
                listener: TcpListener::bind(format!("127.0.0.1:{secure}"))?,
                certificate: certificate.into(),
                key: key.into(),
            };
            router(directory.into(), port, Some(https))
        }
        _ => Err("usage: solo router DIR HTTP_PORT [HTTPS_PORT CERTIFICATE KEY] | solo logs DIR | solo echo PORT | solo ping PORT CONNECTIONS SECONDS".into()),
    }
}

fn router(run_directory: PathBuf, port: &str, https: Option<Https>) -> Result<(), Box<dyn Error>> {
    let http = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    // All of the load comes from one address.
    let limits = Limits { router_connections: 100_000, router_connections_per_address: 100_000, ..Limits::default() };
    let options = Options {
        http,
        https,
        run_directory,
        limits,
        proxies: vec![],
        metrics: None,
        ready: tokio::sync::watch::Sender::new(false),
        apps_domain: "apps.test".to_owned(),
    };
    // As the role does: a thread a processor.
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(dozen_router::run(options, std::future::pending()))?)
}

async fn logs(directory: PathBuf) -> Result<(), Box<dyn Error>> {
    let listener = socket::bind(&directory.join("logs.sock"))?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _hello: Option<Hello> = frame::read(&mut stream).await.ok()?;
            while let Ok(Some(_batch)) = frame::read_bytes(&mut stream).await {
                frame::write_bytes(&mut stream, &[]).await.ok()?;
            }
            Some(())
        });
    }
}

async fn read_head(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

async fn echo(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            read_head(&mut stream).await?;
            stream.write_all(ANSWER.as_bytes()).await?;
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}

/// The handshake of RFC 6455, section 1.3; some proxies look at it.
const ASK: &str = "GET /ws HTTP/1.1\r\nhost: echo.apps.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Messages as long as a short chat's.
const MESSAGE: usize = 64;

async fn ping(port: u16, connections: usize, time: Duration) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + time;
    let mut tasks = Vec::new();
    for _ in 0..connections {
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            stream.write_all(ASK.as_bytes()).await?;
            read_head(&mut stream).await?;
            let (mut message, mut count) = ([7; MESSAGE], 0_u64);
            while let Ok(echoed) = timeout_at(end, async {
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await
            })
            .await
            {
                echoed?;
                count += 1;
            }
            Ok::<u64, io::Error>(count)
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    writeln!(io::stdout(), "{total}")?;
    Ok(())
}
