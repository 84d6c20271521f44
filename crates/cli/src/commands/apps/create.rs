//! Makes an app and, in a git repository, its remote with what git needs to push there.

use std::process::{Command, Stdio};

use http::Method;
use serde_json::json;

use super::App;
use crate::{
    Error, Printer,
    commands::{Session, read},
    environment::quoted,
};

pub(in crate::commands) async fn run(
    session: &Session,
    name: Option<String>,
    remote: Option<String>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let body = name.map_or_else(|| json!({}), |name| json!({ "name": name }));
    printer.begin("Creating app");
    let answer: serde_json::Value = session.api.call(Method::POST, "/apps", Some(&body)).await?;
    let app: App = read(answer.clone())?;
    printer.done(&format!("done, {}", app.name));
    match printer.is_json() {
        true => printer.json(&answer)?,
        false => printer.line(&format!("{} | {}", app.web_url.as_deref().unwrap_or_default(), app.git_url))?,
    }
    if let Some(remote) = remote
        && git(&["rev-parse", "--git-dir"])
    {
        add_remote(session, &remote, &app.git_url, printer);
    }
    Ok(())
}

/// The remote, and in this repository's own configuration the CA and the credential helper, so that pushing works in
/// any shell and without the official CLI.
fn add_remote(session: &Session, remote: &str, url: &str, printer: &mut Printer<'_>) {
    if git(&["remote", "get-url", remote]) {
        printer.note(&format!("The git remote {remote} exists already and was left as it is."));
        return;
    }
    let host = format!("https://{}", session.place.git_host());
    let (name, value) = session.place.reference();
    let helper = format!(
        "!{name}={} {} git-credential",
        quoted(&value),
        quoted(&session.place.executable.display().to_string())
    );
    let done = git(&["remote", "add", remote, url])
        && git(&["config", &format!("http.{host}.sslCAInfo"), &session.place.ca().display().to_string()])
        && git(&["config", &format!("credential.{host}.helper"), &helper]);
    if done {
        printer.note(&format!("Git remote {remote} added"));
        if !session.place.git_trusts() {
            printer.note("GIT_SSL_CAINFO is set and hides the platform's CA from git; run: eval \"$(dozen env)\"");
        }
    } else {
        printer.note(&format!("Git refused to add the remote {remote}: git remote add {remote} {url}"));
    }
}

fn git(arguments: &[&str]) -> bool {
    let status = Command::new("git").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
