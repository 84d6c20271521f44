//! Removes what a dyno leaves behind, even what it made hard to remove.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use dozen_api::shim::Spec;
use rustix::process::{Pid, PidfdFlags};

use super::KEEP_SCRATCH;
use crate::cgroup::Cgroup;

/// What is to be removed after a dyno's end.
pub(super) struct Leavings {
    scratch: Option<PathBuf>,
    cgroup: Option<Cgroup>,
}

impl Leavings {
    /// What this dyno will leave.
    pub(super) fn new(spec: &Spec, cgroup: Option<Cgroup>) -> Self {
        let keep = spec.record.engine.contains_key(KEEP_SCRATCH);
        Self { scratch: (!keep).then(|| spec.sandbox.scratch.clone()), cgroup }
    }

    /// The dyno's control group.
    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Removes all in a process of its own, for a large tree takes long; the descriptor polls as readable at its end.
    pub(super) fn remove(&self) -> io::Result<OwnedFd> {
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
        if let Some(scratch) = &self.scratch {
            let _ = remove_tree(scratch);
        }
    }
}

/// Removes the scratch directory of a dyno that was not started.
pub(super) fn scratch(spec: &Spec) {
    Leavings::new(spec, None).remove_now();
}

/// Removes a tree. A dyno of an ordinary user may have taken its own permissions away.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_opened_up_where_it_was_closed() {
        let path = std::env::temp_dir().join(format!("dozen-cleanup-{}", std::process::id()));
        fs::create_dir_all(path.join("closed/inner")).expect("made");
        fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o000)).expect("closed");
        open_up(&path);
        let mode = fs::metadata(path.join("closed")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        remove_tree(&path).expect("removed");
        assert!(!path.exists());
    }
}
