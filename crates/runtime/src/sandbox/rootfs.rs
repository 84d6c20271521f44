//! What a dyno sees as its file system: the machine's `/usr` read-only, a small `/etc`, its own writable `/app` above
//! the image's layers, a private `/tmp`, and kernel file systems cut down to what programs need.
//!
//! The root itself is a tiny tmpfs, read-only once furnished. What the dyno writes lands in `<scratch>/upper` (`/app`)
//! and `<scratch>/tmp`; with a disk of its own ([`super::disk`]) in the same directories of that.

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
    fs::create_dir_all(sandbox.scratch.join(ROOT))?;
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

/// Makes the file system and moves into it. The calling process is in a mount namespace of its own. `disk` is asked for
/// the dyno's disk, if it is to have one, as late as can be: it is made meanwhile.
pub(super) fn build(spec: &Spec, disk: impl FnOnce() -> io::Result<OwnedFd>) -> Result<(), Error> {
    let sandbox = &spec.sandbox;
    mount::make_private()?;
    let place = sandbox.scratch.join(ROOT);
    let options = [("size", "4m"), ("nr_inodes", "4k"), ("mode", "0755")];
    let tmpfs = mount::filesystem("tmpfs", &options, &[], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    mount::attach(&tmpfs, &place)?;
    let root = Root::open(&place, sandbox.host_uid)?;

    for directory in ["/usr", "/app", "/tmp", "/proc", "/dev", "/run", "/var", "/sys/fs/cgroup/memory", "/home"] {
        root.make(Path::new(directory), true)?;
    }
    root.link("/var/tmp", Path::new("/tmp"))?;
    root.link("/var/run", Path::new("/run"))?;
    root.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", format!("{}\n", sandbox.memory_bytes).as_bytes())?;
    let mut shared = system(&root)?;
    shared.extend(etc::furnish(&root, spec)?);
    // Places of binds in the root must be there before it is read-only; those in writable trees are made later.
    for (outside, inside, _) in &sandbox.binds {
        if !["/app", "/tmp", "/dev", "/proc"].iter().any(|tree| inside.starts_with(tree)) {
            root.make(inside, outside.is_dir())?;
        }
    }
    for path in shared {
        root.mount_at(&mount::copy_of(&path)?, &path)?;
    }
    mount::restrict(root.mount(), true, CONFINED)?;

    devices(&root)?;
    let proc = mount::filesystem("proc", &[], &[], DATA)?;
    root.mount_at(&proc, Path::new("/proc"))?;
    mask(&root)?;
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
    for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
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
    mount::restrict(&dev, false, attributes | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
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
