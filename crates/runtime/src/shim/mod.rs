//! The process that owns one dyno: its pipes or terminal, its signals, its exit status, its limits.
//!
//! [`main`] is the hidden command `dozen shim <directory>`: it reads what to run, steps away from its parent, makes the
//! container ([`crate::sandbox`]), answers with the first event, and then supervises ([`supervisor`]) until the dyno is
//! gone and everything about it has been recorded elsewhere. The process that it steps away from makes the dyno's disk
//! meanwhile, which takes as long as all the rest. There is one a dyno, so it is small: one thread, no async runtime,
//! nothing allocated that is not needed now.

mod attendance;
mod cleanup;
mod connection;
pub(crate) mod memory;
mod ring;
mod supervisor;
mod watch;

use std::{fs, io, os::fd::AsRawFd, path::Path};

use dozen_api::{
    clock, frame,
    shim::{Event, Record, Spec},
    socket,
};

use crate::sandbox::{
    self,
    disk::{self, Coming, Maker},
};

/// Name of the socket in a dyno's directory.
pub const SOCKET: &str = "shim.sock";
/// Name of the file in a dyno's directory that holds its [`Record`].
pub const RECORD: &str = "dyno.json";
/// Name of the file in a dyno's directory that holds its [`Event::Exited`] once it has ended.
pub const EXIT: &str = "exit.json";
/// Key in [`Record::engine`]: the scratch directory stays when the dyno ends.
pub const KEEP_SCRATCH: &str = "keep_scratch";
/// Key in [`Record::engine`]: output that is stored already is held for readers that come later, as far as it fits.
pub const HOLD_OUTPUT: &str = "hold_output";

/// Why a shim could not take up its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read what to run: {0}")]
    Spec(#[source] io::Error),
    #[error("use the dyno's directory: {0}")]
    Directory(#[source] io::Error),
    #[error("leave the process that started it: {0}")]
    Detach(#[source] io::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error("reserve memory for the output: {0}")]
    Backlog(#[source] io::Error),
}

/// Runs the shim of the dyno whose directory this is; returns the process's exit code. The calling process has one
/// thread. The part of it that its parent waits for makes the dyno's disk and ends.
pub fn main(directory: &Path) -> i32 {
    let directory = match fs::canonicalize(directory) {
        Ok(directory) => directory,
        Err(error) => return refuse(None, &Error::Directory(error)),
    };
    let (spec, disk) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return refuse(Some(&directory), &error),
    };
    let disk = match (detach(), disk) {
        (Ok(true), disk) => disk.map(|(_, coming)| coming),
        (Ok(false), disk) => {
            if let Some((maker, _)) = disk {
                maker.make(&spec.sandbox);
            }
            return 0;
        }
        (Err(error), _) => return refuse(Some(&directory), &Error::Detach(error)),
    };
    match start(&directory, &spec, disk) {
        Ok(supervisor) => {
            drop(spec);
            answer(&supervisor.started());
            let _ = let_go();
            supervisor.run();
            0
        }
        Err(error) => refuse(Some(&directory), &error),
    }
}

fn answer(first: &Event) {
    let _ = frame::write_blocking(&mut io::stdout(), first);
    let _ = io::Write::flush(&mut io::stdout());
}

/// Answers that there will be no dyno, and leaves nothing of it; returns the exit code.
fn refuse(directory: Option<&Path>, error: &Error) -> i32 {
    if let Some(directory) = directory {
        let _ = fs::remove_dir_all(directory);
    }
    answer(&Event::Failed { at: clock::now(), error: error.to_string() });
    1
}

/// Reads what to run and makes its scratch directory.
fn prepare() -> Result<(Spec, Option<(Maker, Coming)>), Error> {
    let spec: Spec = frame::read_blocking(&mut io::stdin().lock())
        .and_then(|spec| spec.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .map_err(Error::Spec)?;
    sandbox::prepare(&spec.sandbox).inspect_err(|_| cleanup::scratch(&spec))?;
    let disk = spec.sandbox.disk.is_some().then(disk::order).transpose();
    let disk = disk.map_err(Error::Detach).inspect_err(|_| cleanup::scratch(&spec))?;
    Ok((spec, disk))
}

/// Becomes a process that nobody waits for, in a session of its own: `false` in the part that is to end soon.
fn detach() -> io::Result<bool> {
    // A dyno outlives its platform's terminal, clients and stop; at the machine's shutdown it is told itself.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: this process has one thread, so its copy may do anything.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        _ => return Ok(false),
    }
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    Ok(true)
}

fn start(directory: &Path, spec: &Spec, disk: Option<Coming>) -> Result<supervisor::Supervisor, Error> {
    let beside = || -> Result<_, Error> {
        write_record(directory, &spec.record).map_err(Error::Directory)?;
        let listener = socket::bind_blocking(&directory.join(SOCKET)).map_err(Error::Directory)?;
        listener.set_nonblocking(true).map_err(Error::Directory)?;
        Ok((listener, ring::Ring::new(spec.backlog_bytes).map_err(Error::Backlog)?))
    };
    let begun = sandbox::start(spec, disk, beside).and_then(|(container, (listener, ring))| {
        supervisor::Supervisor::new(directory, spec, container, ring, listener).map_err(Error::Directory)
    });
    begun.inspect_err(|_| cleanup::scratch(spec))
}

fn write_record(directory: &Path, record: &Record) -> io::Result<()> {
    write_atomically(directory, RECORD, &serde_json::to_vec(record)?)
}

/// Writes a file in a dyno's directory so that readers see all of it or none.
fn write_atomically(directory: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let draft = directory.join(format!(".{name}"));
    fs::write(&draft, contents)?;
    fs::rename(draft, directory.join(name))
}

/// Lets go of the streams that the parent gave, so that nothing waits for their end.
fn let_go() -> io::Result<()> {
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    for stream in 0..3 {
        // SAFETY: both are open descriptors; nothing holds on to what the standard streams were.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
