//! Whole numbers as clients write them: the official one sends some of them as text (`"3600"`).

use serde::{Deserialize, Deserializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(i64),
    Text(String),
}

/// Reads a number, a text that is one, or nothing.
///
/// # Errors
/// When it is something else.
pub fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let wrong = || D::Error::custom("expected a whole number");
    match Option::<Written>::deserialize(deserializer).map_err(|_| wrong())? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Text(text)) => text.trim().parse().map(Some).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "lenient")]
        n: Option<i64>,
    }

    #[test]
    fn numbers_are_read_with_and_without_quotes() {
        let read =
            |text: &str| serde_json::from_str::<Body>(text).map(|body| body.n).map_err(|error| error.to_string());
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"n": null}"#), Ok(None));
        assert_eq!(read(r#"{"n": 5}"#), Ok(Some(5)));
        assert_eq!(read(r#"{"n": " -5 "}"#), Ok(Some(-5)));
        assert!(read(r#"{"n": 1.5}"#).is_err() && read(r#"{"n": "x"}"#).is_err());
    }
}
