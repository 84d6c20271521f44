//! Which drains there are, kept on disk so that they are served before control answers and while it is away.
//!
//! URLs and headers hold passwords and keys, so the file is sealed (AES-256-GCM) with a key of this role's own in the
//! directory of keys.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use dozen_api::drains::Drain;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

const KEY_BYTES: usize = 32; // AES-256
const CONTEXT: &[u8] = b"drains";

/// The file and its key.
pub(crate) struct Kept {
    path: PathBuf,
    keys_dir: PathBuf,
}

impl Kept {
    /// Nothing is read or written yet.
    pub(crate) fn new(logs_dir: &Path, keys_dir: &Path) -> Self {
        Self { path: logs_dir.join("drains.sealed"), keys_dir: keys_dir.to_owned() }
    }

    /// Says whether anything is kept.
    pub(crate) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// The drains that were kept last; none before the first time.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn load(&self) -> io::Result<Vec<Drain>> {
        let mut sealed = match fs::read(&self.path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let (nonce, rest) = sealed.split_at_mut_checked(NONCE_LEN).ok_or_else(|| self.damaged())?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| self.damaged())?;
        let plain = self.key()?.open_in_place(nonce, Aad::from(CONTEXT), rest).map_err(|_| self.damaged())?;
        Ok(serde_json::from_slice(plain)?)
    }

    /// Keeps these drains, whole or not at all.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub(crate) fn store(&self, drains: &[Drain]) -> io::Result<()> {
        let mut sealed = serde_json::to_vec(drains)?;
        let nonce: [u8; NONCE_LEN] = random()?;
        let failed = |_| io::Error::other("cannot seal the drains");
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.key()?.seal_in_place_append_tag(sealing, Aad::from(CONTEXT), &mut sealed).map_err(failed)?;
        write_whole(&self.path, &[&nonce, &sealed])
    }

    fn damaged(&self) -> io::Error {
        let text = format!("{} is damaged, or sealed with another key", self.path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    fn key(&self) -> io::Result<LessSafeKey> {
        let path = self.keys_dir.join("logs.key");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.keys_dir)?;
                let bytes: [u8; KEY_BYTES] = random()?;
                write_whole(&path, &[&bytes])?;
                bytes.to_vec()
            }
            Err(error) => return Err(error),
        };
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a key", path.display()));
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).map_err(wrong)?))
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random bytes"))?;
    Ok(bytes)
}

/// Writes a file whole or not at all, readable by its owner alone, and on the disk when it returns.
fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    for bytes in parts {
        file.write_all(bytes)?;
    }
    file.sync_all()?;
    fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use dozen_api::drains::Destination;
    use dozen_domain::{
        config::Secret,
        ids::{AppId, DrainId},
    };

    use super::*;

    #[test]
    fn drains_are_kept_and_their_secrets_are_not_readable() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = Kept::new(directory.path(), &directory.path().join("keys"));
        assert_eq!(kept.load().expect("nothing"), []);
        let drain = Drain {
            id: DrainId::random(),
            app: AppId::random(),
            app_name: "shop".to_owned(),
            token: "d.1".to_owned(),
            to: Destination::Log(Secret::new("https://me:hunter2@example.com")),
        };
        kept.store(std::slice::from_ref(&drain)).expect("a write");
        assert_eq!(kept.load().expect("drains"), [drain]);
        let bytes = fs::read(directory.path().join("drains.sealed")).expect("a file");
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        fs::write(directory.path().join("keys/logs.key"), [7; 32]).expect("another key");
        assert!(kept.load().is_err());
    }
}
