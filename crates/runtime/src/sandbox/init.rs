//! Pid 1 of a dyno: finishes the container from inside, starts the command, then passes signals on, reaps, and tells
//! how the command ended.
//!
//! It is a fork of the shim without an exec, so it costs a few pages. It dies with the shim, and everything in the
//! dyno dies with it. The command's end is its end.

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use dozen_api::shim::{Network, Sandbox, Spec};
use dozen_domain::config::Vars;
use rustix::{pty::OpenptFlags, thread::UnshareFlags};

use super::{
    channel::{End, Message},
    disk::{self, Coming},
    enter::Guests,
    identity, mount, netlink, rootfs, seccomp,
    system::{self, unshare},
    veth,
};
use crate::{
    cgroup::{self, Cgroup, Controller},
    shim::memory,
};

/// The descriptors that the init brings along.
pub(super) struct Ends {
    /// To the shim.
    pub(super) channel: End,
    /// The command's standard input.
    pub(super) input: OwnedFd,
    /// The command's standard output and error.
    pub(super) output: OwnedFd,
    /// Where the command's wait status goes.
    pub(super) status: OwnedFd,
    /// Where connections come from whose other side wants a process inside.
    pub(super) entrance: OwnedFd,
    /// Where its disk comes from, if it is to have one.
    pub(super) disk: Option<Coming>,
}

/// Milliseconds after which a command runs that is worth the work of making its init small.
const SETTLE: i32 = 1_000;
const FOREVER: i32 = -1;

type Outcome<T> = Result<T, String>;

fn because<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Where the init finds itself and is to be.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Where the machine has the controllers that the dyno is to be under.
    pub(super) controllers: &'a [cgroup::Place],
    /// It was born in its control group, as far as that can be.
    pub(super) born: bool,
}

/// Runs the init; the calling process has just been cloned into its namespaces.
pub(super) fn run(spec: &Spec, ends: Ends, place: Place<'_>) -> ! {
    let code = match catch_unwind(AssertUnwindSafe(|| start(spec, &ends, place))) {
        Ok(Ok(command)) => serve(spec, command, ends),
        Ok(Err(reason)) => {
            let _ = ends.channel.tell(&Message::Failed(reason));
            125
        }
        Err(_) => {
            let _ = ends.channel.tell(&Message::Failed("the container's init panicked".to_owned()));
            125
        }
    };
    // SAFETY: ends the process at once; nothing of the shim whose copy it is may be run down here.
    unsafe { libc::_exit(code) }
}

/// Makes the container and starts the command; returns its pid.
fn start(spec: &Spec, ends: &Ends, place: Place<'_>) -> Outcome<i32> {
    let sandbox = &spec.sandbox;
    let root = sandbox.host_uid.is_some();
    let wait = || ends.channel.wait().map_err(because("the shim is gone"));
    block_signals();
    // When the whole machine is out of memory, dynos go before the platform and the machine's own services.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    if !root {
        wait()?;
    }
    rustix::system::sethostname(sandbox.hostname.as_bytes()).map_err(because("set the host name"))?;
    let ready = match &sandbox.system {
        Some(system) => system::enter(system).map_err(because("make a mount namespace"))?,
        None => None,
    };
    let because_of = |error: mount::Error| error.to_string();
    let unfinished = rootfs::begin(spec, ready).map_err(because_of)?;
    if root {
        wait()?;
    }
    let bound_processes = !join(sandbox, place)?;
    let disk = || -> io::Result<OwnedFd> {
        let made = ends.disk.as_ref().ok_or(io::ErrorKind::NotFound)?.take()?;
        ends.channel.tell(&Message::Disk(disk::top(&made)?))?;
        Ok(made)
    };
    rootfs::finish(unfinished, sandbox, disk).map_err(because_of)?;
    match &sandbox.network {
        Network::Host => {}
        Network::None => veth::loopback().map_err(because("bring the loopback up"))?,
        Network::Bridge { addresses, gateways, .. } => {
            wait()?;
            veth::loopback().map_err(because("bring the loopback up"))?;
            veth::address(addresses, gateways).map_err(because("set the addresses"))?;
        }
    }
    let listens = spec.port.is_some() && !matches!(sandbox.network, Network::Host);
    let diagnostics = if listens { netlink::Socket::diagnostics().ok() } else { None };
    unshare(UnshareFlags::NEWCGROUP).map_err(because("make a control group namespace"))?;
    identity::take_short_turns();
    identity::limit(sandbox, bound_processes).map_err(because("set limits"))?;
    if root {
        identity::leave_groups().map_err(because("leave the groups of root"))?;
        unshare(UnshareFlags::NEWUSER).map_err(because("make a user namespace"))?;
        ends.channel.tell(&Message::MapWanted).map_err(because("tell the shim"))?;
        wait()?;
    }
    identity::become_dyno().map_err(because("become the dyno's user"))?;
    identity::tie_to_parent().map_err(because("tie the dyno to its shim"))?;
    if let Some(socket) = diagnostics {
        ends.channel.tell(&Message::Diagnostics(socket.into_descriptor())).map_err(because("tell the shim"))?;
    }
    let terminal = match spec.terminal {
        Some(size) => {
            let (master, slave) = open_terminal(size).map_err(because("open a terminal"))?;
            ends.channel.tell(&Message::Terminal(master)).map_err(because("tell the shim"))?;
            Some(slave)
        }
        None => None,
    };
    // Whatever became of the shim before its life and ours were tied together shows here.
    ends.channel.is_held().map_err(because("the shim is gone"))?;
    ends.channel.tell(&Message::Ready).map_err(because("tell the shim"))?;
    let telling = spec.port.and_then(|_| seccomp::install_telling().ok());
    match telling {
        Some(listener) => ends.channel.tell(&Message::Listens(listener)).map_err(because("tell the shim"))?,
        None => seccomp::install().map_err(because("install the system call filter"))?,
    }
    let input = terminal.as_ref().unwrap_or(&ends.input).as_raw_fd();
    let output = terminal.as_ref().unwrap_or(&ends.output).as_raw_fd();
    let program = Program::new(&Start {
        argv: &spec.argv,
        env: &spec.env,
        workdir: &sandbox.workdir,
        terminal: terminal.as_ref().map(AsRawFd::as_raw_fd),
        streams: [input, output, output],
    })?;
    spawn(&Errand { program, channel: &ends.channel }).map_err(because("fork the command"))
}

