//! What a person's command does: the platform's own commands here, the API's in the `cli` crate.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    ffi::OsString,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command as Process, ExitCode},
};

use clap::Parser as _;
use dozen_cli::{
    Printer,
    arguments::{Arguments, Command},
    completion, credential, entry,
    environment::{Place, Site, quoted},
    login::Login,
    manual,
};
use serde_json::json;

use crate::{
    admin,
    config::{self, Config},
    doctor, own_log, roles,
    server::{self, listeners},
};

/// Why a command failed, in the words of whichever part did.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error(transparent)]
    Admin(#[from] admin::Error),
    #[error(transparent)]
    Client(#[from] dozen_cli::Error),
    #[error("there is no `heroku` on PATH: npm install -g heroku, or set DOZEN_HEROKU_CLI")]
    NoHeroku,
    #[error("{operation}")]
    Io {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Commands of the official CLI that need SSH.
const ENTERING: &[&str] = &["ps:exec", "ps:copy", "ps:forward", "ps:socks"];

/// Parses the command line and carries it out.
pub(crate) fn run() -> ExitCode {
    match dispatch(Arguments::parse()) {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            match error {
                Error::Client(error) => ExitCode::from(error.exit_code()),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints an error with its causes, in one line.
pub(crate) fn complain(error: &dyn StdError) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return; // the reader has gone away (`| head`): nobody to tell
        }
        let line = error.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    // A closed standard error leaves nobody to tell.
    _ = writeln!(io::stderr(), "dozen: {text}");
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Error> {
    let (mut data, mut notes) = (io::stdout(), io::stderr());
    let mut printer = Printer::new(&mut data, &mut notes).as_json(arguments.json);
    match arguments.command {
        Command::Version if printer.is_json() => printer.json(&json!({ "version": env!("CARGO_PKG_VERSION") }))?,
        Command::Version => printer.line(&format!("dozen {}", env!("CARGO_PKG_VERSION")))?,
        Command::Completion { shell } => printer.line(completion::script(shell).trim_end())?,
        Command::Man => printer.line(manual::page().trim_end())?,
        Command::Reference => printer.line(config::reference().trim_end())?,
        Command::Server => {
            let config = Config::from_env()?;
            own_log::start(config.log, config.log_format);
            return Ok(server::run(&config)?);
        }
        Command::Stop { with_dynos } => admin::stop(&Config::from_env()?, with_dynos, &mut printer)?,
        Command::AccountsCreate { email } => admin::create_account(&Config::from_env()?, &email, &mut printer)?,
        Command::LedgerVerify => return Ok(admin::verify_ledger(&Config::from_env()?, &mut printer)?),
        Command::Doctor => return Ok(doctor::run(&Config::from_env()?, &mut printer)?),
        Command::Env => {
            let place = place(&Config::from_env()?)?;
            let variables = place.variables()?;
            if let Some(caveat) = place.caveat()? {
                printer.note(&caveat);
            }
            if printer.is_json() {
                printer.json(&BTreeMap::from_iter(variables))?;
                return Ok(ExitCode::SUCCESS);
            }
            for (name, value) in variables {
                printer.line(&format!("export {name}={}", quoted(&value)))?;
            }
        }
        Command::Fingerprint => {
            let fingerprint = here(&Config::from_env()?)?.fingerprint()?;
            match printer.is_json() {
                true => printer.json(&json!({ "fingerprint": fingerprint }))?,
                false => printer.line(&fingerprint)?,
            }
        }
        Command::Login(wanted) => {
            let config = Config::from_env()?;
            block_on(entry::login(&wanted, config.login_dir.as_deref(), &mut printer))?;
            if config.data_dir_given {
                printer.note("DOZEN_DATA_DIR is set: unset it, or commands are for the platform of this machine.");
            }
        }
        Command::Logout => {
            let config = Config::from_env()?;
            let login = login(&config)?.ok_or(dozen_cli::Error::NoLogin)?;
            let place = place_of(&config, Site::Elsewhere(login.clone()))?;
            block_on(entry::logout(place, login, &mut printer))?;
        }
        Command::Connect { port } => {
            let login = login(&Config::from_env()?)?.ok_or(dozen_cli::Error::NoLogin)?;
            block_on(entry::connect(&login, port, &mut printer))?;
        }
        Command::Heroku { arguments } => {
            let config = Config::from_env()?;
            let cli = config.heroku_cli.clone().or_else(|| config.tool("heroku")).ok_or(Error::NoHeroku)?;
            let place = place(&config)?;
            let enters = |word: &OsString| ENTERING.iter().any(|one| word == one);
            if let Some(caveat) = arguments.first().filter(|word| enters(word)).and(place.caveat()?) {
                printer.note(&caveat);
            }
            let source = Process::new(cli).args(arguments).envs(place.variables()?).exec();
            return Err(Error::Io { operation: "start the heroku CLI", source });
        }
        Command::GitCredential { operation } => {
            let place = place(&Config::from_env()?)?;
            credential::answer(&operation, &mut io::stdin().lock(), &place, &mut printer)?;
        }
        Command::Client(command) => {
            let place = place(&Config::from_env()?)?;
            return Ok(ExitCode::from(block_on(dozen_cli::run(command, place, &mut printer))?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a client's work to its end.
fn block_on<T>(work: impl Future<Output = Result<T, dozen_cli::Error>>) -> Result<T, Error> {
    let done = roles::block_on(work).map_err(|source| Error::Io { operation: "start the event loop", source })?;
    Ok(done?)
}

/// The platform that commands are for: the one that was logged in to, unless that of a data directory is asked for.
fn place(config: &Config) -> Result<Place, Error> {
    match login(config)?.filter(|_| !config.data_dir_given) {
        Some(login) => place_of(config, Site::Elsewhere(login)),
        None => here(config),
    }
}

/// The platform of this machine.
fn here(config: &Config) -> Result<Place, Error> {
    let listen = listeners::recorded(config);
    place_of(config, Site::Here { data_dir: config.data_dir.clone(), api: listen.api, tls: listen.tls })
}

fn login(config: &Config) -> Result<Option<Login>, Error> {
    Ok(config.login_dir.as_deref().map(Login::load).transpose()?.flatten())
}

fn place_of(config: &Config, site: Site) -> Result<Place, Error> {
    let executable = std::env::current_exe()
        .map_err(|source| Error::Io { operation: "find the platform's own executable", source })?;
    Ok(Place {
        site,
        api_key: config.api_key.clone(),
        node_extra_ca_certs: config.node_extra_ca_certs.clone(),
        git_ssl_cainfo: config.git_ssl_cainfo.clone(),
        executable,
    })
}
