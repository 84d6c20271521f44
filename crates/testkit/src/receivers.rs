//! Receivers of drains, played by the test: syslog servers and HTTP servers that do as they are told.
//!
//! They run on the tokio runtime they are started in. What they were sent is in their inboxes; what makes no sense is in
//! there too, as such, so that no check takes it for a message.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::LONG;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A certificate that speaks for itself, and its key.
#[derive(Debug)]
pub struct Certificate {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Certificate {
    /// One for this name, of nobody's authority.
    ///
    /// # Panics
    /// When the name is none.
    pub fn of(name: &str) -> Self {
        Self::made(rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name"))
    }

    /// One that was good once.
    ///
    /// # Panics
    /// When the name is none.
    pub fn expired(name: &str) -> Self {
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
        Self::made(parameters)
    }

    fn made(parameters: rcgen::CertificateParams) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        Self { certificate: parameters.self_signed(&key).expect("a certificate"), key }
    }

    /// In PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its key in PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = config.expect("versions").with_no_client_auth();
        let config = config.with_single_cert(vec![self.certificate.der().clone()], key).expect("a certificate");
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What arrived, and a way to wait for more.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    messages: Arc<Mutex<Vec<(usize, String)>>>, // with the number of the connection
    more: Arc<Notify>,
}

impl Inbox {
    /// Takes a message in.
    pub fn push(&self, message: String) {
        self.push_from(0, message);
    }

    fn push_from(&self, connection: usize, message: String) {
        lock(&self.messages).push((connection, message));
        self.more.notify_waiters();
    }

    /// All messages so far.
    pub fn all(&self) -> Vec<String> {
        lock(&self.messages).iter().map(|(_, message)| message.clone()).collect()
    }

    /// All messages so far, those of each connection for themselves.
    pub fn by_connection(&self) -> Vec<Vec<String>> {
        let mut connections = BTreeMap::<usize, Vec<String>>::new();
        for (connection, message) in &*lock(&self.messages) {
            connections.entry(*connection).or_default().push(message.clone());
        }
        connections.into_values().collect()
    }

    /// Says whether a message ends so.
    pub fn has(&self, end: &str) -> bool {
        lock(&self.messages).iter().rev().any(|(_, message)| message.ends_with(end))
    }

    /// Waits until a message ends so; gives all.
    ///
    /// # Panics
    /// When none comes.
    pub async fn until(&self, end: &str) -> Vec<String> {
        self.when(|messages| messages.iter().any(|message| message.ends_with(end))).await
    }

