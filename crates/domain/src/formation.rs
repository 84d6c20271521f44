//! Formation: how many dynos of each process type, and how people ask for it.

use std::str::FromStr;

use crate::{limits::Limits, name::ProcessType, size::Size};

/// A wanted quantity: absolute (`2`), or relative to what is (`+1`, `-1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// So many.
    Absolute(u32),
    /// So many more or fewer.
    Relative(i64),
}

/// A quantity, size or sum breaks a rule; the text is for the person who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not a number.
    #[error("Quantity must be a whole number, or one with a sign to scale relatively: {0:?}")]
    Quantity(String),
    /// Below zero.
    #[error("Cannot scale {process_type} below 0: it has {now} and the change is {change}.")]
    Negative {
        /// Of which type.
        process_type: ProcessType,
        /// What it has.
        now: u32,
        /// What was asked.
        change: i64,
    },
    /// More dynos than an app may have.
    #[error("Cannot scale to {total} dynos: the limit for this app is {most}.")]
    TooMany {
        /// All types together.
        total: u64,
        /// The limit.
        most: u64,
    },
}

impl FromStr for Quantity {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::Quantity(text.to_owned());
        let text = text.trim();
        match text.as_bytes().first() {
            Some(b'+' | b'-') => text.parse().map(Self::Relative).map_err(|_| wrong()),
            _ => text.parse().map(Self::Absolute).map_err(|_| wrong()),
        }
    }
}

impl Quantity {
    /// The quantity that results for a type that has `now`.
    ///
    /// # Errors
    /// When it would be negative.
    pub fn apply(self, process_type: &ProcessType, now: u32) -> Result<u32, Invalid> {
        match self {
            Self::Absolute(quantity) => Ok(quantity),
            Self::Relative(change) => i64::from(now)
                .checked_add(change)
                .and_then(|sum| u32::try_from(sum).ok())
                .ok_or(Invalid::Negative { process_type: process_type.clone(), now, change }),
        }
    }
}

/// The quantity that a process type starts with when it first appears: web 1, others 0 (BEHAVIOUR 2.5).
pub fn default_quantity(process_type: &ProcessType) -> u32 {
    u32::from(process_type.is_web())
}

/// Checks a whole formation against the limits.
///
/// # Errors
/// When one of them is exceeded.
pub fn check(formation: &[(ProcessType, u32, Size)], limits: &Limits) -> Result<(), Invalid> {
    let total: u64 = formation.iter().map(|(_, quantity, _)| u64::from(*quantity)).sum();
    if total > limits.dynos_per_app {
        return Err(Invalid::TooMany { total, most: limits.dynos_per_app });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_absolute_or_signed() {
        assert_eq!("2".parse(), Ok(Quantity::Absolute(2)));
        assert_eq!("+1".parse(), Ok(Quantity::Relative(1)));
        assert_eq!("-1".parse(), Ok(Quantity::Relative(-1)));
        for bad in ["", "x", "1.5", "--1", "99999999999"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn scaling_below_zero_is_refused() {
        let web = ProcessType::web();
        assert_eq!(Quantity::Relative(-2).apply(&web, 2), Ok(0));
        assert!(matches!(Quantity::Relative(-3).apply(&web, 2), Err(Invalid::Negative { .. })));
    }

    #[test]
    fn an_app_has_a_limited_number_of_dynos() {
        let limits = Limits::default();
        let most = u32::try_from(limits.dynos_per_app).expect("a small limit");
        assert_eq!(check(&[(ProcessType::web(), most, Size::Basic)], &limits), Ok(()));
        assert!(check(&[(ProcessType::web(), most + 1, Size::Basic)], &limits).is_err());
    }
}
