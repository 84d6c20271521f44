//! The data directory: made, checked, and locked so that one platform at a time works in it.
//!
//! The lock is the kernel's (`flock`), so it goes with its holder however that ends; the process id written into the
//! file is only there to be told to people. Roles hold one of their own each: a new parent waits for the roles of a
//! killed one to be gone before it starts others.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be made or written.
    #[error("the data directory {path} cannot be used: set DOZEN_DATA_DIR to a directory that you can write")]
    Unusable {
        /// The directory, or what is in its way.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another platform works in it.
    #[error("a platform is already running on the data directory {path} (process {pid}): `dozen stop` ends it")]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who holds the lock.
        pid: String,
    },
    /// A role of a former platform does not end.
    #[error("the {role} role of a former platform on {path} (process {pid}) does not end: end it by hand")]
    RoleHeld {
        /// Which role.
        role: String,
        /// The directory.
        path: PathBuf,
        /// Who holds the lock.
        pid: String,
    },
}

/// A held lock; goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "its being open is what holds the lock")] File);

/// Makes the directory and the parts of it that belong to no role.
///
/// # Errors
/// [`Error::Unusable`]
pub(crate) fn prepare(data_dir: &Path) -> Result<(), Error> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Unusable { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(unusable(data_dir))?;
    fs::set_permissions(data_dir, Permissions::from_mode(0o700)).map_err(unusable(data_dir))?;
    for name in ["run", "run/dynos", "keys", "tls", "apps", "store", "logs", "sources", "tmp"] {
        let path = data_dir.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(unusable(&path))?;
    }
    Ok(())
}

/// With whom a lock may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// With nobody.
    Alone,
    /// With others that hold it so: a role's successor, while the former process finishes.
    Together,
}

/// Takes the platform's lock.
///
/// # Errors
/// [`Error::Held`] when another process has it; [`Error::Unusable`]
pub(crate) fn lock(data_dir: &Path) -> Result<Lock, Error> {
    match try_lock(&data_dir.join("lock"), Held::Alone)? {
        Ok(lock) => Ok(lock),
        Err(pid) => Err(Error::Held { path: data_dir.to_owned(), pid }),
    }
}

/// Takes a role's lock, waiting for its former holder to be gone.
///
/// # Errors
/// [`Error::RoleHeld`] when it is not after the patience; [`Error::Unusable`]
pub(crate) fn lock_role(data_dir: &Path, role: &str, how: Held, patience: Duration) -> Result<Lock, Error> {
    let path = data_dir.join("run").join(format!("{role}.lock"));
    let end = Instant::now() + patience;
    loop {
        match try_lock(&path, how)? {
            Ok(lock) => return Ok(lock),
            Err(pid) if Instant::now() > end => {
                return Err(Error::RoleHeld { role: role.to_owned(), path: data_dir.to_owned(), pid });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// The process that holds the platform's lock, if one does.
pub(crate) fn holder(data_dir: &Path) -> Option<rustix::process::Pid> {
    match try_lock(&data_dir.join("lock"), Held::Alone) {
        Ok(Err(pid)) => rustix::process::Pid::from_raw(pid.parse().ok()?),
        _ => None,
    }
}

/// The lock, or what its holder wrote into it.
fn try_lock(path: &Path, how: Held) -> Result<Result<Lock, String>, Error> {
    let unusable = |source| Error::Unusable { path: path.to_owned(), source };
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = options.map_err(unusable)?;
    let operation = match how {
        Held::Alone => FlockOperation::NonBlockingLockExclusive,
        Held::Together => FlockOperation::NonBlockingLockShared,
    };
    match flock(&file, operation) {
        Ok(()) => {
            let pid = std::process::id().to_string();
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
            written.map_err(unusable)?;
            Ok(Ok(Lock(file)))
        }
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(unusable)?;
            Ok(Err(pid.trim().to_owned()))
        }
        Err(error) => Err(unusable(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_private_and_a_second_lock_names_the_first() {
        let scratch = tempfile::tempdir().expect("a directory");
        let data_dir = scratch.path().join("deep/data");
        prepare(&data_dir).expect("made");
        assert_eq!(fs::metadata(&data_dir).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(holder(&data_dir), None);
        let lock = super::lock(&data_dir).expect("free");
        let error = super::lock(&data_dir).expect_err("held").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(holder(&data_dir).is_some());
        drop(lock);
        super::lock(&data_dir).expect("free again");
    }

    #[test]
    fn a_file_in_its_place_is_a_clear_error() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("file");
        fs::write(&file, "").expect("written");
        let error = prepare(&file).expect_err("refused").to_string();
        assert!(error.contains("DOZEN_DATA_DIR"), "{error}");
    }
}
