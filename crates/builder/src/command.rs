//! Runs foreign programs: package managers, compilers, the app's own scripts, classic buildpacks.
//!
//! Their output is streamed, both kinds in the order written; the time they take is measured apart from ours. A program
//! that leaves a daemon behind does not hold up the build: reading ends with the program, not with its pipe.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use crate::{
    error::{Error, Result},
    output::Output,
};

/// An environment, whole: nothing is inherited beside it.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// One run of a foreign program.
#[derive(Debug)]
pub(crate) struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Environment,
    folder: PathBuf,
    indent: bool,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit status or signal.
    pub(crate) status: ExitStatus,
    /// What it wrote to standard output, when that was asked for.
    pub(crate) stdout: Vec<u8>,
}

impl Ended {
    /// The status in words: `exit status 1`, `signal 9`.
    pub(crate) fn why(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(9)) => "signal 9; it may have run out of memory".to_owned(),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        }
    }
}

/// Where standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standard {
    /// Into the build's output, in one pipe with standard error.
    Streamed,
    /// To the caller; standard error is streamed.
    Captured,
}

impl Command {
    /// Runs `program` in `folder` with `environment`, looked up in its `PATH`.
    pub(crate) fn new(program: impl Into<PathBuf>, folder: &Path, environment: &Environment) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: environment.clone(),
            folder: folder.to_owned(),
            indent: true,
        }
    }

    /// Adds arguments.
    pub(crate) fn arguments<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    pub(crate) fn with(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(key.into(), value.into());
        self
    }

    /// Passes output on as it is: classic buildpacks write headings themselves.
    pub(crate) fn unindented(mut self) -> Self {
        self.indent = false;
        self
    }

    /// Runs it to its end, streaming everything.
    ///
    /// # Errors
    /// When it cannot be started or floods the log.
    pub(crate) fn stream(self, output: &mut Output, spent: &mut Duration) -> Result<Ended> {
        self.run(Standard::Streamed, output, spent)
    }

    /// Runs it to its end, keeping what it writes to standard output.
    ///
    /// # Errors
    /// When it cannot be started or floods the log.
    pub(crate) fn capture(self, output: &mut Output, spent: &mut Duration) -> Result<Ended> {
        self.run(Standard::Captured, output, spent)
    }

    fn run(self, standard: Standard, output: &mut Output, spent: &mut Duration) -> Result<Ended> {
        let started = Instant::now();
        let ended = self.run_inner(standard, output);
        *spent += started.elapsed();
        ended
    }

    fn run_inner(self, standard: Standard, output: &mut Output) -> Result<Ended> {
        let program = self.locate().ok_or_else(|| {
            Error::explained(
                format!("The program \"{}\" is not on this machine.", self.program.display()),
                vec![String::new(), "Whoever runs the platform can install it.".to_owned()],
            )
        })?;
        let failed = |operation| Error::io(operation, &program);
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe for")(e.into()))?;
        let captured = match standard {
            Standard::Streamed => None,
            Standard::Captured => Some(pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe for")(e.into()))?),
        };
        let (capture_read, stdout) = match captured {
            Some((read, write)) => (Some(read), write),
            None => (None, write.try_clone().map_err(failed("make a pipe for"))?),
        };
        let mut command = std::process::Command::new(&program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(write)
            .process_group(0);
        let mut child = command.spawn().map_err(failed("start"))?;
        // Our copies of the pipes' write ends live in `command`.
        drop(command);
        let group = Group(Pid::from_child(&child));
        let stdout = collect(&mut child, &read, capture_read.as_ref(), output, self.indent)
            .map_err(|error| error.unwrap_or_else(failed("read from")))?;
        let status = child.wait().map_err(failed("wait for"))?;
        std::mem::forget(group);
        Ok(Ended { status, stdout })
    }

    /// `execvp` would search our own `PATH`, not the one the program is given.
    fn locate(&self) -> Option<PathBuf> {
        if self.program.components().count() > 1 {
            return is_executable(&self.program).then(|| self.program.clone());
        }
        locate(&self.program, self.environment.get("PATH".as_ref() as &std::ffi::OsStr)?)
    }
}

/// Finds a program in a `PATH`.
pub(crate) fn locate(program: &Path, path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

/// Says whether a file is there that may be executed.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Ends what a program started when the build ends before the program does.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Why collecting ended early: the log limit, or (to be named by the caller) an operating system's error.
enum Stopped {
    Build(Error),
    System(io::Error),
}

impl Stopped {
    fn unwrap_or_else(self, name: impl FnOnce(io::Error) -> Error) -> Error {
        match self {
            Self::Build(error) => error,
            Self::System(error) => name(error),
        }
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Streams until the child has ended and what it had written by then is read.
fn collect(
    child: &mut Child,
    streamed: &OwnedFd,
    captured: Option<&OwnedFd>,
    output: &mut Output,
    indent: bool,
) -> std::result::Result<Vec<u8>, Stopped> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(io::Error::from)?;
    let mut kept = Vec::new();
    let mut block = vec![0; 64 * 1024];
    let (mut streamed_open, mut captured_open) = (true, captured.is_some());
    let mut alive = true;
    while streamed_open || captured_open {
        let watch = |open: bool| if open { PollFlags::IN } else { PollFlags::empty() };
        let captured_fd = captured.unwrap_or(streamed);
        let mut ready = [
            PollFd::from_borrowed_fd(streamed.as_fd(), watch(streamed_open)),
            PollFd::from_borrowed_fd(captured_fd.as_fd(), watch(captured_open)),
            PollFd::from_borrowed_fd(ended.as_fd(), watch(alive)),
        ];
        // After its end, only what is there already is read: a daemon may hold the pipe open for ever.
        let immediately = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut ready, (!alive).then_some(&immediately)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Stopped::System(error.into())),
        }
        let any = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let [stream_events, capture_events, end_events] = [0, 1, 2].map(|index: usize| ready[index].revents());
        if streamed_open && stream_events.intersects(any) {
            match rustix::io::read(streamed, &mut block[..]).map_err(io::Error::from)? {
                0 => streamed_open = false,
                read => output.foreign(&block[..read], indent).map_err(Stopped::Build)?,
            }
        }
        if captured_open && capture_events.intersects(any) {
            match rustix::io::read(captured_fd, &mut block[..]).map_err(io::Error::from)? {
                0 => captured_open = false,
                read => kept.extend_from_slice(&block[..read]),
            }
        }
        if alive && end_events.intersects(any) {
            alive = false;
        }
    }
    output.foreign_end(indent).map_err(Stopped::Build)?;
    Ok(kept)
}

/// Reads a small file whole; nothing when it is not there.
pub(crate) fn read_if_there(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::Captured;

    fn shell(script: &str) -> Command {
        let environment = Environment::from([("PATH".into(), "/usr/bin:/bin".into())]);
        Command::new("sh", Path::new("/"), &environment).arguments(["-c", script])
    }

    fn check(limit: u64) -> (Captured, Output, Duration) {
        let captured = Captured::default();
        (captured.clone(), Output::new(Box::new(captured), limit), Duration::ZERO)
    }

    #[test]
    fn both_outputs_are_streamed_in_order() {
        let (captured, mut output, mut spent) = check(1_000);
        let ended = shell("echo a; echo b >&2; printf c; exit 3").stream(&mut output, &mut spent).expect("it ran");
        assert_eq!(captured.text(), "       a\n       b\n       c\n");
        assert_eq!((ended.status.code(), ended.why().as_str()), (Some(3), "exit status 3"));
        assert!(spent > Duration::ZERO);
    }

    #[test]
    fn standard_output_can_be_kept_apart() {
        let (captured, mut output, mut spent) = check(1_000);
        let ended = shell("echo a; echo b >&2").capture(&mut output, &mut spent).expect("it ran");
        assert_eq!((ended.stdout.as_slice(), captured.text().as_str()), (&b"a\n"[..], "       b\n"));
    }

    #[test]
    fn a_daemon_left_behind_does_not_hold_up_the_build() {
        let (captured, mut output, mut spent) = check(1_000);
        shell("sleep 20 & echo done").stream(&mut output, &mut spent).expect("it ran");
        assert_eq!(captured.text(), "       done\n");
        assert!(spent < Duration::from_secs(10));
    }

    #[test]
    fn a_flood_ends_the_program() {
        let (_, mut output, mut spent) = check(10_000);
        let error = shell("yes").stream(&mut output, &mut spent).expect_err("too much output");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let (_, mut output, mut spent) = check(10_000);
        let environment = Environment::from([("PATH".into(), "/usr/bin".into())]);
        let error = Command::new("no-such-program", Path::new("/"), &environment)
            .stream(&mut output, &mut spent)
            .expect_err("not there");
        assert_eq!(error.to_string(), "The program \"no-such-program\" is not on this machine.");
    }
}
