//! Names that people choose, validated at the edge and carried as a type from there on.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name broke a rule; the text says which, in the words the Platform API answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// An app's name: 3 to 30 characters, a lower-case letter first, then letters, digits and dashes, no dash last
    /// (pattern of the Platform API schema, `app.name`).
    AppName,
    check_app_name
);
name!(
    /// A process type of a Procfile: letters, digits, `-` and `_`, at most 63 characters.
    ProcessType,
    check_process_type
);
name!(
    /// A config var's key: not empty, no `=`, no NUL, no white space.
    ConfigKey,
    check_config_key
);

fn check_app_name(text: &str) -> Result<(), Invalid> {
    const LETTERS: &str = "Name must start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes.";
    let bytes = text.as_bytes();
    if bytes.len() < 3 {
        return Err(Invalid("Name is too short (minimum is 3 characters)"));
    }
    if bytes.len() > 30 {
        return Err(Invalid("Name is too long (maximum is 30 characters)"));
    }
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    if !bytes[0].is_ascii_lowercase() || !bytes.iter().all(inner) || bytes[bytes.len() - 1] == b'-' {
        return Err(Invalid(LETTERS));
    }
    Ok(())
}

fn check_process_type(text: &str) -> Result<(), Invalid> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(ok) {
        return Err(Invalid("Process type must be 1 to 63 letters, digits, dashes or underscores."));
    }
    Ok(())
}

fn check_config_key(text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.bytes().any(|b| b == b'=' || b == 0 || b.is_ascii_whitespace()) {
        return Err(Invalid("Config var keys must not be empty and must not contain spaces, '=' or NUL."));
    }
    Ok(())
}

impl ProcessType {
    /// The one process type that the router sends requests to.
    pub fn web() -> Self {
        Self("web".to_owned())
    }

    /// The process type that runs once before each release is put in force.
    pub fn release() -> Self {
        Self("release".to_owned())
    }

    /// Says whether this is `web`.
    pub fn is_web(&self) -> bool {
        self.0 == "web"
    }

    /// Says whether this is `release`, which is never scaled.
    pub fn is_release(&self) -> bool {
        self.0 == "release"
    }
}

/// A dyno's name: process type and number, `web.1`, `run.4711`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DynoName {
    process_type: ProcessType,
    number: u32,
}

impl DynoName {
    /// Joins a process type and a number.
    pub fn new(process_type: ProcessType, number: u32) -> Self {
        Self { process_type, number }
    }

    /// The part before the dot.
    pub fn process_type(&self) -> &ProcessType {
        &self.process_type
    }

    /// The part after the dot.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl fmt::Display for DynoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process_type, self.number)
    }
}

impl fmt::Debug for DynoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process_type, self.number)
    }
}

impl FromStr for DynoName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const SHAPE: Invalid = Invalid("A dyno's name is a process type, a dot and a number: web.1");
        let (process_type, number) = text.rsplit_once('.').ok_or(SHAPE)?;
        if number.len() > 1 && number.starts_with('0') || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(SHAPE);
        }
        Ok(Self { process_type: process_type.parse().map_err(|_| SHAPE)?, number: number.parse().map_err(|_| SHAPE)? })
    }
}

impl TryFrom<String> for DynoName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<DynoName> for String {
    fn from(name: DynoName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_follow_the_schema() {
        for good in ["abc", "my-app-2", "a23456789012345678901234567890"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "Abc", "1abc", "abc-", "a_b", "a.b", "a234567890123456789012345678901"] {
            assert!(bad.parse::<AppName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn dyno_names_round_trip() {
        let name: DynoName = "web.12".parse().expect("a dyno name");
        assert_eq!((name.process_type().as_str(), name.number()), ("web", 12));
        assert_eq!(name.to_string(), "web.12");
        for bad in ["web", "web.", ".1", "web.x", "web.01", "we b.1", "web.+1"] {
            assert!(bad.parse::<DynoName>().is_err(), "{bad}");
        }
    }
}
