//! Shows an app's config vars, values and all: they are the owner's.

use std::collections::BTreeMap;

use crate::{Error, Printer, commands::Session};

pub(in crate::commands) async fn run(session: &Session, app: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let vars = all(session, app).await?;
    if printer.is_json() {
        return printer.json(&vars);
    }
    let rows: Vec<_> = vars.into_iter().map(|(key, value)| vec![format!("{key}:"), value]).collect();
    printer.table(&rows)
}

/// One value, as it is.
pub(in crate::commands) async fn one(
    session: &Session,
    app: &str,
    key: &str,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let mut vars = all(session, app).await?;
    let value = vars.remove(key).ok_or_else(|| Error::Missing(format!("{app} has no config var {key}")))?;
    if printer.is_json() { printer.json(&value) } else { printer.line(&value) }
}

async fn all(session: &Session, app: &str) -> Result<BTreeMap<String, String>, Error> {
    Ok(session.api.get(&format!("/apps/{app}/config-vars")).await?)
}
