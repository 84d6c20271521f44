//! What a person's command does: the platform's own commands here, the API's in the `cli` crate.

use std::{
    error::Error as StdError,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command as Process, ExitCode},
};

use clap::Parser as _;
use dozen_cli::{
    Printer,
    arguments::{Arguments, Command},
    credential,
    environment::{Place, quoted},
};

use crate::{
    admin,
    config::{self, Config},
    doctor, roles,
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

/// Parses the command line and carries it out.
pub(crate) fn run() -> ExitCode {
    let command = Arguments::parse().command;
    match dispatch(command) {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
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

fn dispatch(command: Command) -> Result<ExitCode, Error> {
    let (mut data, mut notes) = (io::stdout(), io::stderr());
    let mut printer = Printer::new(&mut data, &mut notes);
    match command {
        Command::Version => printer.line(&format!("dozen {}", env!("CARGO_PKG_VERSION")))?,
        Command::Reference => printer.line(config::reference().trim_end())?,
        Command::Server => {
            let config = Config::from_env()?;
            roles::start_logging(config.log);
            return Ok(server::run(&config)?);
        }
        Command::Stop { with_dynos } => admin::stop(&Config::from_env()?, with_dynos, &mut printer)?,
        Command::AccountsCreate { email } => admin::create_account(&Config::from_env()?, &email, &mut printer)?,
        Command::LedgerVerify => return Ok(admin::verify_ledger(&Config::from_env()?, &mut printer)?),
        Command::Doctor => return Ok(doctor::run(&Config::from_env()?, &mut printer)?),
        Command::Env => {
            for (name, value) in place(&Config::from_env()?)?.variables()? {
                printer.line(&format!("export {name}={}", quoted(&value)))?;
            }
        }
        Command::Heroku { arguments } => {
            let config = Config::from_env()?;
            let cli = config.heroku_cli.clone().or_else(|| config.tool("heroku")).ok_or(Error::NoHeroku)?;
            let source = Process::new(cli).args(arguments).envs(place(&config)?.variables()?).exec();
            return Err(Error::Io { operation: "start the heroku CLI", source });
        }
        Command::GitCredential { operation } => {
            let place = place(&Config::from_env()?)?;
            credential::answer(&operation, &mut io::stdin().lock(), &place, &mut printer)?;
        }
        Command::Client(command) => {
            let place = place(&Config::from_env()?)?;
            let status = roles::block_on(dozen_cli::run(command, place, &mut printer))
                .map_err(|source| Error::Io { operation: "start the event loop", source })??;
            return Ok(ExitCode::from(status));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the platform of this configuration is.
fn place(config: &Config) -> Result<Place, Error> {
    let listen = listeners::recorded(config);
    let executable = std::env::current_exe()
        .map_err(|source| Error::Io { operation: "find the platform's own executable", source })?;
    Ok(Place {
        data_dir: config.data_dir.clone(),
        api: listen.api,
        tls: listen.tls,
        api_key: config.api_key.clone(),
        node_extra_ca_certs: config.node_extra_ca_certs.clone(),
        git_ssl_cainfo: config.git_ssl_cainfo.clone(),
        executable,
    })
}
