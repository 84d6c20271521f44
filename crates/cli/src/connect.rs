//! The forwarder with which the official CLI drives a platform elsewhere: a port of this machine's loopback.
//!
//! The official CLI gives its token to nobody but `localhost`, and speaks plain HTTP there; everything else that it
//! needs (rendezvous, the exec manager, log streams) it asks over TLS. So one port takes both: what begins with a TLS
//! handshake goes to the platform as it is, end to end; everything else is put into TLS on the way. SSH of the exec
//! family comes to port 80, of an address of the loopback that is this forwarder's alone and where the exec manager is
//! asked too (so that the platform sends SSH there), where listening at that port is allowed.
//!
//! [`ensure`] starts one in the background for `dozen env` and `dozen heroku`. There is at most one for a login: the
//! file `forwarder` beside it is locked by the one that runs and says its port and process.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    net::Ipv4Addr,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use dozen_api::client::{Client, Stream};
use dozen_domain::network::ssh_addresses;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{Error, login::Login};

/// The port that the official client takes for SSH, whatever it is told.
const SSH: u16 = 80;
/// What it means that nobody can listen there.
pub const NO_SSH: &str = "ps:exec, ps:copy, ps:forward and ps:socks will not work: they need port 80 of a loopback address \
                          (127.0.0.2 to 127.0.0.9), which cannot be listened at here; that takes root or \
                          CAP_NET_BIND_SERVICE, and no other program there. Use heroku run:inside, dozen exec or dozen \
                          forward.";
/// The first byte of a TLS connection: a record of the handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// How long a forwarder may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than anybody looks whether a forwarder runs.
const PROBE: Duration = Duration::from_millis(200);
/// Pause after a failed accept, so that it is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for a client to send its request before it is told that the platform cannot be reached.
const REQUEST: Duration = Duration::from_secs(1);

/// What the forwarder that runs, or ran last, left in its file.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Record {
    port: u16,
    process: i32,
    ssh: Option<Ipv4Addr>,
}

/// Where a forwarder takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Port of the loopback, for everything.
    pub port: u16,
    /// Address of the loopback at which SSH comes in, and everything else too; `None` where it cannot be had.
    pub ssh: Option<Ipv4Addr>,
}

fn path(login: &Login) -> PathBuf {
    login.directory.join("forwarder")
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    let operation = format!("use {}", path.display());
    move |source| Error::Io { operation: operation.clone(), source }
}

/// The lock's file, and whether a forwarder that runs has it; if not, we have it now.
fn lock(login: &Login) -> Result<(File, bool), Error> {
    let path = path(login);
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(failed(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((file, false)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok((file, true)),
        Err(error) => Err(failed(&path)(error.into())),
    }
}

fn record(file: &mut File) -> Option<Record> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Where the forwarder is; starts one in the background unless it runs.
///
/// # Errors
/// When none can be started.
pub fn ensure(login: &Login, executable: &Path) -> Result<Way, Error> {
    let (file, runs) = lock(login)?;
    drop(file);
    if !runs {
        let mut command = Command::new(executable);
        command.arg("connect").env("DOZEN_DATA_DIR", "");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Not of the terminal's group: Ctrl-C is for what runs in front.
        let mut child = command.process_group(0).spawn().map_err(failed(executable))?;
        let mut ready = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut ready).map_err(failed(executable))?;
        }
        // Without a word it has ended: somebody else's may have come first, or it says why when asked in front.
    }
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let (mut file, runs) = lock(login)?;
        match record(&mut file).filter(|_| runs) {
            Some(record) => return Ok(Way { port: record.port, ssh: record.ssh }),
            None if !runs => break,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Err(Error::Forwarder)
}

/// Ends the forwarder that runs, if any.
///
/// # Errors
/// When it cannot be signalled or does not end.
pub fn end(login: &Login) -> Result<(), Error> {
    if !path(login).exists() {
        return Ok(());
    }
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let (mut file, runs) = lock(login)?;
        if !runs {
            return fs::remove_file(path(login)).map_err(failed(&path(login)));
        }
        // While the lock is held, the process that the file names is the one that holds it.
        if let Some(process) = record(&mut file).and_then(|record| Pid::from_raw(record.process)) {
            kill_process(process, Signal::TERM).map_err(|error| failed(&path(login))(error.into()))?;
        }
        drop(file);
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::Forwarder)
}

/// Where SSH comes in.
#[derive(Debug)]
struct Entrance {
    address: Ipv4Addr,
    /// At port 80.
    ssh: TcpListener,
    /// At the forwarder's own port.
    other: TcpListener,
}

