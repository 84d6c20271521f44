//! The secret in an `attach_url`: which session it is for and how it is to be served, signed with the role's key.
//!
//! Nothing is stored, so one that was given out is good after a restart of the role too. That it is good once is seen to
//! where the session is: a dyno takes one client, a command inside a dyno is taken from its list. Its form is fixed
//! (lower-case hexadecimal digits of one length), so that the end of it is known without a line end: some clients send
//! none.

use uuid::Uuid;

use crate::auth::keys::Key;

/// Digits of flags, id and tag.
pub const LENGTH: usize = 1 + ID + TAG;
const ID: usize = 32;
const TAG: usize = 64;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The one-off dyno's id, or that of a command that is to run inside one.
    pub id: Uuid,
    /// Whether it is for a command inside a running dyno.
    pub inside: bool,
    /// Whether there is a terminal.
    pub terminal: bool,
    /// Whether the command ends by printing its exit status after U+FFFF, which must reach the client in one piece.
    pub marked: bool,
}

impl Grant {
    fn flags(self) -> u32 {
        u32::from(self.inside) | u32::from(self.terminal) << 1 | u32::from(self.marked) << 2
    }
}

fn tagged(flags: char, id: &str) -> String {
    format!("rendezvous {flags} {id}")
}

/// Makes a secret.
pub fn issue(key: &Key, grant: Grant) -> String {
    let flags = char::from_digit(grant.flags(), 16).unwrap_or('0');
    let id = grant.id.simple().to_string();
    let tag = key.tag(&tagged(flags, &id));
    format!("{flags}{id}{tag}")
}

/// Reads a secret; `None` when it is not one of ours.
pub fn redeem(key: &Key, secret: &[u8]) -> Option<Grant> {
    let secret = std::str::from_utf8(secret).ok().filter(|secret| secret.len() == LENGTH && secret.is_ascii())?;
    let (flags, rest) = secret.split_at(1);
    let (id, tag) = rest.split_at(ID);
    let flags = flags.chars().next()?;
    if !key.is_tag(tag, &tagged(flags, id)) {
        return None;
    }
    let bits = flags.to_digit(16)?;
    let id = Uuid::parse_str(id).ok()?;
    Some(Grant { id, inside: bits & 1 != 0, terminal: bits & 2 != 0, marked: bits & 4 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::Keys;

    #[test]
    fn a_secret_says_what_it_is_for_and_cannot_be_made_or_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let key = Keys::open(directory.path()).expect("keys").ticket;
        let grant = Grant { id: Uuid::new_v4(), inside: false, terminal: true, marked: true };
        let secret = issue(&key, grant);
        assert_eq!((secret.len(), redeem(&key, secret.as_bytes())), (LENGTH, Some(grant)));
        assert!(secret.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_lowercase()));
        // Any digit changed, any digit left out.
        for n in 0..LENGTH {
            let mut other = secret.clone().into_bytes();
            other[n] = if other[n] == b'0' { b'1' } else { b'0' };
            assert_eq!(redeem(&key, &other), None, "{n}");
            assert_eq!(redeem(&key, &secret.as_bytes()[..n]), None);
        }
        let elsewhere = tempfile::tempdir().expect("a directory");
        assert_eq!(redeem(&Keys::open(elsewhere.path()).expect("keys").ticket, secret.as_bytes()), None);
    }
}
