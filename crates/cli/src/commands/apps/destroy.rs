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
    let _: serde_json::Value = session.api.call(Method::DELETE, &path, None::<&()>).await?;
    printer.note(&format!("Destroying {app}... done"));
    Ok(())
}