impl Entrance {
    /// That of the last time, or the first that is free: other people and platforms of this machine have theirs.
    async fn bind(port: u16, last: Option<Ipv4Addr>) -> Option<Self> {
        for address in last.into_iter().chain(ssh_addresses()) {
            let ssh = TcpListener::bind((address, SSH)).await;
            let other = TcpListener::bind((address, port)).await;
            if let (Ok(ssh), Ok(other)) = (ssh, other) {
                return Some(Self { address, ssh, other });
            }
        }
        None
    }
}

/// A forwarder that listens.
#[derive(Debug)]
pub struct Forwarder {
    listener: TcpListener,
    ssh: Option<Entrance>,
    remote: Client,
    /// Held as long as it runs.
    _lock: File,
}

impl Forwarder {
    /// Listens: at `port`, or else where the last one did, or anywhere.
    ///
    /// # Errors
    /// When one runs already, the port is taken, or the platform's certificate is not there.
    pub async fn bind(login: &Login, port: Option<u16>) -> Result<Self, Error> {
        let (mut file, mut runs) = lock(login)?;
        let end = Instant::now() + PROBE;
        while runs && Instant::now() < end {
            // It may be somebody who only looks whether one runs.
            tokio::time::sleep(Duration::from_millis(10)).await;
            (file, runs) = lock(login)?;
        }
        let last = record(&mut file);
        if runs {
            let at = last.map_or_else(String::new, |last| format!(" at http://localhost:{}", last.port));
            return Err(Error::Usage(format!("a forwarder to {} runs already{at}; dozen logout ends it", login.url)));
        }
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match (port, last) {
            (Some(port), _) => bind(port).await,
            (None, Some(last)) => match bind(last.port).await {
                Err(_) => bind(0).await,
                bound => bound,
            },
            (None, None) => bind(0).await,
        };
        let asked = port.map_or_else(|| "any port".to_owned(), |port| format!("port {port}"));
        let cannot = |source| Error::Io { operation: format!("listen on {asked} of 127.0.0.1"), source };
        let listener = listener.map_err(cannot)?;
        let port = listener.local_addr().map_err(cannot)?.port();
        let ssh = Entrance::bind(port, last.and_then(|last| last.ssh)).await;
        let address = ssh.as_ref().map(|entrance| entrance.address);
        let own = Record { port, process: std::process::id().cast_signed(), ssh: address };
        let text = serde_json::to_vec(&own).unwrap_or_default();
        let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&text));
        written.map_err(failed(&path(login)))?;
        let ca = login.directory.join("ca.pem");
        let remote = Client::new(&login.url)?.trusting(&fs::read(&ca).map_err(failed(&ca))?)?;
        Ok(Self { listener, ssh, remote, _lock: file })
    }

    /// Where clients come in.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Whether SSH of the exec family comes in too, and where.
    pub fn ssh(&self) -> Option<String> {
        self.ssh.as_ref().map(|entrance| format!("{}:{SSH}", entrance.address))
    }

    /// Forwards for as long as it is let.
    pub async fn run(self) {
        let ssh = async {
            match &self.ssh {
                Some(at) => _ = tokio::join!(accept(&at.ssh, &self.remote), accept(&at.other, &self.remote)),
                None => std::future::pending().await,
            }
        };
        tokio::join!(accept(&self.listener, &self.remote), ssh);
    }
}

async fn accept(listener: &TcpListener, remote: &Client) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let remote = remote.clone();
                // A connection that breaks is its two ends' business.
                tokio::spawn(async move { _ = carry(stream, &remote).await });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn carry(mut near: TcpStream, remote: &Client) -> io::Result<()> {
    near.set_nodelay(true)?;
    let mut first = [0];
    if near.peek(&mut first).await? == 0 {
        return Ok(());
    }
    let end_to_end = first == [HANDSHAKE];
    let far: Result<Box<dyn Stream>, _> = match end_to_end {
        true => remote.connect().await.map(|far| Box::new(far) as Box<dyn Stream>),
        false => remote.open().await,
    };
    match far {
        Ok(mut far) => copy_bidirectional(&mut near, &mut far).await.map(|_| ()),
        Err(_) if end_to_end => Ok(()),
        Err(error) => {
            let because = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            let message = format!("dozen connect: {error}{because}");
            refuse(near, &message).await
        }
    }
}

/// Tells an HTTP client why there is no answer.
async fn refuse(mut near: TcpStream, message: &str) -> io::Result<()> {
    let body = serde_json::json!({ "id": "unreachable", "message": message }).to_string();
    let head = format!(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // What was not read would break the connection before the answer is.
    let mut request = [0; 4096];
    _ = tokio::time::timeout(REQUEST, near.read(&mut request)).await;
    near.write_all(format!("{head}{body}").as_bytes()).await?;
    near.shutdown().await
}
