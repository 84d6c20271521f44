//! Shows an app.

use super::App;
use crate::{
    Error, Printer,
    commands::{Session, show},
};

pub(in crate::commands) async fn run(session: &Session, app: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let app = session.api.get(&format!("/apps/{app}")).await?;
    show(app, printer, |app: App, printer| {
        printer.line(&format!("=== {}", app.name))?;
        let row = |name: &str, value: String| vec![format!("{name}:"), value];
        let mut rows = vec![row("Git URL", app.git_url), row("Owner", app.owner.email), row("Stack", app.stack.name)];
        if let Some(url) = app.web_url {
            rows.push(row("Web URL", url));
        }
        if app.maintenance {
            rows.push(row("Maintenance", "on".to_owned()));
        }
        printer.table(&rows)
    })
}
