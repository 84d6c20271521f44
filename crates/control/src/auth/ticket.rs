//! Tickets: URLs that carry their own secret, for clients that send no credentials (log streams, output streams, source
//! uploads).
//!
//! A ticket is a value sealed with the role's ticket key. Nothing is stored: any control process with the same data
//! directory accepts it, before and after a restart.

use data_encoding::BASE64URL_NOPAD;
use dozen_api::clock::Micros;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::keys::Key;

/// A ticket is not ours, for something else, or too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not ours, or for something else.
    #[error("the ticket is not valid")]
    Invalid,
    /// Past its time.
    #[error("the ticket has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Ticket<T> {
    expires_at: Micros,
    grant: T,
}

/// Makes a ticket for `purpose` (a short constant like `log-session`) that ends at `expires_at`. URL-safe text.
///
/// # Panics
/// When `grant` cannot be JSON, which plain structs always can.
pub fn issue<T: Serialize>(key: &Key, purpose: &str, expires_at: Micros, grant: &T) -> String {
    let plain = serde_json::to_vec(&Ticket { expires_at, grant }).expect("a plain struct is JSON");
    BASE64URL_NOPAD.encode(&key.seal(purpose.as_bytes(), &plain))
}

/// Opens a ticket for `purpose`.
///
/// # Errors
/// When it is not valid for this purpose at `now`.
pub fn redeem<T: DeserializeOwned>(key: &Key, purpose: &str, now: Micros, text: &str) -> Result<T, Refused> {
    let sealed = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| Refused::Invalid)?;
    let plain = key.open(purpose.as_bytes(), &sealed).map_err(|_| Refused::Invalid)?;
    let ticket: Ticket<T> = serde_json::from_slice(&plain).map_err(|_| Refused::Invalid)?;
    if ticket.expires_at <= now {
        return Err(Refused::Expired);
    }
    Ok(ticket.grant)
}

#[cfg(test)]
mod tests {
    use super::{super::keys::Keys, *};

    #[test]
    fn a_ticket_is_good_for_one_purpose_until_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = Keys::open(directory.path()).expect("keys");
        let ticket = issue(&keys.ticket, "source", 100, &7_u32);
        assert_eq!(redeem::<u32>(&keys.ticket, "source", 99, &ticket), Ok(7));
        assert_eq!(redeem::<u32>(&keys.ticket, "source", 100, &ticket), Err(Refused::Expired));
        assert_eq!(redeem::<u32>(&keys.ticket, "log-session", 99, &ticket), Err(Refused::Invalid));
        assert_eq!(redeem::<u32>(&keys.ticket, "source", 99, "nonsense"), Err(Refused::Invalid));
    }
}
