//! One-off admin commands: they work on the data directory, beside a running platform or without one.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use dozen_api::{clock::SystemClock, engine, logs::Sender};
use dozen_cli::Printer;
use dozen_control::{Context, ops, reconcile::Nudge, state::Settings};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::{config::Config, data_dir, roles};

/// How long `dozen stop` waits for the platform: the longest request and a little.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why an admin command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The platform does not end.
    #[error("process {0} does not end: end it by hand")]
    StillThere(i32),
    /// It cannot be signalled.
    #[error("cannot signal process {pid}: is it another user's?")]
    Signal {
        /// Which.
        pid: i32,
        /// Why not.
        #[source]
        source: rustix::io::Errno,
    },
    /// The platform was never started here.
    #[error("there is no database in {0}: start the platform once with `dozen server`")]
    NotStarted(String),
    /// The database.
    #[error("open the platform's database")]
    Control(#[from] dozen_control::Error),
    /// What was asked for is refused.
    #[error("{0}")]
    Operation(#[from] ops::Error),
    /// Dynos.
    #[error("stop the dynos")]
    Dynos(#[from] roles::Error),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// The event loop.
    #[error("start the event loop")]
    EventLoop(#[source] std::io::Error),
    /// The terminal.
    #[error(transparent)]
    Print(#[from] dozen_cli::Error),
}

/// `dozen stop [--with-dynos]`
pub(crate) fn stop(config: &Config, with_dynos: bool, printer: &mut Printer<'_>) -> Result<(), Error> {
    match data_dir::holder(&config.data_dir) {
        None => printer.note(&format!("No platform is running on {}.", config.data_dir.display())),
        Some(pid) => {
            let number = pid.as_raw_nonzero().get();
            kill_process(pid, Signal::TERM).map_err(|source| Error::Signal { pid: number, source })?;
            let end = Instant::now() + PATIENCE;
            while data_dir::holder(&config.data_dir) == Some(pid) {
                if Instant::now() > end {
                    return Err(Error::StillThere(number));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            printer.note("The platform has stopped.");
        }
    }
    if with_dynos && config.data_dir.is_dir() {
        // Held to the end, so that no platform starts while its dynos are taken away.
        let _lock = data_dir::lock(&config.data_dir)?;
        let stopped = roles::block_on(roles::tear_down(config)).map_err(Error::EventLoop)??;
        // Where nothing was ever recorded there is nothing to add.
        if !stopped.is_empty() && config.data_dir.join("admin.json").exists() {
            with_context(config, async |context| Ok(ops::usage::ended(&context, &stopped).await?))?;
        }
        let (count, s) = (stopped.len(), if stopped.len() == 1 { "" } else { "s" });
        printer.note(&format!("Stopped {count} dyno{s}."));
    }
    Ok(())
}

/// `dozen accounts:create EMAIL`
pub(crate) fn create_account(config: &Config, email: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let (account, token) =
        with_context(config, async |context| Ok(ops::accounts::create(&context, email, None).await?))?;
    printer.note(&format!("Created {}. Its API key, shown this once:", account.email));
    match printer.is_json() {
        true => Ok(printer.json(&json!({ "email": account.email, "api_key": token.expose() }))?),
        false => Ok(printer.line(token.expose())?),
    }
}

/// `dozen ledger:verify`
pub(crate) fn verify_ledger(config: &Config, printer: &mut Printer<'_>) -> Result<ExitCode, Error> {
    let checked = with_context(config, async |context| Ok(ops::ledger::verify(&context).await?))?;
    let faults: usize = checked.iter().map(|app| app.faults.len()).sum();
    if printer.is_json() {
        let app = |app: &ops::ledger::Checked| {
            let faults: Vec<_> = app.faults.iter().map(ToString::to_string).collect();
            json!({ "app": app.name.to_string(), "releases": app.releases, "head": HEXLOWER.encode(&app.head), "faults": faults })
        };
        printer.json(&checked.iter().map(app).collect::<Vec<_>>())?;
        return Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    for app in &checked {
        let head = HEXLOWER.encode(&app.head);
        printer.line(&format!("{}: {} releases, head {head}", app.name, app.releases))?;
        for fault in &app.faults {
            printer.line(&format!("{}: FAULT: {fault}", app.name))?;
        }
    }
    match faults {
        0 => printer.note(&format!("All ledgers are whole (apps: {}).", checked.len())),
        n => printer.note(&format!("{n} faults.")),
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs an operation on the database alone: it starts no dyno and builds nothing.
fn with_context<T>(config: &Config, operation: impl AsyncFnOnce(Context) -> Result<T, Error>) -> Result<T, Error> {
    if !config.data_dir.join("admin.json").exists() {
        return Err(Error::NotStarted(config.data_dir.display().to_string()));
    }
    let opened = async {
        let mut settings = Settings::of_directory(config.data_dir.clone());
        settings.database_url = Some(config.database_url.clone());
        let (nudge, _nudges) = Nudge::channel();
        let engine = std::sync::Arc::new(engine::memory::Memory::new());
        let builds = std::sync::Arc::new(dozen_api::build::memory::Memory::new());
        let (logs, _lines) = Sender::memory();
        let context = Context::open(settings, engine, builds, logs, std::sync::Arc::new(SystemClock), nudge).await?;
        operation(context).await
    };
    roles::block_on(opened).map_err(Error::EventLoop)?
}
