//! Where an app answers, and a browser there.

use std::process::{Command, Stdio};

use super::App;
use crate::{Error, Printer, commands::Session};

/// Programs that open an address as this person likes it, in the order in which they are tried.
const OPENERS: [&str; 2] = ["xdg-open", "open"];

pub(in crate::commands) async fn run(
    session: &Session,
    app: &str,
    path: Option<&str>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let app: App = session.api.get(&format!("/apps/{app}")).await?;
    let web = app.web_url.ok_or_else(|| Error::Missing(format!("{} has no address", app.name)))?;
    let url = format!("{}/{}", web.trim_end_matches('/'), path.unwrap_or_default().trim_start_matches('/'));
    match printer.is_json() {
        true => printer.json(&serde_json::json!({ "url": url }))?,
        false => printer.line(&url)?,
    }
    let browser = std::env::var("BROWSER").ok().filter(|browser| !browser.is_empty());
    let screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    let candidates: Vec<&str> = match &browser {
        Some(browser) => vec![browser],
        None if screen || cfg!(target_os = "macos") => OPENERS.to_vec(),
        None => Vec::new(),
    };
    let open = |program: &&str| {
        let mut command = Command::new(program);
        command.arg(&url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !candidates.is_empty() && !candidates.iter().any(open) {
        printer.note("No browser could be started: set BROWSER.");
    }
    Ok(())
}
