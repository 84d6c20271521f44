//! Passwords, stored as PBKDF2-HMAC-SHA-256. An account may have none; its tokens then serve as passwords.

use std::num::NonZeroU32;

use ring::pbkdf2;

use super::keys::random;

const ROUNDS: u32 = 600_000; // OWASP Password Storage Cheat Sheet 2023 for PBKDF2-HMAC-SHA-256

/// What is stored of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// The derived key.
    pub hash: Vec<u8>,
    /// Random, one an account.
    pub salt: Vec<u8>,
    /// Rounds it was derived with.
    pub rounds: u32,
}

/// Derives what is stored. Takes a good part of a second: not on an async thread.
pub fn store(password: &str) -> Stored {
    let salt: [u8; 16] = random();
    let mut hash = vec![0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds(ROUNDS), &salt, password.as_bytes(), &mut hash);
    Stored { hash, salt: salt.to_vec(), rounds: ROUNDS }
}

/// Compares in constant time. As slow as [`store`].
pub fn matches(stored: &Stored, password: &str) -> bool {
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::verify(algorithm, rounds(stored.rounds), &stored.salt, password.as_bytes(), &stored.hash).is_ok()
}

fn rounds(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_matches() {
        let stored = store("correct horse");
        assert!(matches(&stored, "correct horse"));
        assert!(!matches(&stored, "Correct horse"));
    }
}
