//! Apps: made, found, changed, removed. [`find`] is where access is decided.

use dozen_domain::{
    ids::{AppId, CollaboratorId, DomainId},
    name::AppName,
};
use serde::Deserialize;

use super::{Error, Result, releases};
use crate::{
    origin,
    state::Context,
    store::{
        self,
        accounts::Account,
        apps::App,
        collaborators::{Collaborator, Role},
        domains::Domain,
    },
};

/// The only stack: the machine's own system, under the name that buildpacks know.
pub const STACK: &str = "heroku-24";

/// The app with this name or id, if the account may do with it what `need` says.
///
/// # Errors
/// [`Error::NotFound`] when there is none, [`Error::Forbidden`] when the account has no part in it or too small a one
/// (as on Heroku, a stranger learns that the name is taken, which creating it would tell as well).
pub async fn find(context: &Context, account: &Account, identity: &str, need: Role) -> Result<App> {
    let mut db = context.store.read().await?;
    let found = match identity.parse::<AppId>() {
        Ok(id) => store::apps::by_id(&mut db, id).await?,
        Err(_) => store::apps::by_name(&mut db, identity).await?,
    };
    let app = found.ok_or(Error::NotFound("app"))?;
    match store::collaborators::role_of(&mut db, app.id, account.id).await? {
        Some(role) if role >= need => Ok(app),
        Some(_) => Err(Error::Forbidden(format!("Only the owner of {} can do that.", app.name))),
        None => Err(Error::Forbidden(format!("You do not have access to the app {}.", app.name))),
    }
}

/// What an app is made from.
#[derive(Debug, Default, Deserialize)]
pub struct New {
    /// Its name; one is made up if it is missing.
    pub name: Option<String>,
    /// Its stack; there is one.
    pub stack: Option<String>,
    /// Its region; there is one.
    pub region: Option<String>,
}

/// Makes an app with its first two releases.
///
/// # Errors
/// When the name is taken or breaks a rule, or stack or region do not exist.
pub async fn create(context: &Context, owner: &Account, new: New) -> Result<App> {
    super::stacks::check(new.stack.as_deref())?;
    super::regions::check(new.region.as_deref())?;
    let wished = new.name.map(AppName::try_from).transpose()?;
    let mut db = context.store.write().await?;
    let most = context.limits().apps_per_account;
    if store::apps::owned(&mut db, owner.id).await? >= most {
        return Err(Error::Invalid(format!("You've reached the limit of {most} apps for your account.")));
    }
    let now = context.now();
    let mut app = App {
        id: AppId::random(),
        name: wished.clone().map_or_else(random_name, Ok)?,
        owner: owner.id,
        owner_email: owner.email.clone(),
        acm: false,
        maintenance: false,
        build_stack: STACK.to_owned(),
        repo_size: None,
        slug_size: None,
        buildpack_description: None,
        released_at: None,
        created_at: now,
        updated_at: now,
    };
    while let Err(error) = store::apps::insert(&mut db, &app).await {
        match (error.is_taken(), &wished) {
            (true, None) => app.name = random_name()?,
            (true, Some(name)) => return Err(taken(name)),
            (false, _) => return Err(error.into()),
        }
    }
    let member = Collaborator {
        id: CollaboratorId::random(),
        app: app.id,
        account: owner.id,
        email: owner.email.clone(),
        role: Role::Owner,
        created_at: now,
        updated_at: now,
    };
    store::collaborators::insert(&mut db, &member).await?;
    let own = Domain {
        id: DomainId::random(),
        app: app.id,
        hostname: own_hostname(context, &app.name),
        custom: false,
        sni_endpoint: None,
        progress: None,
        created_at: now,
        updated_at: now,
    };
    store::domains::insert(&mut db, &own)
        .await
        .map_err(|error| if error.is_taken() { taken(&app.name) } else { error.into() })?;
    let first = releases::append(context, &mut db, app.id, owner, releases::Change::Initial).await?;
    let second = releases::append(context, &mut db, app.id, owner, releases::Change::EnableLogplex).await?;
    db.commit().await?;
    first.announce(context, owner);
    second.announce(context, owner);
    by_id(context, app.id).await
}

fn taken(name: &AppName) -> Error {
    Error::Invalid(format!("Name {name} is already taken"))
}

/// The app with this id, for somebody who has been let in already.
///
/// # Errors
/// When it is gone or the database fails.
pub async fn by_id(context: &Context, id: AppId) -> Result<App> {
    store::apps::by_id(&mut *context.store.read().await?, id).await?.ok_or(Error::NotFound("app"))
}

/// Apps that an account owns or works on, by name.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, account: &Account) -> Result<Vec<App>> {
    Ok(store::apps::of_account(&mut *context.store.read().await?, account.id).await?)
}

/// What may be changed of an app.
#[derive(Debug, Default, Deserialize)]
pub struct Change {
    /// Another name.
    pub name: Option<String>,
    /// Maintenance mode.
    pub maintenance: Option<bool>,
    /// Stack of the next build; there is one.
    pub build_stack: Option<String>,
}

