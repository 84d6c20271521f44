//! What control and logs say to a shim, the process that owns one dyno.
//!
//! A shim lives in `run/dynos/<dyno id>/`: `shim.sock` (this protocol) and `dyno.json` ([`Record`], no secrets). It is
//! started as `dozen shim <directory>` with a [`Spec`] as one JSON frame on its standard input, so that config vars
//! never touch the disk or `argv`. It answers on its standard output with one [`Event`] frame, [`Event::Started`] or
//! [`Event::Failed`], and then closes it.
//!
//! A connection begins with one [`Hello`] frame. A shim stays after its dyno's end until control has sent
//! [`Command::Forget`] and the logs role has acknowledged all output (or has been away too long), so neither an exit
//! status nor output is lost when either is dead for a while.
//!
//! The logs role connects to every shim whose [`Record::logged`] is true, with [`Hello::Output`] `ack: true`, and again
//! whenever the connection ends. It acknowledges whole lines only, so up to a line's length stays in the backlog; the
//! end (an empty [`Output`]) is sent on every such connection that reaches it and is always acknowledged, even when its
//! offset was before. To a shim with `logged: false` the logs role never connects, and that shim waits for no
//! acknowledgement of it: the engine reads such output itself.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use dozen_domain::{
    config::Vars,
    dyno::Exit,
    ids::{AppId, DynoId},
    name::DynoName,
    release::Version,
    size::Size,
};
use serde::{Deserialize, Serialize};

use crate::clock::Micros;

/// What a shim is to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Which dyno, and what others find in `dyno.json`.
    pub record: Record,
    /// The whole environment of the process.
    pub env: Vars,
    /// `argv` of the process inside the container, `["/bin/bash", "-c", …]`.
    pub argv: Vec<String>,
    /// Container: mounts, identity, limits, network.
    pub sandbox: Sandbox,
    /// The port to watch for a bind; none for other types than web.
    pub port: Option<u16>,
    /// Time to bind it.
    pub boot_ms: u64,
    /// Whether to give the process a terminal of this size (columns, rows) in place of pipes.
    pub terminal: Option<(u16, u16)>,
    /// The client that this dyno is for: its bytes go to standard input. Without one that is `/dev/null`.
    pub client: Option<Client>,
    /// Bytes of output to hold while nobody acknowledges.
    pub backlog_bytes: u64,
    /// Longest time for which the dyno is held up when they are full and nothing of them is acknowledged.
    pub hold_ms: u64,
    /// Time for which output is held after the dyno's end while nobody comes to acknowledge it.
    pub linger_ms: u64,
}

/// How a dyno bears with the client that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Time for it to attach (R13).
    pub wait_ms: u64,
    /// Longest time without a byte in either direction.
    pub idle_ms: u64,
    /// Pause between the three SIGHUP when it is gone, and then until R16.
    pub hangup_ms: u64,
    /// Time between SIGTERM and SIGKILL when it did not come.
    pub grace_ms: u64,
}

/// What is known of a dyno without asking its shim; written to `dyno.json` before the process starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which dyno.
    pub dyno: DynoId,
    /// Whose.
    pub app: AppId,
    /// `web.1`.
    pub name: DynoName,
    /// Size.
    pub size: Size,
    /// Release it runs.
    pub version: Version,
    /// What people see as its command.
    pub command: String,
    /// When it was created.
    pub created_at: Micros,
    /// Whether output belongs in the app's log (a build's does not).
    pub logged: bool,
    /// Anything else the engine wants to find again after a restart (network slot, directories, cgroup).
    pub engine: BTreeMap<String, String>,
}

/// What a shim leaves at its end as `run/dynos/<dyno id>.lost` when output was never stored. The logs role tells it (L13)
/// and removes the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Whose output.
    pub app: AppId,
    /// Which dyno's.
    pub name: DynoName,
    /// How much of it.
    pub bytes: u64,
    /// When the first of it was written.
    pub since: Micros,
}