/// Steps into the dyno's control group, if it is to have one; says whether that bounds the processes.
fn join(sandbox: &Sandbox, place: Place<'_>) -> Outcome<bool> {
    let Some(relative) = &sandbox.cgroup else { return Ok(false) };
    let chain = |error: cgroup::Error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let cgroup = Cgroup::open_at(place.controllers, relative);
    cgroup.join(place.born).map_err(chain)?;
    Ok(cgroup.has(Controller::Pids))
}

/// What the child of [`spawn`] does.
struct Errand<'a> {
    program: Program,
    channel: &'a End,
}

/// Starts the command; its pid.
///
/// The child borrows this process's memory until it has become the command (as `posix_spawn` does it), so that nothing
/// of it is copied. Until then this process stands still.
fn spawn(errand: &Errand<'_>) -> io::Result<i32> {
    extern "C" fn child(errand: *mut libc::c_void) -> i32 {
        // SAFETY: it is the errand below, which lives as long as its caller stands still.
        let errand = unsafe { &*errand.cast::<Errand<'_>>() };
        let reason = errand.program.replace();
        let _ = errand.channel.tell(&Message::Failed(reason));
        // SAFETY: ends the process at once; nothing of the init, whose memory this is, may be run down here.
        unsafe { libc::_exit(127) }
    }
    const STACK: usize = 256 << 10;
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is the child's alone, aligned, and stays until the child has left this memory; descriptors,
    // signals and directories are its own copies. It writes to nothing else but what its own calls allocate.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        libc::clone(child, top, flags, std::ptr::from_ref(errand).cast_mut().cast())
    };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// Opens a terminal as the dyno's user, so that it owns it: its master end and its slave end.
pub(super) fn open_terminal((columns, rows): (u16, u16)) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, rustix::fs::Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size)?;
    Ok((master, slave))
}

/// What a process inside is started with.
pub(super) struct Start<'a> {
    pub(super) argv: &'a [String],
    pub(super) env: &'a Vars,
    pub(super) workdir: &'a Path,
    /// Its controlling terminal, if it has one.
    pub(super) terminal: Option<RawFd>,
    /// Standard input, output and error.
    pub(super) streams: [RawFd; 3],
}

/// A program that is ready to be started: everything that needs memory is done.
pub(super) struct Program {
    name: String,
    paths: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
    workdir: PathBuf,
    terminal: Option<RawFd>,
    streams: [RawFd; 3],
}

impl Program {
    /// Prepares it; an error says what is wrong with it.
    pub(super) fn new(start: &Start<'_>) -> Outcome<Self> {
        let Some(program) = start.argv.first() else { return Err("there is no command".to_owned()) };
        let environment = start.env.iter().map(|(name, value)| format!("{name}={}", value.expose()));
        let nul = |_| "a NUL byte in the command or its environment".to_owned();
        let arguments = start.argv.iter().map(|argument| CString::new(argument.as_str()));
        Ok(Self {
            name: program.clone(),
            paths: candidates(start.env, program).into_iter().filter_map(|path| CString::new(path).ok()).collect(),
            argv: arguments.collect::<Result<_, _>>().map_err(nul)?,
            environment: environment.map(CString::new).collect::<Result<_, _>>().map_err(nul)?,
            workdir: start.workdir.to_owned(),
            terminal: start.terminal,
            streams: start.streams,
        })
    }

