//! Releases. [`create`] is the only way to make one, whoever asks: a deploy, a config change, a rollback.
//!
//! One transaction writes the row; nothing is run here. A release whose slug has a `release` process type is pending
//! until the release phase calls [`finish`]; the others succeed at once. The newest that succeeded is in force. The
//! app's config vars are those of its newest release, whatever became of it: a failed release phase undoes no
//! `config:set`, as on Heroku.

use std::collections::BTreeMap;

use dozen_api::clock::Micros;
use dozen_domain::{
    config::{Secret, Vars},
    formation::default_quantity,
    ids::{AppId, FormationId, ReleaseId, SlugId},
    name::{ConfigKey, ProcessType},
    release::{Cause, Status, Version},
    settings,
    size::Size,
};
use sqlx::SqliteConnection;

use super::{Error, Result, ledger};
use crate::{
    state::Context,
    store::{self, Window, accounts::Account, formation::Formation, releases::Release, slugs::Slug},
};

/// What a new release changes against the one before.
#[derive(Debug, Clone)]
pub enum Change {
    /// The app was made: no slug, no config vars.
    Initial,
    /// Its log stream was set up, right after.
    EnableLogplex,
    /// Another slug, with a description in place of `Deploy 2c3a0b2e`.
    Deploy {
        /// The slug; it must belong to the app and hold an image.
        slug: SlugId,
        /// What people said about it.
        description: Option<String>,
    },
    /// Config vars set (`Some`) or removed (`None`), in the order given.
    Config(Vec<(ConfigKey, Option<Secret>)>),
    /// Add-ons attached or detached; all that are attached then, as JSON.
    Attachments {
        /// All that are attached.
        attachments: String,
        /// What changed, in words.
        description: String,
    },
    /// Slug and config vars of an earlier release; add-ons stay as they are.
    Rollback(ReleaseId),
    /// The same by the platform itself, because the release in force does not come up. Its release phase has been
    /// through before and is not run again.
    Return {
        /// The release that still serves.
        to: ReleaseId,
        /// The one that does not come up.
        from: Version,
    },
}

/// Makes a release, logs it, and nudges the reconcilers. A config change that changes nothing makes none and answers
/// the newest there is.
///
/// # Errors
/// When app, slug or release do not exist or cannot be released, config vars break a rule, or the database fails.
pub async fn create(context: &Context, app: AppId, actor: &Account, change: Change) -> Result<Release> {
    let mut db = context.store.write().await?;
    let made = append(context, &mut db, app, actor, change).await?;
    db.commit().await?;
    made.announce(context, actor);
    Ok(made.release)
}

/// A release that [`append`] wrote, and what there is to say about it once the transaction is through.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) release: Release,
    fresh: bool,
    scaled: Vec<Formation>,
}

impl Made {
    /// Writes the `app[api]` lines and nudges.
    pub(super) fn announce(&self, context: &Context, actor: &Account) {
        if !self.fresh {
            return;
        }
        let (app, email) = (self.release.app, &actor.email);
        context.log_api(app, format!("{} by user {email}", self.release.description));
        context.log_api(app, format!("Release {} created by user {email}", self.release.version));
        log_scaled(context, app, &self.scaled, &format!("user {email}"));
        context.nudge.nudge(app);
    }
}

/// `Scaled to web@1:Basic worker@0:Basic by user …`; nothing for an empty list.
pub(super) fn log_scaled(context: &Context, app: AppId, formation: &[Formation], by: &str) {
    if formation.is_empty() {
        return;
    }
    let one = |entry: &Formation| format!("{}@{}:{}", entry.process_type, entry.quantity, entry.size);
    let all = formation.iter().map(one).collect::<Vec<_>>().join(" ");
    context.log_api(app, format!("Scaled to {all} by {by}"));
}

