//! The container a dyno runs in: namespaces, a file system of its own, an unprivileged user, a system call filter,
//! limits, and a link to the platform's bridge.
//!
//! [`start`] is called by a shim, once, in a process with one thread. The work is shared between the shim outside and
//! the dyno's [`init`] inside, see [`channel`]. Two ways: as root each dyno has its own user outside, mounts belong to
//! the machine's user namespace and only then is the dyno put into its own; as an ordinary user the user namespace
//! comes first and there are neither control groups nor a network nor a disk of its own.

mod channel;
pub mod disk;
mod enter;
mod etc;
mod identity;
mod init;
mod mount;
pub(crate) mod netlink;
mod protections;
mod rootfs;
mod seccomp;
mod system;
mod veth;

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

use dozen_api::shim::{Network, Sandbox, Spec};

pub(crate) use self::enter::let_in;
use self::{channel::Message, disk::Coming};
pub use self::{
    etc::DYNO,
    protections::{Missing, protections},
    rootfs::UPPER,
    system::System,
    veth::interface,
};
use crate::cgroup::{Cgroup, Layout, Place, Quota, hierarchy};

/// Why a container could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scratch directory cannot be used.
    #[error("prepare the scratch directory {path}: {source}")]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pipe or socket could not be made.
    #[error("open the dyno's pipes: {0}")]
    Pipes(#[source] io::Error),
    /// The kernel refused the namespaces.
    #[error("make the dyno's namespaces: {0}")]
    Namespaces(#[source] io::Error),
    /// The user could not be mapped.
    #[error("map the dyno's user: {0}")]
    Map(#[source] io::Error),
    /// The link to the bridge could not be made.
    #[error("link {interface} to the bridge {bridge}: {source}")]
    Link {
        /// The dyno's outer interface.
        interface: String,
        /// The bridge.
        bridge: String,
        /// Why.
        source: io::Error,
    },
    /// Asked by root to run a dyno as the same user.
    #[error("as root every dyno needs a user of its own outside its container")]
    Root,
    /// A step inside failed.
    #[error("{0}")]
    Inside(String),
}

/// A dyno that was started, seen from its shim.
pub struct Container {
    /// Pid of its init outside.
    pub pid: i32,
    /// The same as a descriptor; polls as readable when the dyno is gone.
    pub pidfd: OwnedFd,
    /// Tells the command's wait status, four bytes in the machine's order, or nothing if the dyno was killed.
    pub status: OwnedFd,
    /// What it prints: a pipe, or its terminal's master end.
    pub output: OwnedFd,
    /// Its standard input if it has one that is not the terminal.
    pub input: Option<OwnedFd>,
    /// Takes connections whose other side wants a process inside: [`let_in`].
    pub entrance: OwnedFd,
    /// Lists the sockets of its network, where that is its own.
    pub diagnostics: Option<OwnedFd>,
    /// Tells when it is about to listen, if its port is watched and the kernel can.
    pub listens: Option<OwnedFd>,
    /// The top of its disk, if it has one of its own.
    pub disk: Option<OwnedFd>,
    /// Its control group, if one was asked for.
    pub cgroup: Option<Cgroup>,
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| Error::Pipes(error.into()))
}

/// Makes the scratch directory ready. Called before [`start`] and, if there is to be a disk, before that is made.
///
/// # Errors
/// When the machine's disk is full or the directory not writable.
pub(crate) fn prepare(sandbox: &Sandbox) -> Result<(), Error> {
    rootfs::prepare(sandbox).map_err(|source| Error::Scratch { path: sandbox.scratch.clone(), source })
}

/// Makes the container and starts the command in it. `disk` is where its disk comes from, if it is to have one. What is
/// to be done `beside` is done while the init is at work and before the command starts.
///
/// # Errors
/// Nothing of the dyno is left then but its scratch directory.
pub(crate) fn start<T, E: From<Error>>(
    spec: &Spec,
    disk: Option<Coming>,
    beside: impl FnOnce() -> Result<T, E>,
) -> Result<(Container, T), E> {
    let sandbox = &spec.sandbox;
    if sandbox.host_uid.is_none_or(|uid| uid == 0) && rustix::process::geteuid().is_root() {
        return Err(Error::Root.into());
    }
    let places = if sandbox.cgroup.is_some() { hierarchy::places() } else { Vec::new() };
    // Only in the new layout can a process be born in its group.
    let bears = places.iter().any(|place| place.layout == Layout::Unified);
    let cgroup = sandbox.cgroup.as_ref().filter(|_| bears).map(|_| create(sandbox, &places));

    let (shim_end, init_end) = channel::pair().map_err(Error::Pipes)?;
    let (output, output_end) = pipe()?;
    let (status, status_end) = pipe()?;
    let (entrance, entrance_end) = enter::pair().map_err(Error::Pipes)?;
    let (input_end, input) = if spec.client.is_some() && spec.terminal.is_none() {
        let (theirs, ours) = pipe()?;
        (theirs, Some(ours))
    } else {
        (fs::File::open("/dev/null").map_err(Error::Pipes)?.into(), None)
    };

    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if sandbox.system.is_none() {
        flags |= libc::CLONE_NEWNS; // else it has to find that of the system first
    }
    if !matches!(sandbox.network, Network::Host) {
        flags |= libc::CLONE_NEWNET;
    }
    if sandbox.host_uid.is_none() {
        flags |= libc::CLONE_NEWUSER;
    }
    let birthplace = cgroup.as_ref().and_then(Cgroup::birthplace);
    let (born, cloned) = clone(flags, birthplace.as_ref());
    let Some((pid, pidfd)) = cloned.map_err(Error::Namespaces)? else {
        drop((shim_end, output, status, input, entrance));
        let place = init::Place { controllers: &places, born };
        let ends = init::Ends {
            channel: init_end,
            input: input_end,
            output: output_end,
            status: status_end,
            entrance: entrance_end,
            disk,
        };
        init::run(spec, ends, place)
    };
    drop((init_end, output_end, status_end, input_end, entrance_end, disk));
    let mut container =
        Container { pid, pidfd, status, output, input, entrance, diagnostics: None, listens: None, disk: None, cgroup };
    let made = furnish(spec, &places, &mut container, &shim_end).map_err(E::from);
    match made.and_then(|()| beside()).and_then(|done| Ok((done, follow(spec, &mut container, &shim_end)?))) {
        Ok((done, ())) => Ok((container, done)),
        Err(error) => {
            container.abandon();
            Err(error)
        }
    }
}

/// Makes the dyno's control group.
fn create(sandbox: &Sandbox, places: &[Place]) -> Cgroup {
    let quota = Quota { memory_bytes: sandbox.memory_bound_bytes, pids: sandbox.pids, cpu_shares: sandbox.cpu_shares };
    Cgroup::create_at(places, sandbox.cgroup.as_deref().unwrap_or_default(), &quota).0
}

/// The shim's half of the work: what the init waits for.
fn furnish(spec: &Spec, places: &[Place], container: &mut Container, init: &channel::End) -> Result<(), Error> {
    let sandbox = &spec.sandbox;
    if sandbox.host_uid.is_none() {
        identity::map(container.pid, None).map_err(Error::Map)?;
    }
    if sandbox.cgroup.is_some() && container.cgroup.is_none() {
        container.cgroup = Some(create(sandbox, places));
    }
    init.proceed();
    if let Network::Bridge { bridge, addresses, .. } = &sandbox.network {
        let interface = veth::interface(spec.record.dyno);
        veth::connect(&interface, bridge, container.pid, addresses).map_err(|source| Error::Link {
            interface,
            bridge: bridge.clone(),
            source,
        })?;
        init.proceed();
    }
    Ok(())
}

/// Does what the init asks for until the command has started.
fn follow(spec: &Spec, container: &mut Container, init: &channel::End) -> Result<(), Error> {
    let mut ready = false;
    loop {
        match init.receive().map_err(Error::Pipes)? {
            Some(Message::MapWanted) => {
                identity::map(container.pid, spec.sandbox.host_uid).map_err(Error::Map)?;
                init.proceed();
            }
            Some(Message::Disk(top)) => container.disk = Some(top),
            Some(Message::Diagnostics(socket)) => container.diagnostics = Some(socket),
            Some(Message::Listens(listener)) => container.listens = Some(listener),
            Some(Message::Terminal(master)) => container.output = master,
            Some(Message::Ready) => ready = true,
            Some(Message::Failed(reason)) => return Err(Error::Inside(reason)),
            None if ready => return Ok(()),
            None => return Err(Error::Inside("the container's init ended before the command was started".into())),
        }
    }
}

impl Container {
    /// Kills and reaps what there is of a dyno that could not be started.
    fn abandon(self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ =
            rustix::process::waitpid(rustix::process::Pid::from_raw(self.pid), rustix::process::WaitOptions::empty());
        if let Some(cgroup) = self.cgroup {
            cgroup.kill();
            let _ = cgroup.remove();
        }
    }
}

/// What a clone gives: nothing in the child, else its pid and descriptor.
type Cloned = io::Result<Option<(i32, OwnedFd)>>;

/// Forks into new namespaces, and into a control group where the kernel can (since 5.7); says whether it did.
fn clone(flags: i32, birthplace: Option<&OwnedFd>) -> (bool, Cloned) {
    if let Some(birthplace) = birthplace
        && let made @ Ok(_) = clone_at(flags, Some(birthplace))
    {
        return (true, made);
    }
    (false, clone_at(flags, None))
}

fn clone_at(flags: i32, birthplace: Option<&OwnedFd>) -> Cloned {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: i32 = -1;
    // SAFETY: an all-zero clone_args is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from((flags | libc::CLONE_PIDFD) as u32);
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(directory) = birthplace {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and a stack this is a fork; the process has one thread, so the child may do anything.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel has just made this descriptor for us.
        pid => Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}