    /// Becomes it, in a session of its own; returns why that failed.
    pub(super) fn replace(&self) -> String {
        if let Err(error) = self.settle() {
            return format!("prepare the command: {error}");
        }
        if let Err(error) = rustix::process::chdir(&self.workdir) {
            return format!("change to {}: {error}", self.workdir.display());
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, environment) = (pointers(&self.argv), pointers(&self.environment));
        let mut error = io::Error::from_raw_os_error(libc::ENOENT);
        for path in &self.paths {
            // SAFETY: all are NUL-terminated strings and NULL-terminated arrays of them that live on.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
            error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::NotFound {
                break;
            }
        }
        format!("start {}: {error}", self.name)
    }

    /// Takes session, terminal and streams.
    fn settle(&self) -> io::Result<()> {
        rustix::process::setsid()?;
        if let Some(terminal) = self.terminal {
            // SAFETY: the caller's descriptor is open and stays so.
            rustix::process::ioctl_tiocsctty(unsafe { BorrowedFd::borrow_raw(terminal) })?;
        }
        for (from, to) in self.streams.into_iter().zip(0..) {
            // SAFETY: all are open descriptors of this process, whose old standard streams nothing uses any more.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        close_from(3, libc::CLOSE_RANGE_CLOEXEC)?;
        reset_signals();
        Ok(())
    }
}

fn candidates(env: &Vars, program: &str) -> Vec<Vec<u8>> {
    if program.contains('/') {
        return vec![program.as_bytes().to_vec()];
    }
    let path = env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", |path| path.expose());
    path.split(':').map(|directory| Path::new(directory).join(program).as_os_str().as_bytes().to_vec()).collect()
}

/// Passes signals on, lets processes in and reaps until the command ends; returns the exit code.
fn serve(spec: &Spec, command: i32, ends: Ends) -> i32 {
    let Ends { channel, input, output, status, entrance, disk } = ends;
    rustix::thread::set_name(c"dyno-init").unwrap_or_default();
    // Nothing of the shim's may stay open here: neither the command's output, whose end is the dyno's, nor the channel.
    drop((channel, input, output, disk));
    let Some((status, entrance, signals)) = keep_alone(&status, &entrance) else { return 125 };
    let mut guests = Guests::new(entrance);
    let mut patience = SETTLE;
    loop {
        let Some(signal) = guests.wait(&signals, spec, patience) else {
            if patience == SETTLE {
                memory::release();
                patience = FOREVER;
            }
            continue;
        };
        if signal == libc::SIGCHLD {
            while let Some((pid, wait_status)) = reap() {
                if pid == command {
                    // Also when nobody reads it any more: this is the dyno's end.
                    let _ = rustix::io::write(&status, &wait_status.to_ne_bytes());
                    return 0;
                }
                guests.ended(pid, wait_status);
            }
        } else if signal > 0 {
            // SAFETY: takes numbers alone. Every process of this pid namespace but this one.
            unsafe { libc::kill(-1, signal) };
        }
    }
}

/// Closes every descriptor but these two and a new one that reads signals; standard streams become `/dev/null`.
fn keep_alone(status: &OwnedFd, entrance: &OwnedFd) -> Option<(OwnedFd, OwnedFd, OwnedFd)> {
    // Above the numbers that are given out here, so that none is overwritten before it is copied.
    let high = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 10).ok();
    let (status, entrance) = (high(status)?, high(entrance)?);
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty());
    let from = null.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let all = all_signals();
    // SAFETY: plain descriptor calls; what they replace or close is not used any more. The three are owned once.
    unsafe {
        for to in 0..3 {
            libc::dup2(from, to);
        }
        libc::dup3(status.as_raw_fd(), 3, libc::O_CLOEXEC);
        libc::dup3(entrance.as_raw_fd(), 4, libc::O_CLOEXEC);
        std::mem::forget((null, status, entrance));
        let _ = close_from(5, 0);
        let signals = libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC);
        (signals >= 0).then(|| [3, 4, signals].map(|fd| OwnedFd::from_raw_fd(fd)).into())
    }
}

fn close_from(first: u32, flags: u32) -> io::Result<()> {
    // SAFETY: takes numbers alone; the callers use nothing that it closes.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the status is a valid place.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

fn all_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Signals wait from the first moment on, so that none is lost before [`serve`] looks.
fn block_signals() {
    let all = all_signals();
    // SAFETY: the set is initialised; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
}

/// Undoes what the shim ignores and the init blocks.
fn reset_signals() {
    // Past libc, which keeps two signals for itself and would leave them as they are. All zero is the default action.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel's structure has at most 32 bytes; the two signals that cannot be set are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; the old mask is not asked for.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, none.as_ptr(), std::ptr::null::<u64>(), 8);
    }
}