    /// Waits until the messages are enough; gives all.
    ///
    /// # Panics
    /// When they never are.
    pub async fn when(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
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

/// Takes one octet-counted message off a stream; `None` at its end, even in the middle of a message. What is no message
/// is given as what it is, and then the stream is of no more use.
pub async fn message(from: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut length = 0;
    loop {
        match from.read_u8().await.ok()? {
            b' ' => break,
            digit @ b'0'..=b'9' if length < 1 << 20 => length = length * 10 + usize::from(digit - b'0'),
            other => return Some(format!("malformed: byte {other} in a length")),
        }
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await.ok()?;
    let Ok(text) = String::from_utf8(bytes) else { return Some("malformed: no UTF-8".to_owned()) };
    Some(text.strip_suffix('\n').map_or_else(|| format!("malformed: no line feed at the end of {text}"), str::to_owned))
}

/// The messages of a body.
fn messages(mut body: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let end = body.iter().position(|byte| *byte == b' ').expect("a length");
        let (length, rest) = (String::from_utf8_lossy(&body[..end]), &body[end + 1..]);
        let (message, rest) = rest.split_at_checked(length.parse().expect("a length")).expect("whole messages");
        let text = std::str::from_utf8(message).expect("text");
        messages.push(text.strip_suffix('\n').expect("a line feed at the end").to_owned());
        body = rest;
    }
    messages
}

/// A syslog server over TCP, or TLS for the name `localhost`. It reads everything, unless it is told to stall.
#[derive(Debug)]
pub struct Syslog {
    /// Where it is.
    pub url: String,
    /// What it was sent.
    pub inbox: Inbox,
    stalled: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Syslog {
    /// Starts one over TCP, on a port of the kernel's choice.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    /// The same over TLS.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start_tls(certificate: &Certificate) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.expect("a port"), Some(certificate.acceptor()))
    }

    /// Over TCP, where this listens.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn on(listener: TcpListener) -> Self {
        Self::serve(listener, None)
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().expect("an address");
        let url = match &tls {
            None => format!("syslog://{address}"),
            Some(_) => format!("syslog+tls://localhost:{}", address.port()),
        };
        let (inbox, (stalled, stall)) = (Inbox::default(), watch::channel(false));
        let own = inbox.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // they end with the server
            // One that stalls is to be full soon.
            rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).expect("a socket");
            for number in 0.. {
                let (connection, _) = listener.accept().await.expect("a connection");
                let (inbox, tls, stall) = (own.clone(), tls.clone(), stall.clone());
                connections.spawn(async move {
                    match tls {
                        None => take(connection, number, &inbox, stall).await,
                        Some(tls) => {
                            // A client that does not like the certificate is not of interest here.
                            if let Ok(connection) = tls.accept(connection).await {
                                take(connection, number, &inbox, stall).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, inbox, stalled, server }
    }

    /// Reads nothing more, or goes on where it was.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(connection: impl AsyncRead + Unpin, number: usize, inbox: &Inbox, mut stall: watch::Receiver<bool>) {
    let mut connection = tokio::io::BufReader::new(connection);
    // It stalls for good when whoever could say that it should go on is gone.
    while stall.wait_for(|stalled| !stalled).await.is_ok() {
        let Some(message) = message(&mut connection).await else { return };
        let malformed = message.starts_with("malformed");
        inbox.push_from(number, message);
        if malformed {
            return;
        }
    }
}

/// What an HTTP receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
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
pub struct Request {
    /// Its first line and its headers.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
    taken: bool, // answered with 200 for the first time
    known: bool, // its frame was taken before
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The messages in its body.
    ///
    /// # Panics
    /// When they are not framed as they should be.
    pub fn messages(&self) -> Vec<String> {
        messages(&self.body)
    }

    /// Checks its head and its framing, and that they fit; gives the messages.
    ///
    /// # Panics
    /// When it is not as logplex would send it.
    #[track_caller]
    pub fn checked(&self, token: &str) -> Vec<String> {
        assert!(self.head.starts_with("POST /in?key=1 HTTP/1.1\r\n"), "{}", self.head);
        assert_eq!(self.header("content-type"), Some("application/logplex-1"));
        assert_eq!(self.header("logplex-drain-token"), Some(token));
        assert_eq!(self.header("authorization"), Some("Basic bWU6c2VAY3JldA=="));
        assert!(self.header("user-agent").is_some_and(|agent| agent.starts_with("Logplex/")), "{}", self.head);
        assert!(self.header("host").is_some_and(|host| !host.contains('@')), "{}", self.head);
        let id = self.header("logplex-frame-id").unwrap_or_default();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let messages = self.messages();
        assert_eq!(self.header("logplex-msg-count"), Some(messages.len().to_string().as_str()));
        let framed = |message: &String| {
            let words: Vec<&str> = message.splitn(7, ' ').collect();
            matches!(words[..], [priority, time, "host", "app" | "heroku", _, "-", _]
                if priority.starts_with('<') && priority.ends_with(">1") && time.len() == 32)
        };
        let other = messages.iter().find(|message| !framed(message));
        assert_eq!(other, None, "no message as logplex writes it");
        messages
    }
}

/// An HTTP server: answers 200 unless it was told otherwise for the next requests.
#[derive(Debug)]
pub struct Http {
    /// Where it is, with a user, a password and a query.
    pub url: String,
    /// Messages of the frames that were answered with 200, each once.
    pub inbox: Inbox,
    /// All requests.
    pub requests: Arc<Mutex<Vec<Request>>>,
    /// What it does with the next requests.
    pub acts: Arc<Mutex<VecDeque<Act>>>,
    /// How many connections there were.
    pub connections: Arc<Mutex<usize>>,
    server: JoinHandle<()>,
}

impl Http {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same over TLS, for the name `localhost`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start_tls(certificate: &Certificate) -> Self {
        Self::start_with(Some(certificate.acceptor())).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
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
                let mut open = JoinSet::new();
                loop {
                    let (connection, _) = listener.accept().await.expect("a connection");
                    *lock(&connections) += 1;
                    let (inbox, requests, acts) = (inbox.clone(), requests.clone(), acts.clone());
                    let tls = tls.clone();
                    open.spawn(async move {
                        let fd = connection.as_fd().try_clone_to_owned().expect("a descriptor");
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
    pub fn next(&self, acts: &[Act]) {
        lock(&self.acts).extend(acts);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    /// How many messages came in frames that had been taken before: the answer did not come, or not in time. If they are
    /// given up then, they are counted although they came.
    pub fn doubtful(&self) -> usize {
        lock(&self.requests).iter().filter(|request| request.known).map(|request| request.messages().len()).sum()
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Reads one request; `None` at the connection's end.
async fn request(connection: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let mut request =
        Request { head: String::from_utf8(head).expect("text"), body: Vec::new(), taken: false, known: false };
    let length = request.header("content-length").expect("a length, no chunks").parse().expect("a number");
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
        // Its sender may not have waited for the answer to a frame. It is known by its id, as a receiver should.
        let act = {
            let mut requests = lock(requests);
            let id = request.header("logplex-frame-id");
            let known = requests.iter().any(|other| other.taken && other.header("logplex-frame-id") == id);
            let act = if known { None } else { Some(lock(acts).pop_front().unwrap_or(Act::Answer(200))) };
            requests.push(Request { taken: act == Some(Act::Answer(200)), known, ..request.clone() });
            if act == Some(Act::Answer(200)) {
                messages(&request.body).into_iter().for_each(|message| inbox.push(message)); // in the order of requests
            }
            act.unwrap_or(Act::Answer(200))
        };
        match act {
            Act::Answer(status) => {
                let answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\n\r\nok");
                if connection.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Stall => std::future::pending().await,
            Act::Close => return,
            Act::Reset => {
                rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO)).expect("a socket");
                return;
            }
        }
        inbox.more.notify_waiters();
    }
}
