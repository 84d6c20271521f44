//! Unix sockets under the data directory, however long its path is.
//!
//! A socket address holds 107 bytes of path. A data directory may be deeper than that, so sockets are bound and
//! connected through `/proc/self/fd/<directory>/<name>`, which is always short.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

fn short(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no socket", path.display())));
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, path))
}

/// Binds a listening socket at `path` in place of a stale one, readable and writable by its owner alone.
///
/// # Errors
/// When the directory is missing or not writable.
pub fn bind_blocking(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let (_directory, short) = short(path)?;
    match fs::remove_file(&short) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&short)?;
    fs::set_permissions(&short, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// As [`bind_blocking`], for tokio.
///
/// # Errors
/// As [`bind_blocking`].
pub fn bind(path: &Path) -> io::Result<tokio::net::UnixListener> {
    let listener = bind_blocking(path)?;
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// When nobody listens there.
pub fn connect_blocking(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let (_directory, short) = short(path)?;
    std::os::unix::net::UnixStream::connect(short)
}

/// As [`connect_blocking`], for tokio.
///
/// # Errors
/// As [`connect_blocking`].
pub async fn connect(path: &Path) -> io::Result<tokio::net::UnixStream> {
    let (_directory, short) = short(path)?;
    tokio::net::UnixStream::connect(short).await
}
