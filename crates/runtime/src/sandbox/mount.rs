//! The mount calls of a container, each with its path in the error. Mounts are made detached and then put into place
//! below a directory descriptor, resolved as if that directory were the root, so no symbolic link leads outside.

use std::{
    ffi::CStr,
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags},
};

/// What is writable inside: no devices, nothing that gives powers.
pub(super) const WRITABLE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// What failed while the container's file system was made.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub(super) struct Error {
    operation: String,
    source: io::Error,
}

/// Puts the operation into an error.
pub(super) fn context<E: Into<io::Error>>(operation: impl fmt::Display) -> impl FnOnce(E) -> Error {
    move |source| Error { operation: operation.to_string(), source: source.into() }
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, set: MountAttrFlags, propagation: u64) -> io::Result<()> {
    let attributes = Attributes { set: set.bits().into(), clear: 0, propagation, userns: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: descriptor, path and structure are valid for the call and the size is the structure's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Nothing mounted from here on is seen outside, nor the other way round.
pub(super) fn make_private() -> Result<(), Error> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(context("open /"))?;
    set_attributes(root.as_fd(), true, MountAttrFlags::empty(), libc::MS_PRIVATE)
        .map_err(context("make all mounts private"))
}

/// Makes a new mount of a file system with these options, detached.
pub(super) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    flags: &[&str],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Error> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        for flag in flags {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *flag)?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(context(format_args!("mount {kind}")))
}

/// Takes a copy of what is mounted at an outside path and below it, detached.
pub(super) fn copy_of(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, path, flags).map_err(context(format_args!("bind {}", path.display())))
}

/// Puts restrictions on a mount and those below it.
pub(super) fn restrict(mount: &OwnedFd, recursive: bool, attributes: MountAttrFlags) -> Result<(), Error> {
    set_attributes(mount.as_fd(), recursive, attributes, 0).map_err(context("restrict a mount"))
}

/// Puts a detached mount at an outside path.
pub(super) fn attach(mount: &OwnedFd, path: &Path) -> Result<(), Error> {
    rustix::mount::move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(context(format_args!("mount at {}", path.display())))
}

/// The container's root directory while it is being furnished from outside.
pub(super) struct Root {
    descriptor: OwnedFd,
    owner: Option<(Uid, Gid)>,
}

impl Root {
    /// Opens the directory. With an owner, what is made below `/app` and `/tmp` belongs to it.
    pub(super) fn open(path: &Path, owner: Option<u32>) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor =
            rustix::fs::open(path, flags, Mode::empty()).map_err(context(format_args!("open {}", path.display())))?;
        let owner = owner.map(|id| (Uid::from_raw(id), Gid::from_raw(id)));
        Ok(Self { descriptor, owner })
    }

    /// Furnishes a mount that is nowhere yet.
    pub(super) fn detached(mount: OwnedFd) -> Self {
        Self { descriptor: mount, owner: None }
    }

    /// The root directory's own mount.
    pub(super) fn mount(&self) -> &OwnedFd {
        &self.descriptor
    }

    fn at(&self, inside: &Path) -> rustix::io::Result<OwnedFd> {
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.descriptor, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Makes a directory or an empty file and the directories above it, where they are not there.
    pub(super) fn make(&self, inside: &Path, directory: bool) -> Result<(), Error> {
        let failed = |error| context(format_args!("make {} in the container", inside.display()))(error);
        let (Some(above), Some(name)) = (inside.parent(), inside.file_name()) else { return Ok(()) };
        let opened = match above.parent() {
            None => None, // the root itself
            Some(_) => Some(match self.at(above) {
                Err(rustix::io::Errno::NOENT) => {
                    self.make(above, true)?;
                    self.at(above).map_err(failed)?
                }
                opened => opened.map_err(failed)?,
            }),
        };
        let parent = opened.as_ref().unwrap_or(&self.descriptor);
        let made = if directory {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        };
        match made {
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            made => made.map_err(failed)?,
        }
        match self.owner {
            Some((uid, gid)) if inside.starts_with("/app") || inside.starts_with("/tmp") => {
                rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    /// Writes a small file in an existing directory.
    pub(super) fn write(&self, inside: &str, contents: &[u8]) -> Result<(), Error> {
        let failed = |error| context(format_args!("write {inside} in the container"))(error);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let path = inside.trim_start_matches('/');
        let file = rustix::fs::openat(&self.descriptor, path, flags, Mode::from_raw_mode(0o644)).map_err(failed)?;
        let mut rest = contents;
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest).map_err(failed)?..];
        }
        Ok(())
    }

    /// Makes a symbolic link in an existing directory.
    pub(super) fn link(&self, inside: &str, target: &Path) -> Result<(), Error> {
        rustix::fs::symlinkat(target, &self.descriptor, inside.trim_start_matches('/'))
            .map_err(context(format_args!("link {inside} in the container")))
    }

    /// Takes a copy of what is mounted inside at a path and below it, detached.
    pub(super) fn copy_of(&self, inside: &Path) -> Result<OwnedFd, Error> {
        let failed = |error| context(format_args!("bind {} in the container", inside.display()))(error);
        let place = self.at(inside).map_err(failed)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(&place, c"", flags).map_err(failed)
    }

    /// Puts a detached mount into place.
    pub(super) fn mount_at(&self, mount: &OwnedFd, inside: &Path) -> Result<(), Error> {
        const NOWHERE: &CStr = c"";
        let failed = |error| context(format_args!("mount at {} in the container", inside.display()))(error);
        let place = self.at(inside).map_err(failed)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(mount, NOWHERE, &place, NOWHERE, flags).map_err(failed)
    }

    /// Makes the directory the root of the calling process's mount namespace; nothing of the old one stays in reach.
    pub(super) fn enter(self) -> Result<(), Error> {
        rustix::process::fchdir(&self.descriptor).map_err(context("change to the new root"))?;
        rustix::process::pivot_root(".", ".").map_err(context("change the root"))?;
        rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).map_err(context("leave the old root"))?;
        rustix::process::chdir("/").map_err(context("change to /"))
    }
}
