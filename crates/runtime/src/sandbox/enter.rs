//! The way into a running dyno: processes that its init starts beside the command.
//!
//! The init is where the dyno is: in its namespaces and control group, as its user, without capabilities, behind its
//! system call filter. So what it forks has all of that without anything to be joined, as root and as an ordinary user
//! alike. The shim hands it a connection ([`let_in`]); the fork says on it what [`dozen_api::shim::Inside`] says and is
//! told what to do. The bytes of its streams go past shim and init: their other ends travel over the connection. When
//! the connection ends, the process and its group are hung up.

use std::{
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use dozen_api::{
    frame,
    shim::{Enter, Inside, Spec},
};
use dozen_domain::{config::Secret, dyno::Exit};
use libc::{POLLERR, POLLHUP, POLLIN, pollfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, sockopt,
};

use super::init::{Program, Start, open_terminal};

/// Most processes that are let into one dyno at a time.
const GUESTS: usize = 64;
/// Longest time that a fork waits for its orders; it counts as one of the dyno's processes meanwhile.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Most descriptors beside one frame.
const DESCRIPTORS: usize = 3;

/// Makes the way from shim to init: the shim's end and the init's.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Shim: hands a connection to the init.
pub(crate) fn let_in(entrance: &OwnedFd, connection: BorrowedFd<'_>) -> io::Result<()> {
    send_with(entrance.as_fd(), b"E", &[connection])
}

fn send_with(to: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    match rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()), // frames here are far below what a fresh socket takes
    }
}

/// Someone who is or wants inside.
struct Guest {
    pid: i32,
    connection: UnixStream,
    /// The other side has gone and it has been told.
    alone: bool,
}

/// The init's side: who is inside.
pub(super) struct Guests {
    entrance: OwnedFd,
    guests: Vec<Guest>,
    polled: Vec<pollfd>,
}

impl Guests {
    pub(super) fn new(entrance: OwnedFd) -> Self {
        Self { entrance, guests: Vec::new(), polled: Vec::new() }
    }

    /// Waits, so long at most (-1: for ever), until something happens and sees to it, unless it is a signal: that is
    /// returned.
    pub(super) fn wait(&mut self, signals: &OwnedFd, spec: &Spec, milliseconds: i32) -> Option<i32> {
        const FIXED: usize = 2;
        let entry = |fd: i32, events| pollfd { fd, events, revents: 0 };
        self.polled.clear();
        self.polled.extend([entry(signals.as_raw_fd(), POLLIN), entry(self.entrance.as_raw_fd(), POLLIN)]);
        // Only the end of a connection is of interest here; what is said on it is its process's.
        let of_guest = |guest: &Guest| entry(if guest.alone { -1 } else { guest.connection.as_raw_fd() }, 0);
        self.polled.extend(self.guests.iter().map(of_guest));
        // SAFETY: the array is that long; the descriptors in it are open or -1.
        if unsafe { libc::poll(self.polled.as_mut_ptr(), self.polled.len() as libc::nfds_t, milliseconds) } < 0 {
            return None;
        }
        for (guest, entry) in self.guests.iter_mut().zip(&self.polled[FIXED..]) {
            if entry.revents & (POLLHUP | POLLERR) != 0 {
                guest.alone = true;
                // SAFETY: takes numbers alone; the child is this init's and not reaped yet, so the number is its.
                unsafe { libc::kill(-guest.pid, libc::SIGHUP) };
            }
        }
        if self.polled[1].revents & POLLIN != 0 {
            self.admit(spec);
        }
        if self.polled[0].revents & POLLIN != 0 { next_signal(signals) } else { None }
    }

    /// Forks for a connection that was handed over.
    fn admit(&mut self, spec: &Spec) {
        let Some(connection) = receive(&self.entrance) else { return };
        if self.guests.len() >= GUESTS {
            tell(&connection, &Inside::Failed(format!("{GUESTS} sessions are open in this dyno; close one")));
            return;
        }
        // SAFETY: this process has one thread, so its copy may do anything.
        match unsafe { libc::fork() } {
            -1 => {
                let error = io::Error::last_os_error();
                tell(&connection, &Inside::Failed(format!("start a process in the dyno: {error}")));
            }
            0 => {
                let reason = serve(spec, &connection);
                if let Some(reason) = &reason {
                    tell(&connection, &Inside::Failed(reason.clone()));
                }
                // SAFETY: ends the process at once; nothing of the init whose copy it is may be run down here.
                unsafe { libc::_exit(if reason.is_some() { 127 } else { 0 }) }
            }
            pid => self.guests.push(Guest { pid, connection, alone: false }),
        }
    }

