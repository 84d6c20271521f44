//! Destroys an app.

use http::Method;

use crate::{Error, Printer, commands::Session};

pub(in crate::commands) async fn run(
    session: &Session,
    app: &str,
    confirm: &str,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    if confirm != app {
        return Err(Error::Usage(format!("--confirm {confirm} does not match the app {app}; nothing was destroyed")));
    }
    let path = format!("/apps/{app}");
    printer.begin(&format!("Destroying {app}"));
    let answer: serde_json::Value = session.api.call(Method::DELETE, &path, None::<&()>).await?;
    printer.done("done");
    if printer.is_json() { printer.json(&answer) } else { Ok(()) }
}
