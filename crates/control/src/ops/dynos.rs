//! Dynos: what runs, restarting and stopping it, one-offs, commands inside dynos.

use std::{collections::HashMap, time::Duration};

use dozen_api::engine::{Attach, Dyno, Inside, OneOff, Program, Selector};
use dozen_domain::{
    config::Secret,
    dyno::State,
    ids::{DynoId, ReleaseId},
    name::{DynoName, ProcessType},
    release::Version,
    size::Size,
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Result, environment, number::Written};
use crate::{
    origin,
    sessions::{
        About, Pending,
        secret::{self, Grant},
    },
    state::Context,
    store::{self, accounts::Account, apps::App},
};

/// A dyno with the id of its release.
#[derive(Debug, Clone)]
pub struct Running {
    /// The dyno.
    pub dyno: Dyno,
    /// The release of its version.
    pub release: Option<ReleaseId>,
}

/// An app's dynos, by name. A one-off that has ended is not listed, nor one that is being replaced.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<Running>> {
    let dynos = context.engine.dynos(app.id);
    let going = |dyno: &Dyno| matches!(dyno.state, State::Stopping { .. });
    let replaced = |dyno: &Dyno| going(dyno) && dynos.iter().any(|other| other.name == dyno.name && !going(other));
    let shown = dynos.iter().filter(|dyno| !matches!(dyno.state, State::Complete { .. }) && !replaced(dyno));
    let shown: Vec<Dyno> = shown.cloned().collect();
    let mut releases: HashMap<Version, Option<ReleaseId>> = HashMap::new();
    let mut db = context.store.read().await?;
    for version in shown.iter().map(|dyno| dyno.version) {
        if let std::collections::hash_map::Entry::Vacant(entry) = releases.entry(version) {
            entry.insert(store::releases::by_version(&mut db, app.id, version).await?.map(|release| release.id));
        }
    }
    let release = |version: Version| releases.get(&version).copied().flatten();
    Ok(shown.into_iter().map(|dyno| Running { release: release(dyno.version), dyno }).collect())
}

/// One dyno by name or id.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<Running> {
    let is = |dyno: &Dyno| dyno.name.to_string() == identity || dyno.id.to_string() == identity;
    let found = list(context, app).await?.into_iter().find(|running| is(&running.dyno));
    found.ok_or(Error::NotFound("dyno"))
}

