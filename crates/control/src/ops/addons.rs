//! Add-ons: the platform's own services under the names by which people add them. There is one, `scheduler`, which lets
//! `heroku addons:create scheduler` say what it says elsewhere; jobs can be made without it too ([`super::cron_jobs`]).
//!
//! Adding and removing one is a release, as everything is that changes what an app is made of.

use dozen_domain::ids::{AddonAttachmentId, AddonId};
use serde::Deserialize;

use super::{Error, Result, apps, cron_jobs, releases};
use crate::{
    state::Context,
    store::{self, accounts::Account, addons::Addon, apps::App},
};

/// A plan of a service; what it costs is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// `service:plan`
    pub name: &'static str,
    /// The service's name.
    pub service: &'static str,
    /// The service's name for people.
    pub service_title: &'static str,
    /// The plan's name for people.
    pub title: &'static str,
    /// In words.
    pub description: &'static str,
    /// What is said when it was added.
    pub message: &'static str,
}

/// Every plan of every service.
pub const PLANS: &[Plan] = &[Plan {
    name: "scheduler:standard",
    service: "scheduler",
    service_title: "Dozen Scheduler",
    title: "Standard",
    description: "Runs jobs at their times",
    message: "Make jobs with dozen schedule:add, or under \"cron\" in app.json.",
}];

/// What an add-on is to be.
#[derive(Debug, Deserialize)]
pub struct New {
    /// Plan or service, by name.
    pub plan: Which,
    /// Its name; one is made up if none is given.
    pub name: Option<String>,
    /// Its attachment.
    pub attachment: Option<Attachment>,
}

/// A plan by its name, as the schema and the official client have it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Which {
    /// `"scheduler"`
    Name(String),
    /// `{"name": "scheduler"}`
    Named {
        /// The name.
        name: String,
    },
}

/// What an attachment is to be.
#[derive(Debug, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub name: Option<String>,
}

/// The plan of this name; that of a service is its first.
///
/// # Errors
/// When there is none.
pub fn plan(name: &str) -> Result<&'static Plan> {
    let found = PLANS.iter().find(|plan| plan.name == name || plan.service == name);
    found.ok_or_else(|| Error::NotFoundBecause {
        resource: if name.contains(':') { "plan" } else { "addon_service" },
        message: format!(
            "Couldn't find that {}: this platform has {}.",
            if name.contains(':') { "plan" } else { "add-on service" },
            PLANS.iter().map(|plan| plan.name).collect::<Vec<_>>().join(", ")
        ),
    })
}

/// An app's add-ons by name.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<Addon>> {
    Ok(store::addons::of_app(&mut *context.store.read().await?, app.id).await?)
}

/// The add-ons of all of an account's apps, each with its app.
///
/// # Errors
/// When the database fails.
pub async fn of_account(context: &Context, account: &Account) -> Result<Vec<(Addon, App)>> {
    let apps = apps::list(context, account).await?;
    let mut db = context.store.read().await?;
    let mut all = Vec::new();
    for app in apps {
        all.extend(store::addons::of_app(&mut db, app.id).await?.into_iter().map(|addon| (addon, app.clone())));
    }
    Ok(all)
}

/// Whether this is what an add-on is called: its id or name, its attachment's, or, within its app, its service's.
pub fn is_called(addon: &Addon, app: &App, identity: &str, within: bool) -> bool {
    let scoped = identity.split_once("::").filter(|(name, _)| app.name.to_string() == *name);
    let (within, identity) = scoped.map_or((within, identity), |(_, rest)| (true, rest));
    let service = addon.plan.split(':').next().unwrap_or_default();
    addon.name == identity
        || addon.id.to_string() == identity
        || addon.attachment_id.to_string() == identity
        || within && (addon.attachment.eq_ignore_ascii_case(identity) || addon.plan == identity || service == identity)
}

/// One of an app's add-ons, whatever it is called by.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<Addon> {
    let all = list(context, app).await?;
    all.into_iter().find(|addon| is_called(addon, app, identity, true)).ok_or(Error::NotFound("add_on"))
}

/// One of an account's add-ons by id or name, and its app.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find_anywhere(context: &Context, account: &Account, identity: &str) -> Result<(Addon, App)> {
    let all = of_account(context, account).await?;
    all.into_iter().find(|(addon, app)| is_called(addon, app, identity, false)).ok_or(Error::NotFound("add_on"))
}

/// Adds one to an app.
///
/// # Errors
/// When there is no such plan, the app has one already, a name is taken or none, or the database fails.
pub async fn create(context: &Context, app: &App, actor: &Account, new: New) -> Result<Addon> {
    let (Which::Name(name) | Which::Named { name }) = &new.plan;
    let plan = plan(name)?;
    let made_up = apps::random_name()?;
    let name = match new.name {
        Some(name) if is_name(&name) => name,
        Some(name) => {
            return Err(Error::Invalid(format!("{name:?} is no name of an add-on: letters, digits, - and _.")));
        }
        None => format!("{}-{made_up}", plan.service),
    };
    let wished = new.attachment.and_then(|attachment| attachment.name);
    let attachment = wished.unwrap_or_else(|| plan.service.to_owned()).to_ascii_uppercase().replace('-', "_");
    if !is_name(&attachment) || attachment.contains('-') {
        return Err(Error::invalid("The name of an attachment is letters, digits and _."));
    }
    let now = context.now();
    let addon = Addon {
        id: AddonId::random(),
        app: app.id,
        name,
        plan: plan.name.to_owned(),
        attachment_id: AddonAttachmentId::random(),
        attachment,
        created_at: now,
        updated_at: now,
    };
    let mut db = context.store.write().await?;
    if store::addons::of_app(&mut db, app.id).await?.iter().any(|other| other.plan == addon.plan) {
        return Err(Error::Invalid(format!("The {} add-on is installed already, and once is enough.", plan.service)));
    }
    match store::addons::put(&mut db, &addon).await {
        Err(error) if error.is_taken() => {
            return Err(Error::Invalid(format!("The name {} is taken. Give another one with --name.", addon.name)));
        }
        done => done?,
    }
    let made = release(context, &mut db, &addon, actor, "Attach").await?;
    db.commit().await?;
    made.announce(context, actor);
    Ok(addon)
}

