//! One file a command; each takes its arguments, asks the API and prints.

mod apps;
mod config;
pub mod entry;
mod forward;
mod logs;
mod ps;
mod releases;
mod run;
pub(crate) mod schedule;
mod usage;

use std::process::Command;

use dozen_api::client;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Error, Printer,
    arguments::{App, Client, OneOff},
    environment::{Place, Site},
};

/// What every command is handed.
struct Session {
    api: client::Client,
    place: Place,
}

impl Session {
    fn open(place: Place) -> Result<Self, Error> {
        let mut api = client::Client::new(&place.api_url())?;
        if let Site::Elsewhere(_) = &place.site {
            api = api.trusting(&authority(&place)?)?;
        }
        Ok(Self { api: api.with_token(place.token()?), place })
    }

    /// A client of an address that the platform promised: the same platform by the same way, without the token, for
    /// such an address carries its own secret; and the path there.
    fn promised(&self, url: &str) -> Result<(client::Client, String), Error> {
        let wrong = || client::Error::Address(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let path = uri.path_and_query().ok_or_else(wrong)?.to_string();
        let mut client = client::Client::new(url)?;
        if uri.scheme() == Some(&http::uri::Scheme::HTTPS) {
            client = client.trusting(&authority(&self.place)?)?;
        }
        Ok((client, path))
    }
}

/// The certificate that the platform's own have to be signed with.
fn authority(place: &Place) -> Result<Vec<u8>, Error> {
    let path = place.ca();
    std::fs::read(&path).map_err(|source| Error::Io { operation: format!("read {}", path.display()), source })
}

/// Prints what the API answered: as it is where JSON is wanted, otherwise the way `table` does it.
fn show<T: DeserializeOwned>(
    value: Value,
    printer: &mut Printer<'_>,
    table: impl FnOnce(T, &mut Printer<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if printer.is_json() {
        return printer.json(&value);
    }
    table(read(value)?, printer)
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    let wrong = |error: serde_json::Error| Error::Usage(format!("the platform is of another version: {error}"));
    serde_json::from_value(value).map_err(wrong)
}

/// Carries a command out; returns the exit status, which is that of the command run, if one is.
///
/// # Errors
/// When the API says no or cannot be reached.
pub async fn run(command: Client, place: Place, printer: &mut Printer<'_>) -> Result<u8, Error> {
    let session = Session::open(place)?;
    match command {
        Client::Whoami => entry::whoami(&session, printer).await,
        Client::Apps => apps::list::run(&session, printer).await,
        Client::AppsCreate { name, remote, no_remote } => {
            apps::create::run(&session, name, (!no_remote).then_some(remote), printer).await
        }
        Client::AppsInfo(app) => apps::info::run(&session, &app.resolve()?, printer).await,
        Client::AppsDestroy { app, confirm } => apps::destroy::run(&session, &app.resolve()?, &confirm, printer).await,
        Client::Config(app) => config::show::run(&session, &app.resolve()?, printer).await,
        Client::ConfigGet { app, key } => config::show::one(&session, &app.resolve()?, &key, printer).await,
        Client::ConfigSet { app, pairs } => config::set::run(&session, &app.resolve()?, &pairs, printer).await,
        Client::ConfigUnset { app, keys } => config::set::unset(&session, &app.resolve()?, &keys, printer).await,
        Client::Logs { app, tail, num, dyno, source } => {
            let wanted = logs::Wanted { lines: num, tail, dyno, source };
            logs::run(&session, &app.resolve()?, &wanted, printer).await
        }
        Client::Ps(app) => ps::list::run(&session, &app.resolve()?, printer).await,
        Client::PsScale { app, changes } => ps::scale::run(&session, &app.resolve()?, &changes, printer).await,
        Client::PsRestart { app, which } => {
            ps::restart::run(&session, &app.resolve()?, which.as_deref(), printer).await
        }
        Client::PsStop { app, which } => ps::restart::stop(&session, &app.resolve()?, &which, printer).await,
        Client::Releases(app) => releases::run(&session, &app.resolve()?, printer).await,
        Client::Rollback { app, release } => {
            releases::rollback(&session, &app.resolve()?, release.as_deref(), printer).await
        }
        Client::Open { app, path } => apps::open::run(&session, &app.resolve()?, path.as_deref(), printer).await,
        Client::Schedule(command) => schedule::run(&session, command, printer).await,
        Client::Usage { app, month, csv } => usage::run(&session, app, month, csv, printer).await,
        Client::Run { app, one_off, no_tty } => {
            let wanted = run::Wanted { no_tty, ..one_off.wanted() };
            return run::run(&session, &app.resolve()?, &wanted, printer).await;
        }
        Client::RunDetached { app, one_off } => {
            let wanted = run::Wanted { detached: true, ..one_off.wanted() };
            return run::run(&session, &app.resolve()?, &wanted, printer).await;
        }
        Client::Forward { app, dyno, ports } => forward::run(&session, &app.resolve()?, &dyno, &ports, printer).await,
        Client::Exec { app, dyno, no_tty, command } => {
            let command = if command.is_empty() { vec!["exec bash".to_owned()] } else { command };
            let anything = OneOff { size: None, process_type: None, env: Vec::new(), command };
            let wanted = run::Wanted { no_tty, inside: Some(dyno), ..anything.wanted() };
            return run::run(&session, &app.resolve()?, &wanted, printer).await;
        }
    }?;
    Ok(0)
}

impl OneOff {
    fn wanted(self) -> run::Wanted {
        run::Wanted {
            command: self.command,
            size: self.size,
            process_type: self.process_type,
            env: self.env,
            no_tty: false,
            inside: None,
            detached: false,
        }
    }
}

impl App {
    /// The app's name: the one given, or that of the git remote `heroku`.
    fn resolve(&self) -> Result<String, Error> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let asked = Command::new("git").args(["remote", "get-url", "heroku"]).output();
        let url = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let url = String::from_utf8(url.unwrap_or_default()).unwrap_or_default();
        app_of_remote(url.trim()).map(str::to_owned).ok_or(Error::NoApp)
    }
}

fn app_of_remote(url: &str) -> Option<&str> {
    let (_, path) = url.strip_prefix("https://")?.split_once('/')?;
    path.strip_suffix(".git").filter(|name| !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_is_told_from_the_remote() {
        assert_eq!(app_of_remote("https://localhost:5443/my-app.git"), Some("my-app"));
        for other in ["", "git@github.com:a/b.git", "https://example.com/a/b.git", "https://example.com/.git"] {
            assert_eq!(app_of_remote(other), None, "{other}");
        }
    }
}