impl Lost {
    /// What the directory's name is followed by in the file's.
    pub const EXTENSION: &str = "lost";
}

/// How a container is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sandbox {
    /// Unprivileged user outside the container; `None` when the platform itself runs as an ordinary user.
    pub host_uid: Option<u32>,
    /// Layer roots from lowest to highest; each may hold `app/`.
    pub layers: Vec<PathBuf>,
    /// Directory for everything the container writes (overlay upper and work, `/tmp`); removed with the dyno.
    pub scratch: PathBuf,
    /// What is ready of its root; none: all of it is made for it.
    pub system: Option<System>,
    /// Template of the file system that holds the scratch directory's contents, which bounds them; none: no bound.
    pub disk: Option<PathBuf>,
    /// Further binds: outside path, inside path, writable.
    pub binds: Vec<(PathBuf, PathBuf, bool)>,
    /// Working directory inside.
    pub workdir: PathBuf,
    /// Host name inside.
    pub hostname: String,
    /// Memory that it is told it has.
    pub memory_bytes: u64,
    /// Memory at which it is killed. This and what follows are enforced through cgroups where there are any, and rlimits.
    pub memory_bound_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// CPU shares (cgroup v1 units).
    pub cpu_shares: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Directory of the dyno's own cgroup under each controller's root, `dozen-1a2b3c/<dyno>`; none: no cgroup.
    pub cgroup: Option<String>,
    /// Network.
    pub network: Network,
}

/// The part of a container's root that is the same for all, made before in a mount namespace that no process is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct System {
    /// The namespace; when it cannot be opened the container does without.
    pub namespace: PathBuf,
    /// Where the root is mounted in it.
    pub root: PathBuf,
}

/// The network of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The machine's own (no isolation; an ordinary user's start).
    Host,
    /// An empty namespace.
    None,
    /// An own namespace joined to the platform's bridge.
    Bridge {
        /// Bridge interface.
        bridge: String,
        /// Addresses with prefix length, IPv4 then IPv6.
        addresses: Vec<(std::net::IpAddr, u8)>,
        /// Gateways, one for each family.
        gateways: Vec<std::net::IpAddr>,
    },
}

/// First frame of a connection to a shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hello {
    /// Frames of [`Command`] in, frames of [`Event`] out; the present state is sent at once.
    Control,
    /// Output from this offset: binary frames ([`Output::encode`]) out. When `ack` is set, frames of `u64` (JSON) in,
    /// each saying up to which offset output is stored and may be forgotten.
    Output {
        /// First byte wanted.
        from: u64,
        /// Whether this reader is the one that stores output.
        ack: bool,
    },
    /// The client of [`Spec::client`]. Answered with one frame, a `bool`: it is taken, or it came too late or second.
    /// Raw bytes both ways from there on: output from offset 0 out, standard input in.
    Attach,
    /// A way into the running dyno: from here on the other side is a process inside, which says [`Inside::Ready`] and
    /// is then told one [`Enter`].
    Enter,
}

/// What is to be done inside a running dyno, as its user and with all its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enter {
    /// Run a command beside what runs there, in the same environment.
    Run {
        /// Its `argv`.
        argv: Vec<String>,
        /// Variables over the dyno's own.
        env: BTreeMap<String, String>,
        /// A terminal of this size (columns, rows), else pipes.
        terminal: Option<(u16, u16)>,
        /// With pipes: one of its own for standard error.
        separate_errors: bool,
    },
    /// Make a TCP socket in the dyno's network.
    Socket {
        /// IPv6, else IPv4.
        v6: bool,
    },
}

/// What a process inside says on the connection of a [`Hello::Enter`], and the dyno's init in its name at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inside {
    /// It waits for its [`Enter`].
    Ready,
    /// It is about to begin. Descriptors travel beside this frame: the terminal's master end; or the pipes of standard
    /// input, output and, when asked for, error; or the socket.
    Begun,
    /// It cannot be done; why.
    Failed(String),
    /// It is gone.
    Exited(Exit),
}

