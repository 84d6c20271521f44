//! What a dyno sees as its file system: the machine's `/usr` read-only, a small `/etc`, its own writable `/app` above
//! the image's layers, a private `/tmp`, and kernel file systems cut down to what programs need.
//!
//! The root itself is a tiny tmpfs, read-only once furnished. All dynos may share it ([`super::system`]): what differs
//! between them is in file systems of their own. What the dyno writes lands in `<scratch>/upper` (`/app`) and
//! `<scratch>/tmp`; with a disk of its own ([`super::disk`]) in the same directories of that.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use dozen_api::shim::{Sandbox, Spec};
use rustix::{
    fs::{Mode, OFlags},
    mount::MountAttrFlags,
};

use super::{
    etc,
    mount::{self, Error, Root, WRITABLE, context},
};

/// Where the writable layer of `/app` is, relative to the scratch directory.
pub const UPPER: &str = "upper";
const WORK: &str = "work";
const TMP: &str = "tmp";
const ROOT: &str = "root";
/// Where a disk is mounted, relative to the scratch directory.
const DISK: &str = "disk";

/// What may be beside `/usr`, as links into it or with contents of their own.
pub(super) const TOP: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Not for a dyno's eyes: kernel memory, keys, timers, and switches that act on the whole machine.
const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/config.gz",
    "/proc/firmware",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/schedstat",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
];

/// May be read but not written.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

const CONFINED: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_RDONLY.union(MountAttrFlags::MOUNT_ATTR_NOSUID).union(MountAttrFlags::MOUNT_ATTR_NODEV);
const DATA: MountAttrFlags = WRITABLE.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes the scratch directory ready; called outside, before the container exists.
///
/// # Errors
/// When the disk is full or the directory not writable.
pub(super) fn prepare(sandbox: &Sandbox) -> io::Result<()> {
    fs::create_dir_all(&sandbox.scratch)?;
    match sandbox.disk {
        Some(_) => fs::create_dir(sandbox.scratch.join(DISK)),
        None => lay_out(&sandbox.scratch).and_then(|()| give(sandbox, &sandbox.scratch)),
    }
}

/// Makes the directories for what a dyno writes.
pub(super) fn lay_out(place: &Path) -> io::Result<()> {
    for name in [UPPER, WORK, TMP] {
        fs::create_dir_all(place.join(name))?;
    }
    fs::set_permissions(place.join(TMP), PermissionsExt::from_mode(0o1777))
}

/// Gives them to the dyno's user.
fn give(sandbox: &Sandbox, place: &Path) -> io::Result<()> {
    for name in [UPPER, TMP] {
        chown(place.join(name), sandbox.host_uid, sandbox.host_uid)?;
    }
    Ok(())
}

