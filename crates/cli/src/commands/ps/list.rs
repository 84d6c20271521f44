//! Shows an app's dynos by process type.

use serde::Deserialize;

use crate::{
    Error, Printer,
    commands::{Session, show},
};

#[derive(Debug, Deserialize)]
struct Dyno {
    name: String,
    size: String,
    state: String,
    updated_at: String,
    command: String,
}

pub(in crate::commands) async fn run(session: &Session, app: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let dynos = session.api.get(&format!("/apps/{app}/dynos")).await?;
    show(dynos, printer, |mut dynos: Vec<Dyno>, printer| {
        if dynos.is_empty() {
            printer.note(&format!("No dynos on {app}"));
        }
        dynos.sort_by(|a, b| a.name.cmp(&b.name));
        let row = |dyno: Dyno| vec![dyno.name, dyno.state, dyno.size, dyno.updated_at, dyno.command];
        printer.table(&dynos.into_iter().map(row).collect::<Vec<_>>())
    })
}