/// `^[a-zA-Z][A-Za-z0-9_-]+$`
fn is_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

async fn release(
    context: &Context,
    db: &mut sqlx::SqliteConnection,
    addon: &Addon,
    actor: &Account,
    verb: &str,
) -> Result<releases::Made> {
    let description = format!("{verb} {} (@ref:{})", addon.attachment, addon.name);
    let attachments = store::addons::of_app(db, addon.app).await?;
    let attached = |one: &Addon| serde_json::json!({ "addon": one.id, "name": one.attachment, "plan": one.plan });
    let attachments = attachments.iter().map(attached).collect::<Vec<_>>();
    let change = releases::Change::Attachments { attachments: serde_json::json!(attachments).to_string(), description };
    releases::append(context, db, addon.app, actor, change).await
}

/// Names of the plans in a release's attachments.
pub fn plan_names(attachments: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Attached {
        plan: String,
    }
    let attached: Vec<Attached> = serde_json::from_str(attachments).unwrap_or_default();
    attached.into_iter().map(|one| one.plan).collect()
}

/// Removes one, and what it was for: the jobs that people made. Those of `app.json` stay with the code.
///
/// # Errors
/// When there is none or the database fails.
pub async fn remove(context: &Context, app: &App, actor: &Account, identity: &str) -> Result<Addon> {
    let addon = find(context, app, identity).await?;
    let mut db = context.store.write().await?;
    store::addons::delete(&mut db, addon.id).await?;
    let runs = cron_jobs::clear(&mut db, app.id).await?;
    let made = release(context, &mut db, &addon, actor, "Detach").await?;
    db.commit().await?;
    cron_jobs::cleared(context, &runs);
    made.announce(context, actor);
    Ok(addon)
}

/// What may be changed of an add-on.
#[derive(Debug, Default, Deserialize)]
pub struct Change {
    /// Another name.
    pub name: Option<String>,
    /// Another plan of the same service; there is one of each.
    pub plan: Option<Which>,
}

/// Changes one.
///
/// # Errors
/// When there is none, there is no such plan, the name is none or taken, or the database fails.
pub async fn update(context: &Context, app: &App, identity: &str, change: Change) -> Result<Addon> {
    let addon = find(context, app, identity).await?;
    if let Some(Which::Name(wanted) | Which::Named { name: wanted }) = &change.plan
        && plan(wanted)?.name != addon.plan
    {
        return Err(Error::Invalid(format!("{} cannot become {wanted}: that is another service.", addon.plan)));
    }
    match change.name {
        Some(name) => rename(context, addon, name).await,
        None => Ok(addon),
    }
}

/// One of an app's attachments, by name or id.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find_attachment(context: &Context, app: &App, identity: &str) -> Result<Addon> {
    let is = |one: &Addon| one.attachment.eq_ignore_ascii_case(identity) || one.attachment_id.to_string() == identity;
    list(context, app).await?.into_iter().find(is).ok_or(Error::NotFound("add_on attachment"))
}

/// One of the attachments of all of an account's apps, by id, and its app.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find_attachment_anywhere(context: &Context, account: &Account, id: &str) -> Result<(Addon, App)> {
    let mut all = of_account(context, account).await?.into_iter();
    let found = all.find(|(addon, _)| addon.attachment_id.to_string() == id);
    found.ok_or(Error::NotFound("add_on attachment"))
}

/// Refuses a second attachment: the services that there are belong to one app each.
///
/// # Errors
/// Always.
pub fn attach() -> Result<()> {
    Err(Error::invalid(
        "Add-ons of this platform are not shared between apps. Give the other app one of its own: heroku \
         addons:create SERVICE -a APP.",
    ))
}

/// Refuses to detach: every add-on has one attachment.
///
/// # Errors
/// Always.
pub fn detach((addon, app): &(Addon, App)) -> Result<()> {
    Err(Error::Invalid(format!(
        "{} is the only attachment of {}. Remove the add-on with it: heroku addons:destroy {} -a {}.",
        addon.attachment, addon.name, addon.name, app.name
    )))
}

async fn rename(context: &Context, mut addon: Addon, name: String) -> Result<Addon> {
    if !is_name(&name) {
        return Err(Error::Invalid(format!("{name:?} is no name of an add-on: letters, digits, - and _.")));
    }
    (addon.name, addon.updated_at) = (name, context.now());
    let mut db = context.store.write().await?;
    match store::addons::put(&mut db, &addon).await {
        Err(error) if error.is_taken() => Err(Error::Invalid(format!("The name {} is taken.", addon.name))),
        done => {
            done?;
            db.commit().await?;
            Ok(addon)
        }
    }
}