/// As [`create`], as a part of somebody's transaction; [`Made::announce`] comes after its commit.
pub(super) async fn append(
    context: &Context,
    db: &mut SqliteConnection,
    app: AppId,
    actor: &Account,
    change: Change,
) -> Result<Made> {
    let newest = store::releases::newest(db, app).await?;
    let base = store::releases::newest_not_failed(db, app).await?;
    let mut slug = base.as_ref().and_then(|release| release.slug);
    let mut vars = newest.as_ref().map_or_else(|| Ok(Vars::new()), |release| config(context, release))?;
    let mut attached = None;
    let returns = matches!(change, Change::Return { .. });
    let description = match change {
        Change::Initial => Cause::Initial.to_string(),
        Change::EnableLogplex => Cause::EnableLogplex.to_string(),
        Change::Deploy { slug: deployed, description } => {
            let found = deployable(db, app, deployed).await?;
            slug = Some(found.id);
            description.unwrap_or_else(|| Cause::Deploy { commit: found.commit }.to_string())
        }
        Change::Config(changes) => match change_config(context, &mut vars, changes)? {
            Some(cause) => cause.to_string(),
            None => {
                let release = newest.ok_or(Error::NotFound("release"))?;
                return Ok(Made { release, fresh: false, scaled: Vec::new() });
            }
        },
        Change::Attachments { attachments, description } => {
            attached = Some(attachments);
            description
        }
        Change::Rollback(to) => {
            let target = rollback_target(db, app, to).await?;
            vars = config(context, &target)?;
            slug = target.slug;
            Cause::Rollback { to: target.version }.to_string()
        }
        Change::Return { to, from } => {
            let target = rollback_target(db, app, to).await?;
            vars = config(context, &target)?;
            slug = target.slug;
            Cause::Return { to: target.version, from }.to_string()
        }
    };
    let slug = match slug {
        None => None,
        Some(slug) => store::slugs::by_id(db, slug).await?,
    };
    let mut release = row(context, app, actor, newest.as_ref(), slug.as_ref(), description);
    if let Some(attached) = attached {
        release.attachments = attached;
    }
    release.config = context.keys.config.seal(release.id.to_string().as_bytes(), &to_json(&vars)?);
    release.hash = ledger::hash(&release);
    store::releases::append(db, &release).await?;
    store::apps::touch(db, app, release.created_at).await?;
    let mut scaled = Vec::new();
    if !release.has_release_phase || returns {
        store::releases::finish(db, release.id, true, release.created_at).await?;
        scaled = sync_formation(db, app, slug.as_ref(), release.created_at).await?;
    }
    let release = store::releases::by_id(db, release.id).await?.ok_or(Error::NotFound("release"))?;
    Ok(Made { release, fresh: true, scaled })
}

fn row(
    context: &Context,
    app: AppId,
    actor: &Account,
    newest: Option<&Release>,
    slug: Option<&Slug>,
    description: String,
) -> Release {
    let formation: BTreeMap<String, u32> = slug
        .iter()
        .flat_map(|slug| &slug.process_types)
        .filter(|(process_type, _)| !process_type.is_release())
        .map(|(process_type, _)| (process_type.to_string(), default_quantity(process_type)))
        .collect();
    let now = context.now();
    Release {
        id: ReleaseId::random(),
        app,
        version: Version(newest.map_or(0, |release| release.version.0) + 1),
        description,
        account: actor.id,
        email: actor.email.clone(),
        slug: slug.map(|slug| slug.id),
        config: Vec::new(),
        attachments: newest.map_or_else(|| "[]".to_owned(), |release| release.attachments.clone()),
        formation: serde_json::json!(formation).to_string(),
        created_at: now,
        previous_hash: newest.map_or_else(|| ledger::GENESIS.to_vec(), |release| release.hash.clone()),
        hash: Vec::new(),
        status: Status::Pending,
        updated_at: now,
        current: false,
        slug_kept: slug.is_some(),
        has_release_phase: slug
            .is_some_and(|slug| slug.process_types.iter().any(|(process_type, _)| process_type.is_release())),
    }
}

async fn deployable(db: &mut SqliteConnection, app: AppId, slug: SlugId) -> Result<Slug> {
    let found = store::slugs::by_id(db, slug).await?.filter(|slug| slug.app == app).ok_or(Error::NotFound("slug"))?;
    if found.image.is_none() || found.deleted_at.is_some() {
        let why = if found.deleted_at.is_some() {
            "was removed to save space. Create another one in its place."
        } else {
            "has no blob yet. PUT its archive to the blob.url that the slug's info gives, then release it."
        };
        return Err(Error::Invalid(format!("Slug {slug} {why}")));
    }
    Ok(found)
}

async fn rollback_target(db: &mut SqliteConnection, app: AppId, to: ReleaseId) -> Result<Release> {
    let target = store::releases::by_id(db, to).await?.filter(|release| release.app == app);
    let target = target.ok_or(Error::NotFound("release"))?;
    let why = match (target.status, target.slug, target.slug_kept) {
        (Status::Succeeded, Some(_), true) => return Ok(target),
        (Status::Succeeded, Some(_), false) => "its slug was removed to save space",
        (Status::Succeeded, None, _) => "it has no code",
        (Status::Pending, ..) => "its release phase has not ended",
        (Status::Failed, ..) => "it failed",
    };
    Err(Error::Invalid(format!("Cannot roll back to {}: {why}.", target.version)))
}