    /// A child of the init is gone; if it was let in, whoever asked for it is told.
    pub(super) fn ended(&mut self, pid: i32, status: i32) {
        let Some(at) = self.guests.iter().position(|guest| guest.pid == pid) else { return };
        let guest = self.guests.swap_remove(at);
        let exit = if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        };
        tell(&guest.connection, &Inside::Exited(exit));
        if self.guests.is_empty() {
            (self.guests, self.polled) = (Vec::new(), Vec::new());
        }
    }
}

/// Says one thing; a side that is gone or does not read is not waited for.
fn tell(connection: &UnixStream, what: &Inside) {
    if let Ok(bytes) = frame::encode(what) {
        let _ = rustix::net::send(connection, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

fn next_signal(signals: &OwnedFd) -> Option<i32> {
    let mut information = [0; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signals, &mut information) {
        // The number comes first.
        Ok(length) if length >= 4 => information.first_chunk().map(|number| i32::from_ne_bytes(*number)),
        _ => None,
    }
}

fn receive(entrance: &OwnedFd) -> Option<UnixStream> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let mut into = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(entrance, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next().map(UnixStream::from),
        _ => None,
    })
}

/// The fork: asks what to do and does it; returns why that failed, or nothing when it is done.
fn serve(spec: &Spec, mut connection: &UnixStream) -> Option<String> {
    let mut ask = || -> io::Result<Option<Enter>> {
        connection.set_nonblocking(false)?;
        sockopt::set_socket_timeout(connection, sockopt::Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_timeout(connection, sockopt::Timeout::Send, Some(PATIENCE))?;
        connection.write_all(&frame::encode(&Inside::Ready)?)?;
        frame::read_blocking(&mut connection)
    };
    let reason = match ask() {
        Ok(Some(Enter::Run { argv, env, terminal, separate_errors })) => {
            let mut all = spec.env.clone();
            all.extend(env.into_iter().map(|(name, value)| (name, Secret::new(value))));
            run(spec, connection, &argv, &all, terminal, separate_errors)
        }
        Ok(Some(Enter::Socket { v6 })) => return socket(connection, v6).err().map(|error| error.to_string()),
        Ok(None) => return Some("the other side is gone".to_owned()),
        Err(error) => format!("hear what to do: {error}"),
    };
    Some(reason)
}

fn socket(connection: &UnixStream, v6: bool) -> io::Result<()> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    begun(connection, &[socket.as_fd()])
}

/// Says that it begins, with these descriptors beside.
fn begun(connection: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(connection.as_fd(), &frame::encode(&Inside::Begun)?, descriptors)
}

/// Becomes a command; returns why that failed.
fn run(
    spec: &Spec,
    connection: &UnixStream,
    argv: &[String],
    env: &dozen_domain::config::Vars,
    terminal: Option<(u16, u16)>,
    separate_errors: bool,
) -> String {
    let prepare = || -> io::Result<(Option<OwnedFd>, Vec<OwnedFd>)> {
        if let Some(size) = terminal {
            let (master, slave) = open_terminal(size)?;
            begun(connection, &[master.as_fd()])?;
            return Ok((Some(slave), Vec::new()));
        }
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let ((input, to), (from, output)) = (pipe()?, pipe()?);
        if separate_errors {
            let (from_errors, errors) = pipe()?;
            begun(connection, &[to.as_fd(), from.as_fd(), from_errors.as_fd()])?;
            return Ok((None, vec![input, output, errors]));
        }
        begun(connection, &[to.as_fd(), from.as_fd()])?;
        Ok((None, vec![input, output]))
    };
    let (slave, pipes) = match prepare() {
        Ok(ends) => ends,
        Err(error) => return format!("open the streams of a process in the dyno: {error}"),
    };
    let stream = |n: usize| slave.as_ref().or(pipes.get(n)).or(pipes.get(1)).map_or(-1, AsRawFd::as_raw_fd);
    let program = Program::new(&Start {
        argv,
        env,
        workdir: &spec.sandbox.workdir,
        terminal: slave.as_ref().map(AsRawFd::as_raw_fd),
        streams: [stream(0), stream(1), stream(2)],
    });
    program.map_or_else(|reason| reason, |program| program.replace())
}