/// Makes the file system as far as it needs neither the dyno's control group nor its disk. The calling process is in a
/// mount namespace of its own, which has the furnished root already if `ready` says where.
pub(super) fn begin(spec: &Spec, ready: Option<&Path>) -> Result<Root, Error> {
    let sandbox = &spec.sandbox;
    let root = match ready {
        Some(place) => Root::open(place, sandbox.host_uid)?,
        None => {
            mount::make_private()?;
            let place = sandbox.scratch.join(ROOT);
            fs::create_dir(&place).map_err(context("make the place of the root"))?;
            // Those in writable trees are made when they are mounted.
            let outside = |inside: &Path| ["/app", "/tmp", "/dev", "/proc"].iter().any(|tree| inside.starts_with(tree));
            let binds = sandbox.binds.iter().filter(|(_, inside, _)| !outside(inside));
            let places: Vec<_> = binds.map(|(outside, inside, _)| (inside.as_path(), outside.is_dir())).collect();
            furnish(&place, sandbox.host_uid, &places)?
        }
    };
    let run = mount::filesystem("tmpfs", &[("size", "64k"), ("nr_inodes", "32"), ("mode", "0755")], &[], DATA)?;
    let run = Root::detached(run);
    etc::write_own(&run, spec)?;
    mount::restrict(run.mount(), false, CONFINED | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    root.mount_at(run.mount(), Path::new("/run"))?;
    terminals_and_memory(&root)?;
    let proc = mount::filesystem("proc", &[], &[], DATA)?;
    root.mount_at(&proc, Path::new("/proc"))?;
    mask(&root)?;
    Ok(root)
}

/// Makes the rest, where the dyno writes, and moves in. `disk` is asked for the dyno's disk, if it is to have one.
pub(super) fn finish(root: Root, sandbox: &Sandbox, disk: impl FnOnce() -> io::Result<OwnedFd>) -> Result<(), Error> {
    let written = match sandbox.disk {
        Some(_) => own_disk(sandbox, disk)?,
        None => sandbox.scratch.clone(),
    };
    let tmp = mount::copy_of(&written.join(TMP))?;
    mount::restrict(&tmp, false, WRITABLE)?;
    root.mount_at(&tmp, Path::new("/tmp"))?;
    app(&root, sandbox, &written)?;
    for (outside, inside, writable) in &sandbox.binds {
        let copy = mount::copy_of(outside)?;
        mount::restrict(&copy, true, if *writable { WRITABLE } else { CONFINED })?;
        root.make(inside, outside.is_dir())?;
        root.mount_at(&copy, inside)?;
    }
    root.enter()
}

/// Mounts at `place` what is the same for all dynos of the machine, read-only, with directories or files at these further
/// `places` inside. The calling thread is in a mount namespace of its own.
pub(super) fn furnish(place: &Path, owner: Option<u32>, places: &[(&Path, bool)]) -> Result<Root, Error> {
    let options = [("size", "4m"), ("nr_inodes", "4k"), ("mode", "0755")];
    let tmpfs = mount::filesystem("tmpfs", &options, &[], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    mount::attach(&tmpfs, place)?;
    let root = Root::open(place, owner)?;
    for directory in ["/usr", "/app", "/tmp", "/proc", "/dev", "/run", "/var", "/home"] {
        root.make(Path::new(directory), true)?;
    }
    root.link("/var/tmp", Path::new("/tmp"))?;
    root.link("/var/run", Path::new("/run"))?;
    let mut shared = system(&root)?;
    shared.extend(etc::furnish(&root)?);
    // They must be there before the root is read-only.
    for (place, is_directory) in places {
        root.make(place, *is_directory)?;
    }
    for path in shared {
        root.mount_at(&mount::copy_of(&path)?, &path)?;
    }
    mount::restrict(root.mount(), true, CONFINED)?;
    devices(&root)?;
    Ok(root)
}

/// Mounts the disk where the dyno's writes land; says where that is.
fn own_disk(sandbox: &Sandbox, disk: impl FnOnce() -> io::Result<OwnedFd>) -> Result<PathBuf, Error> {
    let failed = |error: io::Error| context("make the dyno's disk")(error);
    let place = sandbox.scratch.join(DISK);
    mount::attach(&disk().map_err(failed)?, &place)?;
    give(sandbox, &place).map_err(failed)?;
    Ok(place)
}

/// `/usr` and, as on this machine, the links or directories beside it. Returns what is to be bound.
fn system(root: &Root) -> Result<Vec<PathBuf>, Error> {
    let mut shared = vec![PathBuf::from("/usr")];
    for name in TOP {
        match fs::read_link(name) {
            Ok(target) => root.link(name, &target)?,
            Err(_) if Path::new(name).is_dir() => {
                root.make(Path::new(name), true)?;
                shared.push(name.into());
            }
            Err(_) => {}
        }
    }
    Ok(shared)
}

/// `/dev` with the few devices that programs need.
fn devices(root: &Root) -> Result<(), Error> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = mount::filesystem("tmpfs", &[("size", "64k"), ("mode", "0755")], &[], attributes)?;
    root.mount_at(&dev, Path::new("/dev"))?;
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        root.make(&path, false)?;
        root.mount_at(&mount::copy_of(&path)?, &path)?;
    }
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ] {
        root.link(name, Path::new(target))?;
    }
    root.make(Path::new("/dev/pts"), true)?;
    root.make(Path::new("/dev/shm"), true)?;
    mount::restrict(&dev, false, attributes | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Terminals and memory that only the dyno's own processes share.
fn terminals_and_memory(root: &Root) -> Result<(), Error> {
    let pts = mount::filesystem(
        "devpts",
        &[("mode", "0620"), ("ptmxmode", "0666")],
        &["newinstance"],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?;
    root.mount_at(&pts, Path::new("/dev/pts"))?;
    // 64 MiB is what programs that share memory between processes count on (Docker's default).
    let shm = mount::filesystem("tmpfs", &[("size", "64m"), ("nr_inodes", "16k"), ("mode", "1777")], &[], DATA)?;
    root.mount_at(&shm, Path::new("/dev/shm"))
}

/// `/app`: the layers' `app` directories below, above them the directory for what is `written`.
fn app(root: &Root, sandbox: &Sandbox, written: &Path) -> Result<(), Error> {
    let upper = written.join(UPPER);
    // Through descriptors, so that neither the number of layers nor what is in their paths meets a limit.
    let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut lowers: Vec<OwnedFd> = Vec::new();
    for layer in sandbox.layers.iter().rev() {
        let path = layer.join("app");
        match open(&path) {
            Ok(directory) => lowers.push(directory),
            Err(rustix::io::Errno::NOENT) if layer.is_dir() => {}
            Err(error) => return Err(context(format_args!("open layer {}", path.display()))(error)),
        }
    }
    let mounted = if lowers.is_empty() {
        let copy = mount::copy_of(&upper)?;
        mount::restrict(&copy, false, WRITABLE)?;
        copy
    } else {
        let upper = open(&upper).map_err(context("open the scratch directory"))?;
        let work = open(&written.join(WORK)).map_err(context("open the scratch directory"))?;
        let path = |directory: &OwnedFd| format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        let lower = lowers.iter().map(path).collect::<Vec<_>>().join(":");
        let (upper, work) = (path(&upper), path(&work));
        let options = [("lowerdir", lower.as_str()), ("upperdir", &upper), ("workdir", &work)];
        // An ordinary user's overlay keeps its marks in user.* attributes.
        let user: &[&str] = if sandbox.host_uid.is_none() { &["userxattr"] } else { &[] };
        // The writable layer goes with the dyno, so nothing needs to reach the disk: without `volatile` the kernel
        // writes the whole file system out when the overlay is unmounted. Kernels before 5.10 do not know it.
        mount::filesystem("overlay", &options, &[user, &["volatile"]].concat(), WRITABLE)
            .or_else(|_| mount::filesystem("overlay", &options, user, WRITABLE))?
    };
    root.mount_at(&mounted, Path::new("/app"))
}

fn mask(root: &Root) -> Result<(), Error> {
    let null = Path::new("/dev/null");
    for path in HIDDEN {
        let path = Path::new(path);
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {
                let empty = mount::filesystem("tmpfs", &[("size", "4k"), ("mode", "0555")], &[], CONFINED)?;
                root.mount_at(&empty, path)?;
            }
            Ok(_) => root.mount_at(&mount::copy_of(null)?, path)?,
            Err(_) => {}
        }
    }
    for path in READ_ONLY {
        let path = Path::new(path);
        if fs::symlink_metadata(path).is_ok() {
            let copy = root.copy_of(path)?;
            mount::restrict(&copy, true, CONFINED | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
            root.mount_at(&copy, path)?;
        }
    }
    Ok(())
}
