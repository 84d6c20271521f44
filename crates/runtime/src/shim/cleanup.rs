//! Removes what a dyno leaves behind, even what it made hard to remove.

use std::{io, os::fd::OwnedFd, path::PathBuf};

use dozen_api::{removal::remove_all, shim::Spec};
use rustix::process::{Pid, PidfdFlags};

use super::KEEP_SCRATCH;
use crate::{cgroup::Cgroup, sandbox::disk};

/// What is to be removed after a dyno's end.
pub(super) struct Leavings {
    scratch: Option<PathBuf>,
    cgroup: Option<Cgroup>,
    disk: Option<OwnedFd>,
}

impl Leavings {
    /// What this dyno will leave.
    pub(super) fn new(spec: &Spec, cgroup: Option<Cgroup>, disk: Option<OwnedFd>) -> Self {
        let keep = spec.record.engine.contains_key(KEEP_SCRATCH);
        Self { scratch: (!keep).then(|| spec.sandbox.scratch.clone()), cgroup, disk }
    }

    /// The scratch directory is for somebody to find.
    pub(super) fn keeps_scratch(&self) -> bool {
        self.scratch.is_none()
    }

    /// The dyno's control group.
    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Removes all in a process of its own, for a large tree takes long; the descriptor polls as readable at its end.
    pub(super) fn remove(&mut self) -> io::Result<OwnedFd> {
        // SAFETY: this process has one thread, so its copy may do anything.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                self.remove_now();
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(0) }
            }
            child => {
                let pid = Pid::from_raw(child).ok_or(io::ErrorKind::NotFound)?;
                self.disk = None; // the child holds it now; it goes when nobody does
                Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
            }
        }
    }

    /// Removes all.
    pub(super) fn remove_now(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
            let _ = cgroup.remove();
        }
        if let Some(disk) = &self.disk {
            disk::discard(disk);
        }
        if let Some(scratch) = &self.scratch {
            let _ = remove_all(scratch);
        }
    }
}

/// Removes the scratch directory of a dyno that was not started.
pub(super) fn scratch(spec: &Spec) {
    Leavings::new(spec, None, None).remove_now();
}
