//! Which user of the machine an app's files and processes belong to: one for each app when the platform runs as root.
//!
//! The number is kept in `apps/<app>/uid`. As an ordinary user everything belongs to that user and there are none.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use dozen_domain::ids::AppId;

use super::{Error, failed, write_whole};

/// First user id given to an app: above those of people, services and of the usual `subuid` ranges' start.
const FIRST: u32 = 200_000;

/// Gives each app its user id.
#[derive(Debug)]
pub struct Owners {
    apps: PathBuf,
    root: bool,
    next: Mutex<u32>,
}

impl Owners {
    /// Reads the numbers in use in the data directory. `root`: whether apps get users of their own at all.
    ///
    /// # Errors
    /// When the data directory cannot be read or written.
    pub fn open(data: &Path, root: bool) -> Result<Self, Error> {
        let apps = data.join("apps");
        fs::create_dir_all(&apps).map_err(failed("make directory", &apps))?;
        let mut next = FIRST;
        for entry in fs::read_dir(&apps).map_err(failed("read", &apps))?.flatten() {
            if let Some(uid) = read(&entry.path().join("uid")) {
                next = next.max(uid + 1);
            }
        }
        Ok(Self { apps, root, next: Mutex::new(next) })
    }

    /// Whether apps have users of their own.
    pub fn root(&self) -> bool {
        self.root
    }

    /// The app's user id, given now if it has none; `None` when the platform runs as an ordinary user.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn uid(&self, app: AppId) -> Result<Option<u32>, Error> {
        if !self.root {
            return Ok(None);
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.apps.join(app.to_string()).join("uid");
        if let Some(uid) = read(&path) {
            return Ok(Some(uid));
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make directory", parent))?;
        }
        write_whole(&path, next.to_string().as_bytes())?;
        *next += 1;
        Ok(Some(*next - 1))
    }

    /// Makes a directory that belongs to the app's user.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&self, app: AppId, path: &Path) -> Result<(), Error> {
        fs::create_dir_all(path).map_err(failed("make directory", path))?;
        self.give(app, path)
    }

    /// Makes the app's user the owner of one file or directory.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn give(&self, app: AppId, path: &Path) -> Result<(), Error> {
        match self.uid(app)? {
            Some(uid) => std::os::unix::fs::lchown(path, Some(uid), Some(uid)).map_err(failed("give away", path)),
            None => Ok(()),
        }
    }

    /// The same for a whole tree.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn give_tree(&self, app: AppId, path: &Path) -> Result<(), Error> {
        match self.uid(app)? {
            Some(uid) => give_tree(path, uid).map_err(failed("give away", path)),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn give_tree(path: &Path, uid: u32) -> io::Result<()> {
    // Not by recursion: how deep directories are nested is the app's choice.
    let mut ahead = vec![path.to_owned()];
    while let Some(path) = ahead.pop() {
        if path.symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(&path)? {
                ahead.push(entry?.path());
            }
        }
        std::os::unix::fs::lchown(path, Some(uid), Some(uid))?;
    }
    Ok(())
}
