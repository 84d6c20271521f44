//! A dyno's own disk: a file system of bounded size and number of files, for everything that the dyno writes.
//!
//! It is an ext4 in a sparse file without a name, behind a loop device that the kernel gives back when the last mount
//! of it goes. So the bound is the kernel's (a full disk is `ENOSPC`, whatever the dyno does with open or unlinked
//! files), only what is written takes space outside, and nothing of it survives the dyno, however that ends.
//! Making a file system takes tens of milliseconds, so it is made once ([`template`]); a dyno's is a copy of the few
//! blocks of that which are not empty, written through the device, from whose cache the mount then reads them.
//!
//! Other ways were measured or are not to be had everywhere: project quotas need a file system that was made for them,
//! a tmpfs counts as memory, and looking from time to time misses files that have no name any more.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dozen_api::shim::Sandbox;
use rustix::fs::{Mode, OFlags, SeekFrom};

use super::{
    channel::{self, End, Message},
    mount::{self, WRITABLE},
    rootfs,
};

// linux/loop.h
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// `struct loop_config`: descriptor, block size, `struct loop_info64`, reserved.
const CONFIG: usize = 4 + 4 + 232 + 64;
/// Offset of `lo_flags` in it.
const CONFIG_FLAGS: usize = 8 + 52;
const LOOP_CONTROL: &str = "/dev/loop-control";

/// Size of a block; with the same for the device the kernel keeps its cache when the file system is mounted.
const BLOCK: u32 = 4096;
/// Where distributions have it; a service's `PATH` may lack the last two.
const MKFS: [&str; 3] = ["mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"];
/// Devices that others took between asking and taking before this gives up.
const ATTEMPTS: u32 = 1_000;

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of it.
    #[error("{operation}: {source}")]
    Io {
        /// Which.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The file system's tool is missing or refused.
    #[error("mkfs.ext4: {0} (Debian has it in e2fsprogs)")]
    Mkfs(String),
    /// It cannot be mounted.
    #[error("{0}")]
    Mount(String),
}

fn failed<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Io { operation, source: source.into() }
}

/// Says whether this machine looks as if dynos could have disks: a quick look, [`template`] tries it.
pub(super) fn is_likely() -> bool {
    let found = |name: &OsStr| {
        let path = Path::new(name);
        let search = std::env::var_os("PATH").unwrap_or_default();
        path.is_file() || std::env::split_paths(&search).any(|directory| directory.join(path).is_file())
    };
    rustix::fs::access(LOOP_CONTROL, rustix::fs::Access::WRITE_OK).is_ok()
        && MKFS.iter().any(|name| found(name.as_ref()))
}

/// Makes the file that disks of this size are copied from, unless it is there, and tries it. Returns its path.
///
/// # Errors
/// When this machine has no loop devices, no ext4 or no `mkfs.ext4`, or the disk is full.
pub fn template(directory: &Path, bytes: u64, files: u64) -> Result<PathBuf, Error> {
    // The number says what is in it: another one when that changes.
    let path = directory.join(format!("disk-2-{bytes}-{files}.ext4"));
    if !path.exists() {
        let making = || failed("make the template of disks");
        let draft = path.with_extension("partial");
        let file = File::create(&draft).map_err(making())?;
        file.set_len(bytes).map_err(making())?;
        let contents = path.with_extension("contents");
        rootfs::lay_out(&contents).map_err(making())?;
        make(&draft, files, &contents)?;
        fs::remove_dir_all(&contents).map_err(making())?;
        file.sync_all().map_err(making())?;
        fs::rename(&draft, &path).map_err(making())?;
    }
    mount(&path, directory)?;
    Ok(path)
}

fn make(image: &Path, files: u64, contents: &Path) -> Result<(), Error> {
    let mut reason = io::Error::from(io::ErrorKind::NotFound).to_string();
    for program in MKFS {
        // No journal and no checksums: nothing of it outlives a crash. Nothing reserved: nobody in a dyno is root.
        let made = Command::new(program)
            .args(["-q", "-F", "-b", "4096", "-m", "0", "-N", &files.to_string()])
            .args(["-O", "^has_journal,^resize_inode,^metadata_csum,^64bit,uninit_bg"])
            .args(["-E", "lazy_itable_init=1,nodiscard"])
            .arg("-d")
            .arg(contents)
            .arg(image)
            .stdin(Stdio::null())
            .output();
        match made {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => reason = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => reason = error.to_string(),
        }
        break;
    }
    Err(Error::Mkfs(reason))
}

/// The one that makes a disk for another process: [`order`].
pub(crate) struct Maker(End);

/// Where a process gets a disk from that another makes.
pub(crate) struct Coming(End);