/// Control to shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Signal every process of the dyno, then SIGKILL when it is still there after the grace.
    Stop {
        /// Signal number, 15 unless the app asks for another.
        signal: i32,
        /// Time until SIGKILL.
        grace_ms: u64,
    },
    /// Signal every process of the dyno.
    Signal(i32),
    /// Control has recorded the exit; the shim may go when output is stored too.
    Forget,
}

/// Shim to control. Every event carries the time at which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The process runs.
    Started {
        /// When.
        at: Micros,
        /// Its process id outside the container.
        pid: i32,
    },
    /// The container could not be made or the command not be started.
    Failed {
        /// When.
        at: Micros,
        /// Why, for the operator.
        error: String,
    },
    /// It listens on its port.
    Bound {
        /// When.
        at: Micros,
        /// Where the router reaches it.
        addresses: Vec<SocketAddr>,
    },
    /// It did not listen in time and was killed (R10).
    BootTimeout {
        /// When.
        at: Micros,
    },
    /// Signals were sent.
    Stopping {
        /// When.
        at: Micros,
    },
    /// It outlived its grace and was killed (R12).
    StopTimeout {
        /// When.
        at: Micros,
    },
    /// Its client did not attach in time (R13).
    NotAttached {
        /// When.
        at: Micros,
    },
    /// Its client is gone, or was silent for too long, and every process was sent SIGHUP.
    HungUp {
        /// When.
        at: Micros,
        /// Which time, from 1.
        attempt: u32,
    },
    /// It goes on without its client though it was sent SIGHUP (R16).
    Detached {
        /// When.
        at: Micros,
    },
    /// It was at its bound of memory and was killed (R15).
    OutOfMemory {
        /// When.
        at: Micros,
    },
    /// It is gone.
    Exited {
        /// When.
        at: Micros,
        /// How.
        exit: Exit,
    },
}

/// A piece of output: where it starts, when it was read, the bytes. On the wire a frame of
/// `u64` offset, `i64` microseconds, `u64` bytes dropped just before it, then the bytes, all little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Offset of the first byte since the dyno's start. Dropped bytes count, so it is the end of the piece before
    /// plus `dropped`. A reader that asks for bytes that are gone gets the first ones still there.
    pub offset: u64,
    /// When the shim read it.
    pub at: Micros,
    /// Bytes that were dropped between the piece before and this one because the backlog was full (L12).
    pub dropped: u64,
    /// The bytes. An empty piece is the end: the dyno is gone and nothing more comes.
    pub bytes: Vec<u8>,
}

impl Output {
    const HEAD: usize = 24;

    /// The frame's bytes, without the length before it.
    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        Self::append(&mut frame, (self.offset, self.at, self.dropped, &self.bytes));
        frame.split_off(4)
    }

    /// Appends a whole frame of offset, time, dropped bytes and bytes, with the length before it.
    pub fn append(to: &mut Vec<u8>, (offset, at, dropped, bytes): (u64, Micros, u64, &[u8])) {
        let length = Self::HEAD + bytes.len();
        to.reserve(4 + length);
        to.extend_from_slice(&(length as u32).to_le_bytes());
        to.extend_from_slice(&offset.to_le_bytes());
        to.extend_from_slice(&at.to_le_bytes());
        to.extend_from_slice(&dropped.to_le_bytes());
        to.extend_from_slice(bytes);
    }

    /// Reads a frame's bytes; `None` when it is too short.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let (offset, at, dropped, bytes) = Self::parts(frame)?;
        Some(Self { offset, at, dropped, bytes: bytes.to_vec() })
    }

    /// Offset, time, dropped bytes and bytes of a frame, not copied; `None` when it is too short.
    pub fn parts(frame: &[u8]) -> Option<(u64, Micros, u64, &[u8])> {
        let number = |at: usize| frame.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        Some((number(0)?, number(8)?.cast_signed(), number(16)?, frame.get(Self::HEAD..)?))
    }
}
