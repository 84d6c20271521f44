//! Reads columns into the domain's types.

use std::str::FromStr;

use serde::de::DeserializeOwned;
use sqlx::{Row, sqlite::SqliteRow};

use super::{Error, Result};

/// A text column as a type that parses from text.
///
/// # Errors
/// When the column is missing or does not parse.
pub fn parse<T>(row: &SqliteRow, column: &'static str) -> Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.try_get(column)?;
    text.parse().map_err(|error: T::Err| Error::Column { column, source: Box::new(error) })
}

/// As [`parse`], for a column that may be null.
///
/// # Errors
/// As [`parse`].
pub fn parse_optional<T>(row: &SqliteRow, column: &'static str) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse()).transpose().map_err(|error: T::Err| Error::Column { column, source: Box::new(error) })
}

/// A text column that holds JSON.
///
/// # Errors
/// When the column is missing or does not hold such JSON.
pub fn json<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| Error::Column { column, source: Box::new(error) })
}

/// An integer column as a smaller integer type.
///
/// # Errors
/// When the column is missing or its number does not fit.
pub fn integer<T>(row: &SqliteRow, column: &'static str) -> Result<T>
where
    T: TryFrom<i64>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let number: i64 = row.try_get(column)?;
    T::try_from(number).map_err(|error| Error::Column { column, source: Box::new(error) })
}
