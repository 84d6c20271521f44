//! Shows an app's config vars, values and all: they are the owner's.

use std::collections::BTreeMap;

use crate::{Error, Printer, commands::Session};

pub(in crate::commands) async fn run(session: &Session, app: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let vars: BTreeMap<String, String> = session.api.get(&format!("/apps/{app}/config-vars")).await?;
    let rows: Vec<_> = vars.into_iter().map(|(key, value)| vec![format!("{key}:"), value]).collect();
    printer.table(&rows)
}
