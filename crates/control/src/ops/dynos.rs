//! Dynos: what runs, restarting and stopping it, detached one-offs.

use std::{collections::HashMap, time::Duration};

use dozen_api::engine::{Dyno, OneOff, Selector};
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

use super::{Error, Result, environment, number};
use crate::{
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
    /// One by name or id.
    One(&'a str),
}

async fn select(context: &Context, app: &App, which: Which<'_>) -> Result<Selector> {
    Ok(match which {
        Which::All => Selector::All,
        Which::Type(name) => Selector::Type(super::formation::find(context, app, name).await?.formation.process_type),
        Which::One(identity) => Selector::Dyno(find(context, app, identity).await?.dyno.name),
    })
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
    /// Variables over the app's.
    #[serde(default)]
    pub env: serde_json::Map<String, Value>,
    /// A size's name.
    pub size: Option<String>,
    /// First part of its name, `run` when missing.
    #[serde(rename = "type")]
    pub process_type: Option<String>,
    /// Seconds after which it is stopped.
    #[serde(default, deserialize_with = "number::lenient")]
    pub time_to_live: Option<i64>,
}

/// Starts a detached one-off dyno.
///
/// # Errors
/// When nothing was deployed yet, too many run already, or the request breaks a rule.
pub async fn run(context: &Context, app: &App, actor: &Account, new: New) -> Result<Running> {
    if new.attach == Some(true) {
        return Err(Error::invalid(
            "Attaching to a one-off dyno is not possible here. Use heroku run:detached and read its output with heroku logs.",
        ));
    }
    let most = context.limits().one_offs_per_app;
    let one_offs = context.engine.dynos(app.id);
    let formation = super::formation::list(context, app).await?;
    // By number too: a one-off may have the type of one of the formation's.
    let planned = |dyno: &Dyno| {
        let of_type = formation.iter().find(|entry| entry.formation.process_type == *dyno.name.process_type());
        of_type.is_some_and(|entry| dyno.name.number() <= entry.formation.quantity)
    };
    let is_one_off = |dyno: &&Dyno| dyno.state.is_live() && !planned(dyno);
    if one_offs.iter().filter(is_one_off).count() as u64 >= most {
        return Err(Error::Invalid(format!("Cannot run more than {most} one-off dynos of an app at the same time.")));
    }
    let mut db = context.store.read().await?;
    let nothing = || Error::invalid("Nothing was deployed to this app yet. Use git push heroku main.");
    let release = store::releases::current(&mut db, app.id).await?.ok_or_else(nothing)?;
    let slug = store::slugs::by_id(&mut db, release.slug.ok_or_else(nothing)?).await?.ok_or_else(nothing)?;
    drop(db);
    let mut env = environment::of(context, app, &release, &slug)?;
    for (key, value) in &new.env {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        env.insert(key.clone(), Secret::new(value));
    }
    let one_off = OneOff {
        dyno: DynoId::random(),
        app: app.id,
        app_name: app.name.clone(),
        name: free_name(&one_offs, new.process_type.as_deref())?,
        version: release.version,
        image: slug.image.clone().ok_or_else(nothing)?,
        env,
        command: expand(&new.command, &slug.process_types)?,
        size: new.size.as_deref().map_or(Ok(Size::Basic), str::parse)?,
        time_to_live: new.time_to_live.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        attach: None,
        logged: true,
    };
    context.log_api(app.id, format!("Starting process with command `{}` by user {}", one_off.command, actor.email));
    let dyno = context.engine.run(one_off).await?;
    Ok(Running { dyno, release: Some(release.id) })
}

/// `heroku run worker --quiet` runs the Procfile's `worker` with the argument added.
fn expand(command: &str, types: &[(ProcessType, String)]) -> Result<String> {
    let command = command.trim();
    if command.is_empty() {
        return Err(Error::invalid("Command must not be empty."));
    }
    let (first, rest) = command.split_once(' ').unwrap_or((command, ""));
    let found = types.iter().find(|(name, _)| name.as_str() == first && !name.is_release());
    Ok(found.map_or_else(|| command.to_owned(), |(_, own)| format!("{own} {rest}").trim_end().to_owned()))
}

/// `run.4711`: four random digits, not in use.
fn free_name(dynos: &[Dyno], process_type: Option<&str>) -> Result<DynoName> {
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
        let check = |command: &str, expected: &str| assert_eq!(expand(command, &types).expect(command), expected);
        check("worker", "python worker.py");
        check("worker --once", "python worker.py --once");
        check("workers", "workers");
        check("bash", "bash");
        assert!(expand("  ", &types).is_err());
    }
}
