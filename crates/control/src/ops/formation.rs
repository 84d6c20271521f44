//! Formation: scaling. It makes no release.

use std::collections::HashMap;

use dozen_domain::{
    formation::{Quantity, check},
    name::ProcessType,
    size::Size,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Error, Result, releases};
use crate::{
    state::Context,
    store::{self, accounts::Account, apps::App, formation::Formation, slugs::Slug},
};

/// One wished change, as clients write it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Update {
    /// Process type, or the id of its formation; the path may say it in its place.
    #[serde(rename = "type", alias = "process", default)]
    pub process_type: String,
    /// A number, or a text that may have a sign.
    pub quantity: Option<Value>,
    /// A size's name, whatever its case.
    pub size: Option<String>,
    /// The same, as an object.
    pub dyno_size: Option<DynoSize>,
    /// An image of a container registry; not possible here.
    pub docker_image: Option<Value>,
}

/// A dyno size as an object.
#[derive(Debug, Clone, Deserialize)]
pub struct DynoSize {
    /// Its name.
    pub name: String,
}

/// A process type's formation with its command.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Quantity and size.
    pub formation: Formation,
    /// Its command in the current slug.
    pub command: String,
}

/// An app's formation, by process type.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<Entry>> {
    let mut db = context.store.read().await?;
    let formation = store::formation::of_app(&mut db, app.id).await?;
    let release = store::releases::current(&mut db, app.id).await?;
    let slug = match release.and_then(|release| release.slug) {
        None => None,
        Some(slug) => store::slugs::by_id(&mut db, slug).await?,
    };
    let command = |process_type: &ProcessType| {
        let types = slug.iter().flat_map(|slug: &Slug| &slug.process_types);
        types.into_iter().find(|(name, _)| name == process_type).map(|(_, command)| command.clone()).unwrap_or_default()
    };
    Ok(formation.into_iter().map(|entry| Entry { command: command(&entry.process_type), formation: entry }).collect())
}

/// The formation of one process type, by its name or id.
///
/// # Errors
/// When the app has no such process type or the database fails.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<Entry> {
    let found = list(context, app).await?.into_iter().find(|entry| is(&entry.formation, identity));
    found.ok_or_else(|| unknown(identity))
}

fn is(formation: &Formation, identity: &str) -> bool {
    formation.process_type.as_str() == identity || formation.id.to_string() == identity
}

fn unknown(process_type: &str) -> Error {
    Error::NotFoundBecause {
        resource: "process type",
        message: format!("Couldn't find that process type ({process_type})."),
    }
}

/// Scales; all changes or none. Answers the whole formation.
///
/// # Errors
/// When a process type does not exist, a quantity or size breaks a rule, or the database fails.
pub async fn scale(context: &Context, app: &App, actor: &Account, updates: Vec<Update>) -> Result<Vec<Entry>> {
    let mut db = context.store.write().await?;
    let mut formation = store::formation::of_app(&mut db, app.id).await?;
    let mut touched = HashMap::new();
    for update in updates {
        let index = formation.iter().position(|entry| is(entry, &update.process_type));
        let index = index.ok_or_else(|| unknown(&update.process_type))?;
        let (quantity, size) = wished(&update, &formation[index])?;
        let entry = &mut formation[index];
        (entry.quantity, entry.size, entry.updated_at) = (quantity, size, context.now());
        touched.insert(index, ());
    }
    let all: Vec<_> = formation.iter().map(|entry| (entry.process_type.clone(), entry.quantity, entry.size)).collect();
    check(&all, context.limits())?;
    let mut scaled = Vec::new();
    for (index, entry) in formation.iter().enumerate().filter(|(index, _)| touched.contains_key(index)) {
        store::formation::put(&mut db, entry).await?;
        scaled.push(formation[index].clone());
    }
    store::apps::touch(&mut db, app.id, context.now()).await?;
    db.commit().await?;
    releases::log_scaled(context, app.id, &scaled, &format!("user {}", actor.email));
    context.nudge.nudge(app.id);
    list(context, app).await
}

/// Has autoscaling change the quantity of an entry, unless somebody was faster; says whether it did.
///
/// # Errors
/// When the app would have too many dynos, or the database fails.
pub async fn autoscale(context: &Context, was: &Formation, quantity: u32) -> Result<bool> {
    let mut db = context.store.write().await?;
    let mut formation = store::formation::of_app(&mut db, was.app).await?;
    let is = |entry: &&mut Formation| entry.id == was.id && entry.quantity == was.quantity;
    let Some(entry) = formation.iter_mut().find(is) else { return Ok(false) };
    (entry.quantity, entry.updated_at) = (quantity, context.now());
    let scaled = entry.clone();
    let all: Vec<_> = formation.iter().map(|entry| (entry.process_type.clone(), entry.quantity, entry.size)).collect();
    check(&all, context.limits())?;
    store::formation::put(&mut db, &scaled).await?;
    store::apps::touch(&mut db, was.app, context.now()).await?;
    db.commit().await?;
    releases::log_scaled(context, was.app, std::slice::from_ref(&scaled), "autoscaling");
    context.nudge.nudge(was.app);
    Ok(true)
}

fn wished(update: &Update, now: &Formation) -> Result<(u32, Size)> {
    if update.docker_image.is_some() {
        return Err(Error::invalid(
            "Releasing from a container registry is not possible here. Use git push heroku main.",
        ));
    }
    let size = update.size.as_ref().or(update.dyno_size.as_ref().map(|size| &size.name));
    let size = size.map_or(Ok(now.size), |name| name.parse())?;
    let quantity = match &update.quantity {
        None | Some(Value::Null) => now.quantity,
        Some(Value::String(text)) => text.parse::<Quantity>()?.apply(&now.process_type, now.quantity)?,
        // A negative number is relative, as its text would be.
        Some(Value::Number(number)) => {
            number.to_string().parse::<Quantity>()?.apply(&now.process_type, now.quantity)?
        }
        Some(other) => return Err(Error::Invalid(format!("Quantity must be a whole number: {other}"))),
    };
    if now.process_type.is_release() && quantity > 0 {
        return Err(Error::invalid("The release process type runs once at every release and cannot be scaled."));
    }
    Ok((quantity, size))
}
