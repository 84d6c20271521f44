//! Access tokens: made here, shown once, stored as SHA-256.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::digest;

use super::keys::random;

/// A fresh or presented token. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// What is stored of a token.
pub type Hash = [u8; 32];

impl Token {
    /// Makes a token of 256 random bits in the form of Heroku's own: `HRKU-` and hexadecimal digits.
    pub fn random() -> Self {
        Self(format!("HRKU-{}", HEXLOWER.encode(&random::<32>())))
    }

    /// Wraps one that a client presented.
    pub fn presented(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Hands out the text. Each call is a place where a secret leaves its type.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored. A plain hash is enough because a token is random, unlike a password.
    pub fn hash(&self) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        hash
    }

    /// What lists show: the two ends with ten stars between, nothing of a short one. The official client matches its own
    /// token against this form.
    pub fn hint(&self) -> String {
        const SHOWN: usize = 8; // characters at each end; 48 of 256 random bits at most
        let long = self.0.is_ascii() && self.0.len() >= 4 * SHOWN;
        let (head, tail) = if long { (&self.0[..SHOWN], &self.0[self.0.len() - SHOWN..]) } else { ("", "") };
        format!("{head}**********{tail}")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([secret])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_shows_only_its_ends_and_a_short_one_nothing() {
        let token = Token::random();
        assert_eq!(token.expose().len(), 69);
        let hint = token.hint();
        assert_eq!(hint.len(), 26);
        assert!(token.expose().starts_with(&hint[..8]) && token.expose().ends_with(&hint[18..]));
        assert_eq!(Token::presented("short").hint(), "**********");
        assert_eq!(format!("{token:?}"), "Token([secret])");
    }

    #[test]
    fn equal_tokens_have_equal_hashes() {
        assert_eq!(Token::presented("a").hash(), Token::presented("a").hash());
        assert_ne!(Token::presented("a").hash(), Token::presented("b").hash());
    }
}
