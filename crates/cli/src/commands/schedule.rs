//! Timed jobs of an app: listing, making, changing, running now, and what became of their runs.

use clap::{Args, Subcommand};
use http::{Method, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Map, Value};

use dozen_api::{
    client,
    platform::cron_job::{CronJob, CronRun},
};

use super::{Session, show};
use crate::{Error, Printer, arguments::App};

/// `dozen schedule:*`.
#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// List an app's timed jobs
    #[command(name = "schedule")]
    List(App),
    /// Make a timed job
    #[command(name = "schedule:add")]
    Add {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// What to run; the name of a process type stands for its command
        command: String,
        /// When, and how.
        #[command(flatten)]
        settings: Settings,
    },
    /// Change a timed job
    #[command(name = "schedule:update")]
    Update {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// The job's name
        job: String,
        /// A new command
        #[arg(long)]
        command: Option<String>,
        /// What else to change.
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a timed job and its history
    #[command(name = "schedule:remove")]
    Remove(One),
    /// Run a timed job now
    #[command(name = "schedule:run")]
    Run(One),
    /// Stop running a job by its schedule
    #[command(name = "schedule:pause")]
    Pause(One),
    /// Go on running a job by its schedule
    #[command(name = "schedule:resume")]
    Resume(One),
    /// Show a job's last runs
    #[command(name = "schedule:history")]
    History(One),
    /// Show what a run printed
    #[command(name = "schedule:output")]
    Output {
        /// Which job.
        #[command(flatten)]
        one: One,
        /// The run's dyno (`scheduler.1234`) or id; the last one if none is given
        run: Option<String>,
    },
}

/// One job of an app.
#[derive(Debug, Args)]
pub struct One {
    /// Which app.
    #[command(flatten)]
    app: App,
    /// The job's name
    job: String,
}

/// What can be said of a job.
#[derive(Debug, Args)]
pub struct Settings {
    /// "every 10 minutes", "hourly at :30", "daily at 13:30", or five fields as cron has them
    #[arg(long)]
    schedule: Option<String>,
    /// Its name; told from the command if none is given
    #[arg(long = "name", id = "job_name", value_name = "NAME")]
    name: Option<String>,
    /// Time zone of the schedule, such as Europe/Berlin; UTC if none is given
    #[arg(long)]
    timezone: Option<String>,
    /// Size of its dyno
    #[arg(long)]
    size: Option<String>,
    /// When the run before has not ended: forbid, allow, replace
    #[arg(long)]
    overlap: Option<String>,
    /// When the platform was not running at its time: skip, run
    #[arg(long)]
    missed: Option<String>,
}

impl Settings {
    fn body(self, command: Option<String>) -> Value {
        let fields = [
            ("command", command),
            ("schedule", self.schedule),
            ("name", self.name),
            ("timezone", self.timezone),
            ("size", self.size),
            ("overlap", self.overlap),
            ("missed", self.missed),
        ];
        let given = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?))));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

pub(super) async fn run(session: &Session, command: Schedule, printer: &mut Printer<'_>) -> Result<(), Error> {
    match command {
        Schedule::List(app) => list(session, &app.resolve()?, printer).await,
        Schedule::Add { app, command, settings } => {
            if settings.schedule.is_none() {
                return Err(Error::Usage(
                    "say when with --schedule, for example --schedule \"daily at 13:30\"".to_owned(),
                ));
            }
            let body = settings.body(Some(command));
            let path = format!("/apps/{}/cron-jobs", app.resolve()?);
            tell(session.api.call(Method::POST, &path, Some(&body)).await?, printer)
        }
        Schedule::Update { app, job, command, settings } => {
            let one = One { app, job };
            let body = settings.body(command);
            tell(session.api.call(Method::PATCH, &one.path("")?, Some(&body)).await?, printer)
        }
        Schedule::Remove(one) => {
            let removed = session.api.call(Method::DELETE, &one.path("")?, None::<&()>).await?;
            show(removed, printer, |job: CronJob, printer| {
                printer.note(&format!("Removed {}", job.name));
                Ok(())
            })
        }
        Schedule::Run(one) => {
            let run = session.api.call(Method::POST, &one.path("/runs")?, None::<&()>).await?;
            show(run, printer, |run: CronRun, printer| {
                printer.note(&format!("Running {} as", one.job));
                printer.line(&run.dyno.name)
            })
        }
        Schedule::Pause(one) => pause(session, &one, true, printer).await,
        Schedule::Resume(one) => pause(session, &one, false, printer).await,
        Schedule::History(one) => history(session, &one, printer).await,
        Schedule::Output { one, run } => output(session, &one, run.as_deref(), printer).await,
    }
}