/// Changes an app. A new name is for the owner alone.
///
/// # Errors
/// When the name is taken, breaks a rule or is not the account's to change, or the stack does not exist.
pub async fn update(context: &Context, account: &Account, identity: &str, change: Change) -> Result<App> {
    super::stacks::check(change.build_stack.as_deref())?;
    let need = if change.name.is_some() { Role::Owner } else { Role::Collaborator };
    let found = find(context, account, identity, need).await?;
    let name = change.name.map(AppName::try_from).transpose()?;
    let mut db = context.store.write().await?;
    // As it is now: another change may have come in between.
    let mut app = store::apps::by_id(&mut db, found.id).await?.ok_or(Error::NotFound("app"))?;
    app.maintenance = change.maintenance.unwrap_or(app.maintenance);
    app.name = name.unwrap_or(app.name);
    app.updated_at = context.now();
    let taken = |error: store::Error| if error.is_taken() { taken(&app.name) } else { error.into() };
    store::apps::update(&mut db, &app).await.map_err(taken)?;
    let hostname = own_hostname(context, &app.name);
    store::domains::rename_own(&mut db, app.id, &hostname, app.updated_at).await.map_err(taken)?;
    db.commit().await?;
    if let Some(on) = change.maintenance {
        let word = if on { "on" } else { "off" };
        context.log_api(app.id, format!("Maintenance mode {word} by user {}", account.email));
    }
    context.nudge.nudge(app.id);
    by_id(context, app.id).await
}

/// Removes an app: what runs, its releases, images, repository and log history.
///
/// The row goes first: a role that is killed half way finds what is left of it at its next start, by what has no row.
///
/// # Errors
/// When it is not the account's to remove, or the database fails.
pub async fn destroy(context: &Context, account: &Account, identity: &str) -> Result<App> {
    let app = find(context, account, identity, Role::Owner).await?;
    let mut db = context.store.write().await?;
    store::apps::delete(&mut db, app.id).await?;
    db.commit().await?;
    context.nudge.nudge(app.id);
    Ok(app)
}

/// The host name that every app has.
pub fn own_hostname(context: &Context, name: &AppName) -> String {
    format!("{name}.{}", context.settings.apps_domain.to_ascii_lowercase())
}

/// Where an app answers.
pub fn web_url(context: &Context, name: &AppName) -> String {
    let host = own_hostname(context, name);
    match context.settings.router_port {
        80 => format!("http://{host}/"),
        port => format!("http://{host}:{port}/"),
    }
}

/// Where an app is pushed to, for whoever asks.
pub fn git_url(context: &Context, name: &AppName) -> String {
    format!("https://{}/{name}.git", origin::git(&context.settings))
}

/// Where an app is pushed to, for the record.
pub fn repository(context: &Context, name: &AppName) -> String {
    format!("{}{name}.git", git_host(context))
}

/// What the addresses of all apps' repositories begin with.
pub fn git_host(context: &Context) -> String {
    format!("https://{}/", context.settings.git_host)
}

/// `adjective-noun-12345`, as Heroku makes them up.
pub(super) fn random_name() -> Result<AppName> {
    const ADJECTIVES: &[&str] = &[
        "agile", "ancient", "arctic", "autumn", "brave", "bright", "calm", "clear", "cold", "crisp", "dark", "dawn",
        "deep", "dry", "dusty", "early", "easy", "evening", "fading", "fast", "fresh", "gentle", "golden", "green",
        "hidden", "high", "icy", "late", "light", "little", "lively", "lone", "long", "lunar", "mellow", "misty",
        "morning", "mountain", "northern", "open", "pale", "patient", "placid", "plain", "polar", "proud", "quick",
        "quiet", "rapid", "rocky", "rough", "rustic", "serene", "shady", "sharp", "shiny", "silent", "silver",
        "sleepy", "small", "snowy", "soft", "solar", "southern", "spring", "steady", "still", "stormy", "summer",
        "sunny", "swift", "tall", "tidal", "tranquil", "vast", "warm", "wide", "wild", "windy", "winter", "wooden",
        "young",
    ];
    const NOUNS: &[&str] = &[
        "anchor", "bay", "beach", "birch", "bird", "breeze", "bridge", "brook", "canyon", "cedar", "cliff", "cloud",
        "coast", "coral", "cove", "creek", "crest", "delta", "dew", "dune", "dusk", "eagle", "falls", "fern", "field",
        "fjord", "fog", "forest", "frost", "garden", "glacier", "glade", "grove", "harbor", "haven", "hill", "island",
        "jungle", "lagoon", "lake", "leaf", "lichen", "maple", "marsh", "meadow", "mesa", "mist", "moon", "moss",
        "oak", "oasis", "ocean", "otter", "palm", "path", "peak", "pebble", "pine", "plain", "plateau", "pond",
        "prairie", "rain", "reef", "ridge", "river", "sand", "sea", "shore", "sky", "snow", "spire", "spruce", "star",
        "stone", "storm", "stream", "summit", "sun", "surf", "thicket", "tide", "trail", "tree", "valley", "wave",
        "willow", "wind", "wood",
    ];
    let pick = |words: &[&'static str]| words[fastrand::usize(..words.len())];
    let name = format!("{}-{}-{:05}", pick(ADJECTIVES), pick(NOUNS), fastrand::u32(..100_000));
    Ok(name.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_valid() {
        for _ in 0..1000 {
            random_name().expect("a valid name");
        }
    }
}