/// Which dynos a request means.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All of the formation.
    All,
    /// Those of a process type.
    Type(&'a str),
    /// One by name or id; the name of a process type stands for all of its dynos, as in `heroku ps:restart web`.
    One(&'a str),
}

async fn select(context: &Context, app: &App, which: Which<'_>) -> Result<Selector> {
    Ok(match which {
        Which::All => Selector::All,
        Which::Type(name) => Selector::Type(super::formation::find(context, app, name).await?.formation.process_type),
        Which::One(identity) => match find(context, app, identity).await {
            Ok(running) => Selector::Dyno(running.dyno.name),
            Err(Error::NotFound(_)) => of_type(context, app, identity).await?,
            Err(error) => return Err(error),
        },
    })
}

/// The dynos of a process type that somebody named where a dyno is expected.
async fn of_type(context: &Context, app: &App, name: &str) -> Result<Selector> {
    match super::formation::find(context, app, name).await {
        Ok(entry) => Ok(Selector::Type(entry.formation.process_type)),
        Err(Error::NotFoundBecause { .. }) => Err(Error::NotFound("dyno")),
        Err(error) => Err(error),
    }
}

/// Replaces dynos by new ones.
///
/// # Errors
/// When there is no such dyno or process type, or the engine fails.
pub async fn restart(context: &Context, app: &App, which: Which<'_>) -> Result<()> {
    let selector = select(context, app, which).await?;
    context.engine.restart(app.id, selector).await?;
    Ok(())
}

/// Stops dynos. Those of the formation come back, as on Heroku.
///
/// # Errors
/// When there is no such dyno or process type, or the engine fails.
pub async fn stop(context: &Context, app: &App, which: Which<'_>) -> Result<()> {
    let selector = select(context, app, which).await?;
    context.engine.stop(app.id, selector).await?;
    Ok(())
}

/// A one-off dyno as a client asks for it.
#[derive(Debug, Default, Deserialize)]
pub struct New {
    /// Its command, run by a shell; the name of a process type stands for that type's command.
    pub command: String,
    /// Whether a client will attach.
    pub attach: Option<bool>,
    /// Whether it is to have no terminal though its client has one.
    pub force_no_tty: Option<bool>,
    /// Variables over the app's.
    #[serde(default)]
    pub env: serde_json::Map<String, Value>,
    /// A size's name.
    pub size: Option<String>,
    /// First part of its name, `run` when missing.
    #[serde(rename = "type")]
    pub process_type: Option<String>,
    /// Seconds after which it is stopped.
    #[serde(default)]
    pub time_to_live: Written,
}

/// A one-off that was started.
#[derive(Debug)]
pub struct Started {
    /// It.
    pub running: Running,
    /// Where its client attaches, if one is to.
    pub attach_url: Option<String>,
}

/// Starts a one-off dyno.
///
/// # Errors
/// When nothing was deployed yet, too many run already, or the request breaks a rule.
pub async fn run(context: &Context, app: &App, actor: &Account, new: New) -> Result<Started> {
    let size = new.size.as_deref().map_or(Ok(Size::Basic), str::parse)?;
    let time_to_live = new.time_to_live.whole("time_to_live")?.and_then(|seconds| u64::try_from(seconds).ok());
    let one_offs = context.engine.dynos(app.id);
    check_count(context, app, &one_offs, size).await?;
    let mut db = context.store.read().await?;
    let nothing = || Error::invalid("Nothing was deployed to this app yet. Use git push heroku main.");
    let release = store::releases::current(&mut db, app.id).await?.ok_or_else(nothing)?;
    let slug = store::slugs::by_id(&mut db, release.slug.ok_or_else(nothing)?).await?.ok_or_else(nothing)?;
    drop(db);
    let mut env = environment::of(context, app, &release, &slug)?;
    env.extend(variables(&new.env).map(|(key, value)| (key, Secret::new(value))));
    let attach = new.attach.unwrap_or(false).then(|| new.streams());
    let one_off = OneOff {
        dyno: DynoId::random(),
        app: app.id,
        app_name: app.name.clone(),
        name: free_name(&one_offs, new.process_type.as_deref())?,
        version: release.version,
        image: slug.image.clone().ok_or_else(nothing)?,
        env,
        command: expand(&new.command, &slug.process_types, context.limits().command_bytes)?,
        size,
        time_to_live: time_to_live.map(Duration::from_secs),
        attach,
        logged: attach.is_none(),
    };
    let grant = attach.map(|attach| Grant {
        id: one_off.dyno.0,
        inside: false,
        terminal: matches!(attach, Attach::Terminal { .. }),
        marked: one_off.command.contains(MARK),
    });
    context.log_api(app.id, format!("Starting process with command `{}` by user {}", one_off.command, actor.email));
    let dyno = context.engine.run(one_off).await?;
    let attach_url = grant.map(|grant| attach_url(context, grant));
    Ok(Started { running: Running { dyno, release: Some(release.id) }, attach_url })
}

/// Has a command run inside a running dyno as soon as its client attaches.
///
/// # Errors
/// When there is no such dyno, it is not up, or the request breaks a rule.
pub async fn run_inside(context: &Context, app: &App, actor: &Account, identity: &str, new: New) -> Result<Started> {
    let running = find(context, app, identity).await?;
    let name = running.dyno.name.to_string();
    if !matches!(running.dyno.state, State::Up { .. }) {
        return Err(Error::Conflict(format!(
            "{name} is not up but {}. Try again when it is.",
            running.dyno.state.word()
        )));
    }
    let types = match running.release {
        Some(release) => process_types(context, release).await?,
        None => Vec::new(),
    };
    let command = expand(&new.command, &types, context.limits().command_bytes)?;
    let attach = new.streams();
    let grant = Grant {
        id: Uuid::new_v4(),
        inside: true,
        terminal: matches!(attach, Attach::Terminal { .. }),
        marked: command.contains(MARK),
    };
    let now = context.now();
    let wait = i64::try_from(context.limits().attach_wait_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let env = variables(&new.env).collect();
    let pending = Pending {
        dyno: running.dyno.id,
        inside: Inside { program: Program::Command(command), env, attach, separate_errors: false },
        about: About { app: app.id, dyno: name, email: actor.email.clone(), what: "run:inside".to_owned() },
        until: now.saturating_add(wait),
    };
    context.sessions.expect(grant.id, pending, now);
    let attach_url = Some(attach_url(context, grant));
    Ok(Started { running, attach_url })
}

async fn process_types(context: &Context, release: ReleaseId) -> Result<Vec<(ProcessType, String)>> {
    let mut db = context.store.read().await?;
    let slug = store::releases::by_id(&mut db, release).await?.and_then(|release| release.slug);
    let Some(slug) = slug else { return Ok(Vec::new()) };
    Ok(store::slugs::by_id(&mut db, slug).await?.map(|slug| slug.process_types).unwrap_or_default())
}

fn attach_url(context: &Context, grant: Grant) -> String {
    let host = origin::tls(&context.settings);
    format!("rendezvous://{host}/{}", secret::issue(&context.keys.ticket, grant))
}

/// Refuses one more than the limit of its class of sizes (Dev Center: dyno scaling and process limits).
async fn check_count(context: &Context, app: &App, dynos: &[Dyno], size: Size) -> Result<()> {
    let limits = context.limits();
    let class = |size: Size| match size {
        Size::Eco => ("Eco ", limits.one_offs_eco_per_app),
        Size::Basic | Size::Standard1X | Size::Standard2X => ("", limits.one_offs_per_app),
        _ => ("Performance ", limits.one_offs_performance_per_app),
    };
    let (word, most) = class(size);
    let formation = super::formation::list(context, app).await?;
    // By number too: a one-off may have the type of one of the formation's.
    let planned = |dyno: &Dyno| {
        let of_type = formation.iter().find(|entry| entry.formation.process_type == *dyno.name.process_type());
        of_type.is_some_and(|entry| dyno.name.number() <= entry.formation.quantity)
    };
    let counts = |dyno: &&Dyno| dyno.state.is_live() && !planned(dyno) && class(dyno.size).0 == word;
    if dynos.iter().filter(counts).count() as u64 >= most {
        return Err(Error::Invalid(format!(
            "Cannot run more than {most} {word}one-off dynos of an app at the same time. Wait for one to end, or stop \
             one with heroku ps:stop."
        )));
    }
    Ok(())
}

/// What the official client prints its command's exit status after.
const MARK: char = '\u{FFFF}';

impl New {
    /// What its standard streams are: a terminal when its client has one.
    fn streams(&self) -> Attach {
        let number = |key: &str| {
            let value = self.env.get(key)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok()).and_then(|number| u16::try_from(number).ok())
        };
        match (number("COLUMNS"), number("LINES")) {
            (Some(columns), Some(rows)) if self.force_no_tty != Some(true) => {
                // A client that does not know says 0.
                let or = |number: u16, usual: u16| if number == 0 { usual } else { number };
                Attach::Terminal { columns: or(columns, 80), rows: or(rows, 24) }
            }
            _ => Attach::Pipes,
        }
    }
}

fn variables(env: &serde_json::Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    env.iter().filter(|(_, value)| !value.is_null()).map(move |(key, value)| (key.clone(), text(value)))
}

/// `heroku run worker --quiet` runs the Procfile's `worker` with the argument added.
pub(crate) fn expand(command: &str, types: &[(ProcessType, String)], most: u64) -> Result<String> {
    let command = command.trim();
    if command.len() as u64 > most {
        return Err(Error::Invalid(format!(
            "The command is {} bytes long; at most {most} are possible. Put it into a file of the app, or send it to the \
             standard input of bash.",
            command.len()
        )));
    }
    if command.contains('\0') {
        return Err(Error::invalid("The command holds a NUL byte."));
    }
    if command.is_empty() {
        return Err(Error::invalid("Command must not be empty."));
    }
    let (first, rest) = command.split_once(' ').unwrap_or((command, ""));
    let found = types.iter().find(|(name, _)| name.as_str() == first && !name.is_release());
    Ok(found.map_or_else(|| command.to_owned(), |(_, own)| format!("{own} {rest}").trim_end().to_owned()))
}

/// `run.4711`: four random digits, not in use.
pub(crate) fn free_name(dynos: &[Dyno], process_type: Option<&str>) -> Result<DynoName> {
    let process_type: ProcessType = process_type.unwrap_or("run").parse()?;
    loop {
        let name = DynoName::new(process_type.clone(), fastrand::u32(1000..10_000));
        if !dynos.iter().any(|dyno| dyno.name == name) {
            return Ok(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_type_stands_for_its_command() {
        let types = [("worker".parse().expect("a type"), "python worker.py".to_owned())];
        let check = |command: &str, expected: &str| assert_eq!(expand(command, &types, 100).expect(command), expected);
        check("worker", "python worker.py");
        check("worker --once", "python worker.py --once");
        check("workers", "workers");
        check("bash", "bash");
        assert!(expand("  ", &types, 100).is_err());
        assert!(expand(&"x".repeat(101), &types, 100).is_err());
    }
}
