//! A running router with the roles around it played by the test.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use dozen_api::{
    frame,
    logs::{self, Hello, Source},
    routes::{Ack, App, Dyno, DynoState, Edge, Generation, Message, Mode, Report},
    socket,
    traffic::Traffic,
};
use dozen_domain::{
    ids::{AppId, DynoId},
    limits::Limits,
    network::Prefix,
};
use dozen_router::{Error, Https, Options};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

/// How long anything may take that should happen at once.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Waits for something that should happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// The role that knows the routes.
pub(crate) struct Control {
    stream: UnixStream,
    _listener: UnixListener,
    generation: Generation,
}

impl Control {
    /// Starts, waits for the router and tells it these apps.
    pub(crate) async fn start(run: &Path, apps: Vec<App>) -> Self {
        let listener = socket::bind(&run.join("routes.sock")).expect("a socket");
        let (stream, _) = soon("the router's connection", listener.accept()).await.expect("a connection");
        let mut control = Self { stream, _listener: listener, generation: 1 };
        control.tell(Message::Snapshot { generation: 1, apps }).await;
        control
    }

    /// Tells a change and waits until it is in force.
    pub(crate) async fn tell(&mut self, message: Message) -> Ack {
        frame::write(&mut self.stream, &message).await.expect("the router listens");
        loop {
            // Of a former generation it may say that a dyno is no longer busy.
            let ack = self.hear().await;
            if ack.generation == self.generation {
                return ack;
            }
        }
    }

    async fn report(&mut self) -> Report {
        let report = soon("a word", frame::read(&mut self.stream)).await.expect("the router answers");
        report.expect("the router goes on")
    }

    /// What the router tells next of its apps' requests.
    pub(crate) async fn traffic(&mut self) -> Traffic {
        loop {
            if let Report::Traffic(traffic) = self.report().await {
                return traffic;
            }
        }
    }

    /// The router's next answer.
    pub(crate) async fn hear(&mut self) -> Ack {
        loop {
            if let Report::Ack(ack) = self.report().await {
                return ack;
            }
        }
    }

    pub(crate) async fn upsert(&mut self, app: &App) -> Ack {
        self.generation += 1;
        self.tell(Message::Upsert { generation: self.generation, app: Box::new(app.clone()) }).await
    }

    /// Tells some apps of a snapshot to come.
    pub(crate) async fn part(&mut self, apps: &[&App]) {
        let apps = apps.iter().map(|app| (*app).clone()).collect();
        frame::write(&mut self.stream, &Message::Part { apps }).await.expect("the router listens");
    }

    /// Tells the rest of a snapshot.
    pub(crate) async fn snapshot(&mut self, apps: &[&App]) {
        self.generation += 1;
        let apps = apps.iter().map(|app| (*app).clone()).collect();
        self.tell(Message::Snapshot { generation: self.generation, apps }).await;
    }

    pub(crate) async fn remove(&mut self, app: AppId) {
        self.generation += 1;
        self.tell(Message::Remove { generation: self.generation, app }).await;
    }
}

/// The role that keeps lines.
pub(crate) struct Lines(mpsc::UnboundedReceiver<logs::Line>);

impl Lines {
    fn start(run: &Path) -> Self {
        let listener = socket::bind(&run.join("logs.sock")).expect("a socket");
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let hello: Option<Hello> = frame::read(&mut stream).await.expect("a hello");
                assert!(matches!(hello, Some(Hello::Ingest { .. })));
                while let Ok(Some(batch)) = frame::read_bytes(&mut stream).await {
                    let mut rest = &batch[8..];
                    while let Some(line) = logs::decode(&mut rest) {
                        let _ = sender.send(line);
                    }
                    if frame::write_bytes(&mut stream, &[]).await.is_err() {
                        break;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// The next access line.
    pub(crate) async fn next(&mut self) -> String {
        let line = soon("an access line", self.0.recv()).await.expect("a line");
        assert_eq!((line.source, line.process.as_str()), (Source::Heroku, "router"));
        line.text
    }
}

/// A router under test.
pub(crate) struct Router {
    pub(crate) address: SocketAddr,
    pub(crate) secure: Option<SocketAddr>,
    pub(crate) metrics: SocketAddr,
    pub(crate) lines: Lines,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), Error>>,
}

impl Router {
    /// Starts a router with nobody to tell it routes.
    pub(crate) fn alone(limits: Limits) -> Self {
        Self::with(limits, TempDir::new().expect("a directory"), None)
    }

    /// Starts a router and a control that knows these apps.
    pub(crate) async fn start(limits: Limits, apps: &[&App]) -> (Self, Control) {
        let router = Self::alone(limits);
        let control = Control::start(&router.run(), apps.iter().map(|app| (*app).clone()).collect()).await;
        (router, control)
    }

    /// Starts a router in a directory that may hold another one's table.
    pub(crate) fn with(limits: Limits, directory: TempDir, https: Option<Https>) -> Self {
        Self::behind(limits, directory, https, vec![])
    }

    /// Starts a router behind proxies in these networks.
    pub(crate) fn behind(limits: Limits, directory: TempDir, https: Option<Https>, proxies: Vec<Prefix>) -> Self {
        let http = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = http.local_addr().expect("an address");
        let secure = https.as_ref().map(|https| https.listener.local_addr().expect("an address"));
        let lines = Lines::start(directory.path());
        let run_directory = directory.path().to_owned();
        let metrics = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let metrics_address = metrics.local_addr().expect("an address");
        let apps_domain = "apps.test".to_owned();
        let (ready, _) = tokio::sync::watch::channel(false);
        let options =
            Options { http, https, run_directory, limits, proxies, metrics: Some(metrics), ready, apps_domain };
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(dozen_router::run(options, async {
            let _ = stopped.await;
        }));
        Self { address, secure, metrics: metrics_address, lines, directory, stop: Some(stop), running }
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Tells the router to stop, without waiting for it.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
    }

    /// Stops the router and hands its directory on.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.begin_stop();
        soon("the end", self.running).await.expect("no panic").expect("no error");
        self.directory
    }

    /// Sends a request as it is and closes nothing; the answer is read with [`Answer::read`].
    pub(crate) async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("the router accepts");
        stream.write_all(request.as_bytes()).await.expect("the router reads");
        stream
    }