/// Applies changes to config vars; `None` when nothing is different afterwards.
fn change_config(
    context: &Context,
    vars: &mut Vars,
    changes: Vec<(ConfigKey, Option<Secret>)>,
) -> Result<Option<Cause>> {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for (key, value) in changes {
        let key = key.as_str();
        match value {
            Some(value) if vars.get(key) != Some(&value) => {
                settings::check(key, value.expose(), context.limits())?;
                vars.insert(key.to_owned(), value);
                set.push(key.to_owned());
            }
            None if vars.remove(key).is_some() => removed.push(key.to_owned()),
            _ => {}
        }
    }
    let bytes: usize = vars.iter().map(|(key, value)| key.len() + value.expose().len()).sum();
    let most = context.limits().config_bytes;
    if bytes as u64 > most && !set.is_empty() {
        return Err(Error::Invalid(format!("Config vars are limited to {most} bytes for an app; these are {bytes}.")));
    }
    let changed = !set.is_empty() || !removed.is_empty();
    Ok(changed.then_some(Cause::Config { set, removed }))
}

fn to_json(vars: &Vars) -> Result<Vec<u8>> {
    serde_json::to_vec(vars).map_err(|error| Error::platform("write config vars", error))
}

/// The config vars of a release, unsealed.
///
/// # Errors
/// When they were not sealed with this data directory's key.
pub fn config(context: &Context, release: &Release) -> Result<Vars> {
    let plain = context.keys.config.open(release.id.to_string().as_bytes(), &release.config);
    let plain = plain.map_err(store::Error::Sealed)?;
    serde_json::from_slice(&plain).map_err(|error| Error::platform("read config vars", error))
}

/// Records how a pending release ended. Asking twice changes nothing: the first answer stays.
///
/// # Errors
/// When there is no such release or the database fails.
pub async fn finish(context: &Context, release: ReleaseId, succeeded: bool) -> Result<Release> {
    let mut db = context.store.write().await?;
    let before = store::releases::by_id(&mut db, release).await?.ok_or(Error::NotFound("release"))?;
    if before.status != Status::Pending {
        return Ok(before);
    }
    store::releases::finish(&mut db, release, succeeded, context.now()).await?;
    let after = store::releases::by_id(&mut db, release).await?.ok_or(Error::NotFound("release"))?;
    let mut scaled = Vec::new();
    if let (true, Some(slug)) = (after.current, after.slug) {
        let slug = store::slugs::by_id(&mut db, slug).await?;
        scaled = sync_formation(&mut db, after.app, slug.as_ref(), context.now()).await?;
    }
    db.commit().await?;
    log_scaled(context, after.app, &scaled, &format!("user {}", after.email));
    context.nudge.nudge(after.app);
    Ok(after)
}

/// The part of an app's formation that runs dynos and whose process types a slug has not: they end with its release.
pub(super) async fn lost(db: &mut SqliteConnection, slug: &Slug) -> Result<Vec<Formation>> {
    let mut lost = store::formation::of_app(db, slug.app).await?;
    lost.retain(|entry| entry.quantity > 0 && slug.process_types.iter().all(|(name, _)| *name != entry.process_type));
    Ok(lost)
}

/// Makes the formation list exactly the slug's process types; answers those that are new, and with a quantity of 0 those
/// that ran dynos and are gone. `release` is among them, as on Heroku, and stays at 0: clients see by it that there is a
/// release phase.
async fn sync_formation(
    db: &mut SqliteConnection,
    app: AppId,
    slug: Option<&Slug>,
    now: Micros,
) -> Result<Vec<Formation>> {
    let Some(slug) = slug else { return Ok(Vec::new()) };
    let types: Vec<&ProcessType> = slug.process_types.iter().map(|(process_type, _)| process_type).collect();
    let mut changed: Vec<Formation> =
        lost(db, slug).await?.into_iter().map(|gone| Formation { quantity: 0, ..gone }).collect();
    let have = store::formation::of_app(db, app).await?;
    for gone in have.iter().filter(|entry| !types.contains(&&entry.process_type)) {
        store::formation::delete(db, gone.id).await?;
    }
    for process_type in types {
        if have.iter().any(|entry| entry.process_type == *process_type) {
            continue;
        }
        let formation = Formation {
            id: FormationId::random(),
            app,
            process_type: process_type.clone(),
            quantity: default_quantity(process_type),
            size: Size::Basic,
            created_at: now,
            updated_at: now,
        };
        store::formation::put(db, &formation).await?;
        changed.push(formation);
    }
    Ok(changed)
}

/// A part of an app's releases.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: AppId, window: &Window) -> Result<Vec<Release>> {
    Ok(store::releases::window(&mut *context.store.read().await?, app, window).await?)
}

/// An app's release by id, number (`12`, `v12`) or `current`.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: AppId, identity: &str) -> Result<Release> {
    let mut db = context.store.read().await?;
    let found = if let Ok(id) = identity.parse::<ReleaseId>() {
        store::releases::by_id(&mut db, id).await?.filter(|release| release.app == app)
    } else if identity == "current" {
        store::releases::current(&mut db, app).await?
    } else if let Ok(version) = identity.parse::<Version>() {
        store::releases::by_version(&mut db, app, version).await?
    } else {
        None
    };
    found.ok_or(Error::NotFound("release"))
}
