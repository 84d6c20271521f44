//! Processes and connections inside running dynos, as control asks for them.
//!
//! What is said on the connection is [`dozen_api::shim::Enter`] and [`Inside`](shim::Inside); the streams are
//! descriptors that come along, so their bytes go straight between this process and the one inside.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use dozen_api::{
    engine::{Attach, Connection, Entered, Error, Inside, Program, Resize},
    frame,
    shim::{self, Enter, Hello},
    socket,
};
use futures_util::FutureExt as _;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::{TcpSocket, UnixStream, unix::pipe},
};

use super::{EXECUTABLE, environment, host, start_error};

/// A dyno that does not answer by then is stopped, frozen or starved.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most descriptors beside one frame.
const DESCRIPTORS: usize = 3;
/// Longest connect from inside a dyno; the kernel's own patience is two minutes.
const CONNECT: Duration = Duration::from_secs(15);

/// Starts a process in the dyno of this directory.
pub(super) async fn enter(directory: &Path, inside: Inside) -> Result<Entered, Error> {
    let mut env: BTreeMap<String, String> = inside.env;
    let argv = match inside.program {
        Program::Command(command) => environment::argv(&command),
        Program::Shell => environment::argv("exec /bin/bash"),
        Program::Files => [EXECUTABLE, "sftp-server"].map(str::to_owned).to_vec(),
    };
    let terminal = match inside.attach {
        Attach::Terminal { columns, rows } => Some((columns, rows)),
        Attach::Pipes => None,
    };
    if terminal.is_none() {
        env.remove("TERM");
    }
    let request = Enter::Run { argv, env, terminal, separate_errors: inside.separate_errors };
    let (stream, descriptors) = ask(directory, &request).await?;
    let wrap = |error: io::Error| start_error("use the streams of a process in the dyno", error);
    let exit = exit(stream).boxed();
    let mut descriptors = descriptors.into_iter();
    let missing = || start_error("start a process in the dyno", "its streams did not come along");
    let mut next = || descriptors.next().ok_or_else(missing);
    if terminal.is_some() {
        let master = Arc::new(Terminal::new(next()?).map_err(wrap)?);
        let of = master.clone();
        let resize: Resize = Box::new(move |columns, rows| {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(&of.0, size);
        });
        let (input, output) = (Box::new(End(master.clone())), Box::new(End(master)));
        return Ok(Entered { input, output, errors: None, resize: Some(resize), exit });
    }
    let input = pipe::Sender::from_owned_fd(next()?).map_err(wrap)?;
    let output = pipe::Receiver::from_owned_fd(next()?).map_err(wrap)?;
    let errors = match next() {
        Ok(descriptor) => Some(pipe::Receiver::from_owned_fd(descriptor).map_err(wrap)?),
        Err(_) => None,
    };
    let errors = errors.map(|errors| Box::new(errors) as Box<dyn AsyncRead + Send + Unpin>);
    Ok(Entered { input: Box::new(input), output: Box::new(output), errors, resize: None, exit })
}

/// How the process ends; as long as this lives, the process is not hung up.
async fn exit(mut stream: UnixStream) -> Result<Option<dozen_domain::dyno::Exit>, String> {
    let mut failed = None;
    loop {
        match frame::read::<_, shim::Inside>(&mut stream).await {
            Ok(Some(shim::Inside::Failed(reason))) => failed = Some(reason),
            Ok(Some(shim::Inside::Exited(exit))) => return failed.map_or(Ok(Some(exit)), Err),
            Ok(Some(shim::Inside::Ready | shim::Inside::Begun)) => {}
            Ok(None) | Err(_) => return failed.map_or(Ok(None), Err),
        }
    }
}

/// Connects from inside the dyno of this directory.
pub(super) async fn dial(directory: &Path, to: SocketAddr) -> Result<Box<dyn Connection>, Error> {
    let (_, descriptors) = ask(directory, &Enter::Socket { v6: to.is_ipv6() }).await?;
    let socket = descriptors.into_iter().next();
    let socket = socket.ok_or_else(|| start_error("open a socket in the dyno", "it did not come along"))?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let operation = format!("connect to {to} from the dyno");
    let stream = match tokio::time::timeout(CONNECT, socket.connect(to)).await {
        Ok(connected) => connected.map_err(|error| start_error(&operation, error))?,
        Err(_) => return Err(start_error(&operation, io::Error::from(io::ErrorKind::TimedOut))),
    };
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}

/// Has a process made in the dyno and tells it what to do; the connection to it and what came along.
async fn ask(directory: &Path, request: &Enter) -> Result<(UnixStream, Vec<OwnedFd>), Error> {
    let exchange = async {
        let mut stream = socket::connect(&host::socket(directory)).await.map_err(super::unreachable_shim(directory))?;
        let io = |error: io::Error| start_error("start a process in the dyno", error);
        frame::write(&mut stream, &Hello::Enter).await.map_err(io)?;
        match frame::read::<_, shim::Inside>(&mut stream).await.map_err(io)? {
            Some(shim::Inside::Ready) => {}
            Some(shim::Inside::Failed(reason)) => return Err(start_error("enter the dyno", reason)),
            Some(_) | None => return Err(Error::NoSuchDyno), // it is on its way out
        }
        frame::write(&mut stream, request).await.map_err(io)?;
        let (answer, descriptors) = receive(&mut stream).await.map_err(io)?;
        match answer {
            Some(shim::Inside::Begun) => Ok((stream, descriptors)),
            Some(shim::Inside::Failed(reason)) => Err(start_error("enter the dyno", reason)),
            Some(_) | None => Err(Error::NoSuchDyno),
        }
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(start_error("enter the dyno", "it does not answer; it may be out of processor time or memory")),
    }
}

/// One frame with the descriptors beside it; it was written in one piece.
async fn receive(stream: &mut UnixStream) -> io::Result<(Option<shim::Inside>, Vec<OwnedFd>)> {
    const LONGEST: usize = 64 << 10;
    let mut length = [0; 4];
    let (count, descriptors) = receive_with(stream, &mut length).await?;
    match (count, u32::from_le_bytes(length) as usize) {
        (0, _) => Ok((None, descriptors)),
        (4, size @ ..=LONGEST) => {
            let mut body = vec![0; size];
            stream.read_exact(&mut body).await?;
            Ok((Some(serde_json::from_slice(&body)?), descriptors))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn receive_with(stream: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut *into)];
            let got = rustix::net::recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
            let mut all = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    all.extend(descriptors);
                }
            }
            Ok((got, all))
        })
        .await
}

/// A terminal's master end.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        // SAFETY: an owned descriptor stays the same open file for as long as it is owned here.
        Ok(Self(unsafe { AsyncFd::register(master) }?))
    }
}

/// One user of a terminal.
struct End(Arc<Terminal>);

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.0.poll_read_ready(context))?;
            let into = buffer.initialize_unfilled();
            match guard.try_io(|master| Ok(rustix::io::read(master.get_ref().as_fd(), &mut *into)?)) {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // No process has it open any more: that is the end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.0.poll_write_ready(context))?;
            match guard.try_io(|master| Ok(rustix::io::write(master.get_ref().as_fd(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
