//! Whole numbers as clients write them: the official one sends some of them as text (`"3600"`).

use serde::Deserialize;
use serde_json::Value;

use super::{Error, Result};

/// A number as a client wrote it, not judged yet: only who asks for it knows what the client called it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Written(Value);

impl Written {
    /// The number, from itself or a text that is one; nothing when nothing was written. `field` is the client's name
    /// for it.
    ///
    /// # Errors
    /// When it is something else.
    pub fn whole(&self, field: &str) -> Result<Option<i64>> {
        let number = match &self.0 {
            Value::Null => return Ok(None),
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let wrong = || Error::Invalid(format!("{field} must be a whole number; it is {}.", self.0));
        number.map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        n: Written,
    }

    #[test]
    fn numbers_are_read_with_and_without_quotes() {
        let read = |text: &str| {
            let body: Body = serde_json::from_str(text).expect("JSON");
            body.n.whole("n").map_err(|error| error.to_string())
        };
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"n": null}"#), Ok(None));
        assert_eq!(read(r#"{"n": 5}"#), Ok(Some(5)));
        assert_eq!(read(r#"{"n": " -5 "}"#), Ok(Some(-5)));
        assert_eq!(read(r#"{"n": "abc"}"#), Err(r#"n must be a whole number; it is "abc"."#.to_owned()));
        for wrong in [r#"{"n": 1.5}"#, r#"{"n": true}"#, r#"{"n": [1]}"#, r#"{"n": 1e30}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
