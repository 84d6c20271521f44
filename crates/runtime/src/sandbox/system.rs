//! The part of a dyno's root that is the same for all dynos of a machine, made once: `/usr`, the shared files of `/etc`,
//! the devices. It waits, mounted, in a namespace that no process is in and that only a descriptor keeps alive, so
//! nothing of it is seen outside; a dyno's init steps in and takes a copy, which costs one call instead of some hundred.
//!
//! It is the machine as it was when it was made. Before each use is looked whether that still holds.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread,
};

use dozen_api::shim;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{
    etc,
    mount::{self, Error, context},
    rootfs,
};

/// A furnished root, ready for dynos.
pub struct System {
    namespace: OwnedFd,
    root: PathBuf,
    seen: Vec<Identity>,
}

/// What a path was: device and number of what is there, and of what that points to.
type Identity = [Option<(u64, u64)>; 2];

impl System {
    /// Makes one, with files at these further `places` inside. `root` is an empty directory that this may use.
    ///
    /// # Errors
    /// When the kernel refuses a namespace or a mount.
    pub fn make(root: &Path, places: &[&Path]) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let places: Vec<_> = places.iter().map(|&place| (place, false)).collect();
        let seen = machine();
        let furnish = || -> Result<OwnedFd, Error> {
            unshare(UnshareFlags::FS | UnshareFlags::NEWNS).map_err(context("make a mount namespace"))?;
            mount::make_private()?;
            rootfs::furnish(root, None, &places)?;
            let namespace = File::open("/proc/thread-self/ns/mnt").map_err(context("open a mount namespace"))?;
            Ok(namespace.into())
        };
        // A thread may have a mount namespace of its own, and this one leaves it behind.
        let made =
            thread::scope(|scope| thread::Builder::new().spawn_scoped(scope, furnish)?.join().map_err(panicked))?;
        Ok(Self { namespace: made.map_err(io::Error::other)?, root: root.to_owned(), seen })
    }

    /// Whether the machine has changed since in what dynos share of it.
    pub fn is_stale(&self) -> bool {
        self.seen != machine()
    }

    /// Where a process that this one waits for finds it.
    pub fn place(&self) -> shim::System {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd());
        shim::System { namespace: namespace.into(), root: self.root.clone() }
    }
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> io::Error {
    io::Error::other("the thread that furnished the root panicked")
}

/// What there is of the paths that dynos share.
fn machine() -> Vec<Identity> {
    let identity = |found: io::Result<Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    let paths = rootfs::TOP.iter().chain(&["/usr"]).map(PathBuf::from).chain(etc::shared());
    paths.map(|path| [identity(fs::symlink_metadata(&path)), identity(fs::metadata(&path))]).collect()
}

/// Moves into a copy of the namespace that has the furnished root; says where in it that is. When it is gone, because
/// the process that had it is, the calling process gets a copy of its own namespace, and nothing is ready.
pub(super) fn enter(system: &shim::System) -> io::Result<Option<&Path>> {
    let found = File::open(&system.namespace)
        .is_ok_and(|namespace| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).is_ok());
    unshare(UnshareFlags::NEWNS)?;
    Ok(found.then_some(system.root.as_path()))
}

/// Gives the calling thread namespaces of its own.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: no flag that is used here touches descriptors or memory.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_makes_it_stale() {
        let place = tempfile::tempdir().expect("a directory");
        let other = place.path().join("other");
        fs::write(&other, "other").expect("written");
        let file = etc::shared().into_iter().find(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file()));
        let file = file.expect("some file of /etc");
        let change = || {
            unshare(UnshareFlags::FS | UnshareFlags::NEWNS).expect("mounts of its own");
            mount::make_private().expect("private");
            let system = System::make(&place.path().join("root"), &[]).expect("furnished");
            assert!(!system.is_stale());
            mount::attach(&mount::copy_of(&other).expect("a copy"), &file).expect("mounted");
            assert!(system.is_stale());
        };
        thread::scope(|scope| scope.spawn(change).join()).expect("it is noticed");
    }
}
