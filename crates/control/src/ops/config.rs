//! Config vars: those of the app's newest release. Changing them makes a release.

use dozen_domain::{
    config::{Secret, Vars},
    ids::AppId,
    name::ConfigKey,
};
use serde_json::{Map, Value};

use super::{Error, Result, releases};
use crate::{
    state::Context,
    store::{self, accounts::Account},
};

/// The app's config vars.
///
/// # Errors
/// When they cannot be unsealed or the database fails.
pub async fn of_app(context: &Context, app: AppId) -> Result<Vars> {
    let newest = store::releases::newest(&mut *context.store.read().await?, app).await?;
    newest.map_or_else(|| Ok(Vars::new()), |release| releases::config(context, &release))
}

/// Sets and removes config vars as the API has it: a text sets, null removes.
///
/// # Errors
/// When a key or value breaks a rule, all together are too long, or the database fails.
pub async fn change(context: &Context, app: AppId, actor: &Account, changes: Map<String, Value>) -> Result<Vars> {
    let changes = changes.into_iter().map(|(key, value)| Ok((ConfigKey::try_from(key.clone())?, text(&key, value)?)));
    let changes = changes.collect::<Result<Vec<_>>>()?;
    let release = releases::create(context, app, actor, releases::Change::Config(changes)).await?;
    releases::config(context, &release)
}

fn text(key: &str, value: Value) -> Result<Option<Secret>> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(_) | Value::Object(_) => {
            return Err(Error::Invalid(format!("Config var {key} must be a string, or null to remove it.")));
        }
    };
    if text.contains('\0') {
        return Err(Error::Invalid(format!("Config var {key} must not contain NUL: no process can be given it.")));
    }
    Ok(Some(Secret::new(text)))
}
