//! The role's secret keys, files of mode 0600 in `$D/keys`, and sealing with them (AES-256-GCM).
//!
//! `config.key` seals config vars at rest, `token.key` seals tickets (see [`super::ticket`]). Sealed bytes are a 12-byte
//! random nonce and the ciphertext with its tag; `context` binds them to where they belong, so that one row's value
//! cannot be moved into another.

use std::{fs, io, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use data_encoding::HEXLOWER;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use crate::store;

const KEY_BYTES: usize = 32; // AES-256

/// Sealed bytes do not open: they were changed, moved, or made with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed data cannot be opened with this key (keys/ and the database must come from the same backup)")]
pub struct Damaged;

/// One symmetric key.
pub struct Key {
    sealing: LessSafeKey,
    tagging: hmac::Key,
}

impl Key {
    /// A text that nobody without this key can make for `context`; the same each time, unlike sealed bytes.
    pub fn tag(&self, context: &str) -> String {
        HEXLOWER.encode(hmac::sign(&self.tagging, context.as_bytes()).as_ref())
    }

    /// Says whether a text is [`Key::tag`] of `context`, in a time that tells nothing.
    pub fn is_tag(&self, text: &str, context: &str) -> bool {
        let tag = HEXLOWER.decode(text.as_bytes()).unwrap_or_default();
        hmac::verify(&self.tagging, context.as_bytes(), &tag).is_ok()
    }

    /// Seals bytes.
    ///
    /// # Panics
    /// Never in practice: the system's random source and an in-memory cipher do not fail.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = plain.to_vec();
        self.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed)
            .expect("plain text is far below the cipher's limit of 64 GB");
        let mut out = nonce.to_vec();
        out.append(&mut sealed);
        out
    }

    /// Opens sealed bytes.
    ///
    /// # Errors
    /// When they were not sealed by this key in this context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Damaged> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Damaged)?;
        let mut rest = rest.to_vec();
        let plain = self.sealing.open_in_place(nonce, Aad::from(context), &mut rest).map_err(|_| Damaged)?;
        Ok(plain.to_vec())
    }
}

/// All keys of the role.
pub struct Keys {
    /// For config vars.
    pub config: Key,
    /// For tickets.
    pub ticket: Key,
}

impl Keys {
    /// Reads the keys, making those that are missing.
    ///
    /// # Errors
    /// When the directory cannot be written, a key file is damaged, or the key of an existing database is missing.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let directory = data_dir.join("keys");
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let config = directory.join("config.key");
        if store::is_there(&data_dir.join("dozen.db")) && !config.try_exists()? {
            let text = format!(
                "{} is missing, and config vars in the database are sealed with it: put it back from the backup that the \
                 database is from",
                config.display()
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(Self { config: key(&config)?, ticket: key(&directory.join("token.key"))? })
    }
}

fn key(path: &Path) -> io::Result<Key> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes: [u8; KEY_BYTES] = random();
            write_private(path, &bytes)?;
            bytes.to_vec()
        }
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a key of 32 bytes", path.display()));
    if bytes.len() != KEY_BYTES {
        return Err(damaged());
    }
    let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| damaged())?);
    // One key, one use: that for tags is derived.
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), b"tags");
    Ok(Key { sealing, tagging: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) })
}

/// Writes a file whole or not at all, readable by its owner alone, and on the disk when it returns.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Random bytes from the system.
///
/// # Panics
/// When the system has no random source, which leaves nothing to go on with.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system's random source works");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_open_only_unchanged_and_in_their_context() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = Keys::open(directory.path()).expect("keys");
        let sealed = keys.config.seal(b"app-1", b"postgres://secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(keys.config.open(b"app-1", &sealed).expect("it opens"), b"postgres://secret");
        assert_eq!(keys.config.open(b"app-2", &sealed), Err(Damaged));
        assert_eq!(keys.ticket.open(b"app-1", &sealed), Err(Damaged));
        let mut changed = sealed.clone();
        changed[20] ^= 1;
        assert_eq!(keys.config.open(b"app-1", &changed), Err(Damaged));
        assert_eq!(keys.config.open(b"app-1", b"short"), Err(Damaged));
    }

    #[test]
    fn keys_are_the_same_after_a_restart_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let sealed = Keys::open(directory.path()).expect("keys").config.seal(b"", b"x");
        let again = Keys::open(directory.path()).expect("keys");
        assert_eq!(again.config.open(b"", &sealed).expect("it opens"), b"x");
        let mode = fs::metadata(directory.path().join("keys/config.key")).expect("a file").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    }

    #[test]
    fn no_new_key_is_made_for_an_old_database() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("dozen.db"), "SQLite").expect("a file");
        let error = Keys::open(directory.path()).err().expect("an error");
        assert!(error.to_string().contains("config.key is missing"), "{error}");
        assert!(!directory.path().join("keys/config.key").exists());
    }

    #[test]
    fn a_damaged_key_file_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("keys")).expect("keys");
        fs::write(directory.path().join("keys/config.key"), b"short").expect("a file");
        let error = Keys::open(directory.path()).err().expect("an error");
        assert!(error.to_string().contains("config.key is not a key"), "{error}");
    }
}
