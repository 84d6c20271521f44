//! Which protections this start of the platform can give its dynos, asked once so that it can be said at the start.

use std::{fmt, fs};

use super::disk;
use crate::cgroup::{Controller, hierarchy};

/// A protection that dynos do not have under this start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// All dynos run as the platform's own user outside.
    Users,
    /// No network of their own.
    Network,
    /// No bound on memory.
    Memory,
    /// The bound on processes counts by user, not by dyno.
    Processes,
    /// No share of processor time.
    Cpu,
    /// No bound on what is written to disk.
    Disk,
    /// The kernel does not let this user make user namespaces: no dyno can be started.
    UserNamespaces,
    /// The kernel has no overlay file system: no dyno can be started.
    Overlay,
}

impl Missing {
    /// Says whether no dyno can be started for want of it.
    pub fn prevents_dynos(self) -> bool {
        matches!(self, Self::UserNamespaces | Self::Overlay)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "dynos share one user outside their containers",
            Self::Network => "dynos share the machine's network: apps can reach each other's ports and this machine's",
            Self::Memory => "a dyno's memory is not bounded",
            Self::Processes => "a dyno's processes are counted by user, not by dyno",
            Self::Cpu => "processor time is not shared out between dynos",
            Self::Disk => "what a dyno writes to its disk is not bounded",
            Self::UserNamespaces => "this user may not make user namespaces, so no dyno can be started",
            Self::Overlay => "the kernel has no overlay file system, so no dyno can be started",
        })
    }
}

/// The protections that this start cannot give, none on a full machine as root.
pub fn protections() -> Vec<Missing> {
    let root = rustix::process::geteuid().is_root();
    let mut missing = Vec::new();
    if !user_namespaces() {
        missing.push(Missing::UserNamespaces);
    }
    // A kernel without it loads it as a module when root mounts the first.
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !root && !known.lines().any(|line| line.ends_with("\toverlay")) {
        missing.push(Missing::Overlay);
    }
    if !root {
        missing.extend([Missing::Users, Missing::Network, Missing::Memory, Missing::Processes, Missing::Cpu]);
        missing.push(Missing::Disk);
        return missing;
    }
    if !disk::is_likely() {
        missing.push(Missing::Disk);
    }
    let places = hierarchy::places();
    for (controller, what) in
        [(Controller::Memory, Missing::Memory), (Controller::Pids, Missing::Processes), (Controller::Cpu, Missing::Cpu)]
    {
        let writable = |place: &hierarchy::Place| {
            place.controller == controller && rustix::fs::access(&place.root, rustix::fs::Access::WRITE_OK).is_ok()
        };
        if !places.iter().any(writable) {
            missing.push(what);
        }
    }
    missing
}

/// Tries it in a child process, which is the only way to know: several switches of the kernel have a say.
fn user_namespaces() -> bool {
    // SAFETY: the child makes two system calls and ends, which is allowed after a fork in a process with threads.
    match unsafe { libc::fork() } {
        -1 => false,
        0 => {
            // SAFETY: as above.
            unsafe {
                let made = libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
                libc::_exit(i32::from(made != 0));
            }
        }
        child => {
            let mut status = 0;
            // SAFETY: the status is a valid place and the child is ours.
            let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
            reaped == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_on_this_machine_gives_what_keeps_apps_apart() {
        assert!(rustix::process::geteuid().is_root(), "run the tests as root");
        let missing = protections();
        assert!(!missing.iter().any(|missing| missing.prevents_dynos()), "{missing:?}");
        assert!(!missing.contains(&Missing::Users) && !missing.contains(&Missing::Network), "{missing:?}");
    }
}