/// The two sides of a disk that one process makes while another goes on.
pub(crate) fn order() -> io::Result<(Maker, Coming)> {
    let (maker, coming) = channel::pair()?;
    Ok((Maker(maker), Coming(coming)))
}

impl Maker {
    /// Makes the disk and hands it over, or the reason why there is none.
    pub(crate) fn make(self, sandbox: &Sandbox) {
        let made = match &sandbox.disk {
            Some(template) => mount(template, &sandbox.scratch).map_err(|error| error.to_string()),
            None => Err("there is no template".to_owned()),
        };
        // Whoever is gone needs none.
        let _ = match made {
            Ok(disk) => self.0.tell(&Message::Disk(disk)),
            Err(reason) => self.0.tell(&Message::Failed(reason)),
        };
    }
}

impl Coming {
    /// Waits for the disk, a mount that is nowhere yet.
    ///
    /// # Errors
    /// When it could not be made, or its maker has ended without a word.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        match self.0.receive()? {
            Some(Message::Disk(disk)) => Ok(disk),
            Some(Message::Failed(why)) => Err(io::Error::other(why)),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its maker has ended")),
        }
    }
}

/// Makes a disk from a template and mounts it, detached; what is written to it takes space in `directory`'s file
/// system. It goes with the last descriptor and mount of it.
///
/// # Errors
/// When the kernel refuses the device or the mount.
fn mount(template: &Path, directory: &Path) -> Result<OwnedFd, Error> {
    let template = File::open(template).map_err(failed("open the template of disks"))?;
    let bytes = template.metadata().map_err(failed("open the template of disks"))?.len();
    let nameless = libc::O_TMPFILE;
    let backing = File::options().read(true).write(true).mode(0o600).custom_flags(nameless).open(directory);
    let backing = backing.map_err(failed("make the file of a disk"))?;
    backing.set_len(bytes).map_err(failed("make the file of a disk"))?;
    let (device, path) = device(&backing)?;
    copy(&template, &device).map_err(failed("fill a disk"))?;
    // Without a journal there is nothing for barriers to order; freed blocks are given back to the outside.
    let options = [("source", path.as_str()), ("errors", "remount-ro")];
    mount::filesystem("ext4", &options, &["noinit_itable", "nobarrier", "discard"], WRITABLE)
        .map_err(|error| Error::Mount(error.to_string()))
}

/// Puts a loop device before a file: the device, open, and its path.
fn device(backing: &File) -> Result<(File, String), Error> {
    let control = File::options().read(true).write(true).open(LOOP_CONTROL);
    let control = control.map_err(failed("open /dev/loop-control"))?;
    let mut config = [0_u8; CONFIG];
    config[..4].copy_from_slice(&backing.as_raw_fd().to_ne_bytes());
    config[4..8].copy_from_slice(&BLOCK.to_ne_bytes());
    config[CONFIG_FLAGS..CONFIG_FLAGS + 4].copy_from_slice(&LO_FLAGS_AUTOCLEAR.to_ne_bytes());
    for _ in 0..ATTEMPTS {
        // SAFETY: the descriptor is open and the request takes nothing.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(failed("find a free loop device")(io::Error::last_os_error()));
        }
        let path = format!("/dev/loop{number}");
        let device = File::options().read(true).write(true).open(&path).map_err(failed("open a loop device"))?;
        // SAFETY: the descriptor is open and the structure has the size that the request reads.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) } == 0 {
            return Ok((device, path));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::ResourceBusy {
            return Err(failed("set a loop device up")(error));
        }
    }
    Err(failed("set a loop device up")(io::Error::from(io::ErrorKind::ResourceBusy)))
}

/// Copies what is not empty of a sparse file.
fn copy(from: &File, to: &File) -> io::Result<()> {
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            start => start?,
        };
        at = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        let mut data = vec![0; usize::try_from(at - start).map_err(io::Error::other)?];
        from.read_exact_at(&mut data, start)?;
        to.write_all_at(&data, start)?;
    }
}

/// Throws away what a mounted disk has not written out, so that its end costs nothing however much that is. `directory`
/// is one on it.
pub(crate) fn discard(directory: &OwnedFd) {
    const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(opened) = rustix::fs::openat(directory, ".", flags, Mode::empty()) else { return };
    let without_writing = 2_u32; // EXT4_GOING_FLAGS_NOLOGFLUSH
    // SAFETY: the descriptor is open and the flags are a valid number to read. A kernel that refuses writes it all out.
    unsafe { libc::ioctl(opened.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const without_writing) };
}

/// Opens the top of a mounted disk for [`discard`].
pub(super) fn top(mounted: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(mounted, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
