//! Receivers of drains, played by the test: syslog servers and HTTP servers that do as they are told.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
};

use dozen_api::drains::{Destination, Drain, replace};
use dozen_domain::{
    config::Secret,
    ids::{AppId, DrainId},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::role::{LONG, Role};

/// A log drain of an app.
pub(crate) fn drain(app: AppId, url: &str) -> Drain {
    Drain {
        id: DrainId::random(),
        app,
        app_name: "shop".to_owned(),
        token: format!("d.{}", DrainId::random()),
        to: Destination::Log(Secret::new(url)),
    }
}

/// Tells the role which drains there are.
pub(crate) async fn set(role: &Role, drains: &[Drain]) {
    replace(&role.socket(), drains.to_vec()).await.unwrap();
}

/// What arrived, and a way to wait for more.
#[derive(Clone, Default)]
pub(crate) struct Inbox {
    messages: Arc<Mutex<Vec<String>>>,
    more: Arc<Notify>,
}

impl Inbox {
    pub(crate) fn push(&self, message: String) {
        self.messages.lock().unwrap().push(message);
        self.more.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.messages.lock().unwrap().clone()
    }

    /// Waits until a message ends so; gives all.
    pub(crate) async fn until(&self, end: &str) -> Vec<String> {
        self.when(|messages| messages.iter().any(|message| message.ends_with(end))).await
    }

    pub(crate) async fn when(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let waited = timeout(LONG, async {
            loop {
                let mut more = std::pin::pin!(self.more.notified());
                more.as_mut().enable();
                let all = self.all();
                if enough(&all) {
                    return all;
                }
                more.await;
            }
        });
        let last = || self.all().iter().rev().take(3).cloned().collect::<Vec<_>>();
        waited.await.unwrap_or_else(|_| panic!("only {} messages, the last: {:?}", self.all().len(), last()))
    }
}

/// Takes one octet-counted message off a stream; `None` at its end, even in the middle of a message.
pub(crate) async fn message(from: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut length = 0;
    loop {
        match from.read_u8().await.ok()? {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit.checked_sub(b'0').filter(|digit| *digit < 10).unwrap()),
        }
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await.ok()?;
    let text = String::from_utf8(bytes).unwrap();
    Some(text.strip_suffix('\n').unwrap().to_owned())
}

/// A syslog server over TCP that reads everything.
pub(crate) struct Syslog {
    pub(crate) url: String,
    pub(crate) inbox: Inbox,
    server: JoinHandle<()>,
}

impl Syslog {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let url = format!("syslog://{}", listener.local_addr().unwrap());
        let inbox = Inbox::default();
        let server = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new(); // they end with the server
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    let inbox = inbox.clone();
                    connections.spawn(async move {
                        let mut connection = tokio::io::BufReader::new(connection);
                        while let Some(message) = message(&mut connection).await {
                            inbox.push(message);
                        }
                    });
                }
            }
        });
        Self { url, inbox, server }
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What an HTTP receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Answers with this status.
    Answer(u16),
    /// Reads it and says nothing for ever.
    Stall,
    /// Reads it and closes the connection.
    Close,
    /// Reads it and resets the connection.
    Reset,
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    taken: bool, // answered with 200
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) async fn messages(&self) -> Vec<String> {
        let mut rest = self.body.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            messages.push(message(&mut rest).await.expect("whole messages"));
        }
        messages
    }
}

/// An HTTP server: answers 200 unless it was told otherwise for the next requests.
pub(crate) struct Http {
    pub(crate) url: String,
    pub(crate) inbox: Inbox, // messages of the requests that were answered with 200
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
    pub(crate) acts: Arc<Mutex<VecDeque<Act>>>,
    pub(crate) connections: Arc<Mutex<usize>>,
    server: JoinHandle<()>,
}

impl Http {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same over TLS, for the name `localhost`.
    pub(crate) async fn start_tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::start_with(Some(TlsAcceptor::from(config))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match &tls {
            Some(_) => format!("https://me:se%40cret@localhost:{port}/in?key=1"),
            None => format!("http://me:se%40cret@127.0.0.1:{port}/in?key=1"),
        };
        let (inbox, requests) = (Inbox::default(), Arc::new(Mutex::new(Vec::new())));
        let (acts, connections) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(Mutex::new(0)));
        let server = tokio::spawn({
            let (inbox, requests) = (inbox.clone(), requests.clone());
            let (acts, connections) = (acts.clone(), connections.clone());
            async move {
                let mut open = tokio::task::JoinSet::new();
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    *connections.lock().unwrap() += 1;
                    let (inbox, requests, acts) = (inbox.clone(), requests.clone(), acts.clone());
                    let tls = tls.clone();
                    open.spawn(async move {
                        let fd = connection.as_fd().try_clone_to_owned().unwrap();
                        match tls {
                            None => serve(connection, &fd, &inbox, &requests, &acts).await,
                            Some(tls) => {
                                // A client that does not like the certificate is not of interest here.
                                if let Ok(connection) = tls.accept(connection).await {
                                    serve(connection, &fd, &inbox, &requests, &acts).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { url, inbox, requests, acts, connections, server }
    }

    /// What it does with the next requests; after them it answers 200.
    pub(crate) fn next(&self, acts: &[Act]) {
        self.acts.lock().unwrap().extend(acts);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Reads one request; `None` at the connection's end.
pub(crate) async fn request(connection: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let mut request = Request { head: String::from_utf8(head).unwrap(), body: Vec::new(), taken: false };
    let length = request.header("content-length").expect("a length, no chunks").parse().unwrap();
    request.body = vec![0; length];
    connection.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

async fn serve(
    mut connection: impl AsyncRead + AsyncWrite + Unpin,
    socket: &OwnedFd,
    inbox: &Inbox,
    requests: &Mutex<Vec<Request>>,
    acts: &Mutex<VecDeque<Act>>,
) {
    while let Some(request) = request(&mut connection).await {
        let act = acts.lock().unwrap().pop_front().unwrap_or(Act::Answer(200));
        // Its sender may not have waited for the answer to a frame. It is known by its id, as a receiver should.
        let id = request.header("logplex-frame-id").map(str::to_owned);
        let known = {
            let mut requests = requests.lock().unwrap();
            let known = requests.iter().any(|other| other.taken && other.header("logplex-frame-id") == id.as_deref());
            requests.push(Request { taken: act == Act::Answer(200), ..request.clone() });
            known
        };
        match act {
            Act::Answer(status) => {
                if status == 200 && !known {
                    for message in request.messages().await {
                        inbox.push(message);
                    }
                }
                let answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\n\r\nok");
                if connection.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Stall => std::future::pending().await,
            Act::Close => return,
            Act::Reset => {
                rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO)).unwrap();
                return;
            }
        }
        inbox.more.notify_waiters();
    }
}
