//! A program on a terminal of its own, as a person has it: keys are typed, and what is shown is read.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    pty::OpenptFlags,
    termios::{Winsize, tcsetwinsize},
};

use crate::{LONG, wait_until};

/// A program on a terminal. It is killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
    from: usize,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    ///
    /// # Panics
    /// When it cannot.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).expect("a terminal");
        rustix::pty::grantpt(&master).expect("a terminal");
        rustix::pty::unlockpt(&master).expect("a terminal");
        tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).expect("the other end");
        let stream = |slave: &OwnedFd| Stdio::from(slave.try_clone().expect("a descriptor"));
        command.stdin(stream(&slave)).stdout(stream(&slave)).stderr(stream(&slave));
        let becomes_controlling = move || {
            rustix::process::setsid()?;
            // SAFETY: standard input is the terminal here.
            let input = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
            rustix::process::ioctl_tiocsctty(input)?;
            Ok(())
        };
        // SAFETY: two system calls; nothing is allocated and no lock taken.
        unsafe { command.pre_exec(becomes_controlling) };
        let child = command.spawn().expect("the program");
        drop((command, slave));
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut output, to) = (File::from(master.as_fd().try_clone_to_owned().expect("a descriptor")), shown.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // The end of the last program on it is an error of the terminal's.
            while let Ok(count @ 1..) = output.read(&mut piece) {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
            }
        });
        Self { child, keys: File::from(master), shown, from: 0 }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal");
    }

    /// Everything that was shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until this is shown after what was waited for before.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let shown = self.shown.clone();
        let from = self.from;
        let find = || {
            let all = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = all.get(from..).unwrap_or_default();
            rest.windows(text.len()).position(|part| part == text.as_bytes())
        };
        let end = std::time::Instant::now() + LONG;
        while find().is_none() {
            assert!(std::time::Instant::now() < end, "{text:?} is not shown: {:?}", self.shown());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.from = from + find().unwrap_or_default() + text.len();
    }

    /// Kills the program without a word.
    pub fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(&format!("the end of the program; {:?}", self.shown()), LONG, || {
            status = self.child.try_wait().expect("a child of our own");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.kill();
    }
}
