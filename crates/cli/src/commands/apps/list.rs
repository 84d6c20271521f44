//! Lists the apps that the account may use.

use super::App;
use crate::{
    Error, Printer,
    commands::{Session, show},
};

pub(in crate::commands) async fn run(session: &Session, printer: &mut Printer<'_>) -> Result<(), Error> {
    let apps = session.api.get("/users/~/apps").await?;
    show(apps, printer, |mut apps: Vec<App>, printer| {
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        if apps.is_empty() {
            printer.note("You have no apps. `dozen apps:create` makes one.");
        }
        let rows: Vec<_> = apps.into_iter().map(|app| vec![app.name, app.web_url.unwrap_or_default()]).collect();
        printer.table(&rows)
    })
}