    /// Sends a request as it is and reads the answer.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.send(request).await;
        Answer::read(&mut stream).await
    }

    /// Gets a path of an app.
    pub(crate) async fn get(&self, app: &App, path: &str) -> Answer {
        self.ask(&get(app, path)).await
    }
}

/// A plain GET.
pub(crate) fn get(app: &App, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {}.apps.test\r\n\r\n", app.name)
}

/// One answer as a client sees it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
    /// The body ended as its head said.
    pub(crate) whole: bool,
}

impl Answer {
    /// Reads one answer; a body without length ends with the connection.
    pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Self {
        let head = read_head(stream).await;
        let field = |name: &str| field(&head, name);
        let (mut body, mut whole) = (Vec::new(), true);
        if let Some(length) = field("content-length") {
            body = vec![0; length.parse().expect("a length")];
            whole = soon("a body", stream.read_exact(&mut body)).await.is_ok();
        } else if field("transfer-encoding").as_deref() == Some("chunked") {
            whole = soon("chunks", read_chunks(stream, &mut body)).await.is_some();
        } else if !head.starts_with("HTTP/1.1 1")
            && !head.starts_with("HTTP/1.1 204")
            && !head.starts_with("HTTP/1.1 304")
        {
            soon("an end", stream.read_to_end(&mut body)).await.expect("a body");
        }
        Self { body: String::from_utf8_lossy(&body).into_owned(), head, whole }
    }

    pub(crate) fn status(&self) -> u16 {
        self.head
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status in {:?}", self.head))
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }
}

async fn read_chunks<S: AsyncRead + Unpin>(stream: &mut S, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            line.push(char::from(stream.read_u8().await.ok()?));
        }
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        if length == 0 {
            return Some(());
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// The value of a field in a head; several are joined by commas.
pub(crate) fn field(head: &str, name: &str) -> Option<String> {
    let values: Vec<&str> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Reads up to the empty line; what came when the connection ended before it.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match soon("a head", stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A web process that hands each connection to `serve`.
pub(crate) async fn web<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    web_on("127.0.0.1:0", serve).await
}

/// As [`web`], on an address.
pub(crate) async fn web_on<F, R>(address: &str, serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A web process that sends the same bytes for each request head, over connections that it keeps open.
pub(crate) async fn saying(answer: &'static str) -> SocketAddr {
    web(move |mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// A web process that tells of each request and answers none.
pub(crate) async fn silent() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (seen, sees) = mpsc::unbounded_channel();
    let address = web(move |mut stream| {
        let seen = seen.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let _ = seen.send(());
            }
        }
    })
    .await;
    (address, sees)
}

/// A web process that tells of a connection's request and sends these bytes when it is let.
pub(crate) async fn held(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<()>, watch::Sender<bool>) {
    let (begin, begun) = mpsc::unbounded_channel();
    let (release, released) = watch::channel(false);
    let address = web(move |mut stream| {
        let (begin, mut released) = (begin.clone(), released.clone());
        async move {
            read_head(&mut stream).await;
            let _ = begin.send(());
            let _ = released.wait_for(|released| *released).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    (address, begun, release)
}

/// A web process that sends these bytes once and closes.
pub(crate) async fn saying_once(answer: &'static str) -> SocketAddr {
    web(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

/// A web process that answers with the head it got.
pub(crate) async fn mirror() -> SocketAddr {
    web(|mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// An app with web dynos at these addresses, all up.
pub(crate) fn app(name: &str, dynos: &[SocketAddr]) -> App {
    App {
        id: AppId::random(),
        name: name.parse().expect("an app name"),
        hosts: vec![],
        mode: Mode::Serving,
        web_quantity: dynos.len() as u32,
        dynos: dynos.iter().enumerate().map(|(index, address)| dyno(index as u32 + 1, &[*address])).collect(),
        error_page_url: None,
        maintenance_page_url: None,
        edge: Edge::default(),
        dialogue: Default::default(),
    }
}

/// `web.<number>`, up.
pub(crate) fn dyno(number: u32, addresses: &[SocketAddr]) -> Dyno {
    Dyno {
        id: DynoId::random(),
        name: format!("web.{number}").parse().expect("a dyno name"),
        addresses: addresses.to_vec(),
        state: DynoState::Up,
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// Limits that are reached soon, and not by a machine that is merely busy.
pub(crate) fn short() -> Limits {
    Limits {
        router_connect_ms: 500,
        router_connect_total_ms: 2_000,
        router_first_byte_ms: 1_500,
        router_idle_ms: 1_500,
        router_quarantine_first_ms: 1_000,
        router_quarantine_ms: 1_000,
        router_drain_ms: 300,
        router_table_wait_ms: 500,
        ..Limits::default()
    }
}

/// Asserts that a line holds all of these.
pub(crate) fn assert_line(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}