impl One {
    fn path(&self, rest: &str) -> Result<String, Error> {
        Ok(format!("/apps/{}/cron-jobs/{}{rest}", self.app.resolve()?, self.job))
    }
}

fn due(job: &CronJob) -> String {
    job.next_at.clone().unwrap_or_else(|| if job.paused { "paused".to_owned() } else { "never".to_owned() })
}

fn tell(job: Value, printer: &mut Printer<'_>) -> Result<(), Error> {
    show(job, printer, |job: CronJob, printer| {
        printer.note(&format!("{} ({}, {}), next: {}", job.name, job.schedule, job.timezone, due(&job)));
        printer.line(&job.name)
    })
}

async fn list(session: &Session, app: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
    let jobs = session.api.get(&format!("/apps/{app}/cron-jobs")).await?;
    show(jobs, printer, |jobs: Vec<CronJob>, printer| {
        if jobs.is_empty() {
            printer.note(&format!("{app} has no timed jobs. Make one with dozen schedule:add."));
        }
        let row = |job: &CronJob| {
            vec![job.name.clone(), job.schedule.clone(), job.timezone.clone(), due(job), job.command.clone()]
        };
        printer.table(&jobs.iter().map(row).collect::<Vec<_>>())
    })
}

async fn pause(session: &Session, one: &One, paused: bool, printer: &mut Printer<'_>) -> Result<(), Error> {
    let body = serde_json::json!({ "paused": paused });
    tell(session.api.call(Method::PATCH, &one.path("")?, Some(&body)).await?, printer)
}

async fn history(session: &Session, one: &One, printer: &mut Printer<'_>) -> Result<(), Error> {
    let runs = session.api.get(&one.path("/runs")?).await?;
    show(runs, printer, |runs: Vec<CronRun>, printer| {
        if runs.is_empty() {
            printer.note(&format!("{} has not run yet.", one.job));
        }
        let row = |run: CronRun| {
            let exit = run.exit_status.map_or_else(String::new, |status| format!("exit {status}"));
            let lasted = run.duration_seconds.map_or_else(String::new, |seconds| format!("{seconds} s"));
            vec![run.dyno.name, run.scheduled_at, run.status, exit, lasted, run.cause, run.note.unwrap_or_default()]
        };
        printer.table(&runs.into_iter().map(row).collect::<Vec<_>>())
    })
}

async fn output(session: &Session, one: &One, run: Option<&str>, printer: &mut Printer<'_>) -> Result<(), Error> {
    let path = match run {
        Some(run) => one.path(&format!("/runs/{run}"))?,
        None => {
            #[derive(Deserialize)]
            struct Id {
                id: String,
            }
            let runs: Vec<Id> = session.api.get(&one.path("/runs")?).await?;
            let last = runs.first().ok_or_else(|| Error::Missing(format!("{} has not run yet", one.job)))?;
            one.path(&format!("/runs/{}", last.id))?
        }
    };
    let run: CronRun = session.api.get(&path).await?;
    let address = || client::Error::Address(run.output_stream_url.clone());
    let (stream, path) = session.promised(&run.output_stream_url)?;
    let request = http::Request::get(&path).header(header::ACCEPT, "text/plain").body(http_body_util::Full::default());
    let mut response = stream.send(request.map_err(|_| address())?).await?;
    if response.status() == http::StatusCode::NOT_FOUND {
        printer.note("This run has printed nothing.");
        return Ok(());
    }
    let mut partial = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        let wrong = |detail: String| client::Error::Answer { method: Method::GET, path: path.clone(), detail };
        let frame = frame.map_err(|error| wrong(error.to_string()))?;
        partial.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
        while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = partial.drain(..=end).collect();
            printed(&line[..end], printer)?;
        }
    }
    if partial.is_empty() { Ok(()) } else { printed(&partial, printer) }
}

fn printed(line: &[u8], printer: &mut Printer<'_>) -> Result<(), Error> {
    let line = String::from_utf8_lossy(line);
    if printer.is_json() { printer.json(&line) } else { printer.line(&line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_sent() {
        let settings = Settings {
            schedule: Some("@daily".to_owned()),
            name: None,
            timezone: None,
            size: None,
            overlap: Some("allow".to_owned()),
            missed: None,
        };
        assert_eq!(settings.body(None), serde_json::json!({ "schedule": "@daily", "overlap": "allow" }));
    }
}
