//! One file a command; each takes its arguments, asks the API and prints.

mod apps;
mod config;
mod logs;
mod ps;
mod releases;
mod run;
pub(crate) mod schedule;
mod usage;

use std::process::Command;

use dozen_api::client;

use crate::{
    Error, Printer,
    arguments::{App, Client, OneOff},
    environment::Place,
};

/// What every command is handed.
struct Session {
    api: client::Client,
    place: Place,
}

/// Carries a command out; returns the exit status, which is that of the command run, if one is.
///
/// # Errors
/// When the API says no or cannot be reached.
pub async fn run(command: Client, place: Place, printer: &mut Printer<'_>) -> Result<u8, Error> {
    let api = client::Client::new(&place.api_url())?.with_token(place.token()?);
    let session = Session { api, place };
    match command {
        Client::Apps => apps::list::run(&session, printer).await,
        Client::AppsCreate { name, remote, no_remote } => {
            apps::create::run(&session, name, (!no_remote).then_some(remote), printer).await
        }
        Client::AppsInfo(app) => apps::info::run(&session, &app.resolve()?, printer).await,
        Client::AppsDestroy { app, confirm } => apps::destroy::run(&session, &app.resolve()?, &confirm, printer).await,
        Client::Config(app) => config::show::run(&session, &app.resolve()?, printer).await,
        Client::ConfigSet { app, pairs } => config::set::run(&session, &app.resolve()?, &pairs, printer).await,
        Client::Logs { app, tail, num, dyno, source } => {
            let wanted = logs::Wanted { lines: num, tail, dyno, source };
            logs::run(&session, &app.resolve()?, &wanted, printer).await
        }
        Client::Ps(app) => ps::list::run(&session, &app.resolve()?, printer).await,
        Client::PsScale { app, changes } => ps::scale::run(&session, &app.resolve()?, &changes, printer).await,
        Client::Releases(app) => releases::run(&session, &app.resolve()?, printer).await,
        Client::Schedule(command) => schedule::run(&session, command, printer).await,
        Client::Usage { app, month, json, csv } => {
            let form = match (json, csv) {
                (true, _) => usage::Form::Json,
                (_, true) => usage::Form::Csv,
                _ => usage::Form::Table,
            };
            usage::run(&session, app, month, form, printer).await
        }
        Client::Run { app, one_off, env, no_tty, command } => {
            let wanted = run::Wanted { env, no_tty, ..one_off.wanted(command) };
            return run::run(&session, &app.resolve()?, &wanted, printer).await;
        }
        Client::RunDetached { app, one_off, env, command } => {
            let wanted = run::Wanted { env, detached: true, ..one_off.wanted(command) };
            return run::run(&session, &app.resolve()?, &wanted, printer).await;
        }
        Client::Exec { app, dyno, no_tty, command } => {
            let command = if command.is_empty() { vec!["exec bash".to_owned()] } else { command };
            let anything = OneOff { size: None, process_type: None };
            let wanted = run::Wanted { no_tty, inside: Some(dyno), ..anything.wanted(command) };
            return run::run(&session, &app.resolve()?, &wanted, printer).await;
        }
    }?;
    Ok(0)
}

impl OneOff {
    fn wanted(self, command: Vec<String>) -> run::Wanted {
        run::Wanted {
            command,
            size: self.size,
            process_type: self.process_type,
            env: Vec::new(),
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
