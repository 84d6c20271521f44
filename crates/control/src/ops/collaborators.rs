//! Who works on an app. Its owner decides; everybody may leave.

use dozen_domain::ids::CollaboratorId;

use super::{Error, Result, accounts};
use crate::{
    state::Context,
    store::{
        self,
        accounts::Account,
        apps::App,
        collaborators::{Collaborator, Role},
    },
};

/// An app's people, the owner first.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<Collaborator>> {
    Ok(store::collaborators::of_app(&mut *context.store.read().await?, app.id).await?)
}

/// One of them, by e-mail, account id or membership id.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<Collaborator> {
    let is = |one: &Collaborator| {
        one.email.eq_ignore_ascii_case(identity)
            || one.account.to_string() == identity
            || one.id.to_string() == identity
    };
    list(context, app).await?.into_iter().find(is).ok_or(Error::NotFound("collaborator"))
}

/// Lets somebody with an account work on an app. `app` must be the actor's own.
///
/// # Errors
/// When there is no such account, it is on the app already, or the database fails.
pub async fn add(context: &Context, app: &App, actor: &Account, user: &str) -> Result<Collaborator> {
    let mut db = context.store.write().await?;
    let account = match user.parse() {
        Ok(id) => store::accounts::by_id(&mut db, id).await?,
        Err(_) => store::accounts::by_email(&mut db, &accounts::check_email(user)?).await?,
    };
    let account = account.ok_or_else(|| Error::NotFoundBecause {
        resource: "account",
        message: format!(
            "There is no account {user} on this platform. Its operator makes one with: dozen accounts:create {user}"
        ),
    })?;
    let now = context.now();
    let collaborator = Collaborator {
        id: CollaboratorId::random(),
        app: app.id,
        account: account.id,
        email: account.email,
        role: Role::Collaborator,
        created_at: now,
        updated_at: now,
    };
    match store::collaborators::insert(&mut db, &collaborator).await {
        Err(error) if error.is_taken() => {
            return Err(Error::Invalid(format!("{} already has access to {}.", collaborator.email, app.name)));
        }
        other => other?,
    }
    db.commit().await?;
    context.log_api(app.id, format!("Add {} as collaborator by user {}", collaborator.email, actor.email));
    Ok(collaborator)
}

/// Ends somebody's work on an app: the owner anybody's but his own, everybody his own.
///
/// # Errors
/// When there is no such collaborator, or the actor may not.
pub async fn remove(context: &Context, app: &App, actor: &Account, identity: &str) -> Result<Collaborator> {
    let collaborator = find(context, app, identity).await?;
    if collaborator.role == Role::Owner {
        return Err(Error::Invalid(format!("{} owns {} and cannot be removed from it.", collaborator.email, app.name)));
    }
    if collaborator.account != actor.id && app.owner != actor.id {
        return Err(Error::Forbidden(format!("Only the owner of {} can do that.", app.name)));
    }
    let mut db = context.store.write().await?;
    store::collaborators::delete(&mut db, collaborator.id).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Remove {} as collaborator by user {}", collaborator.email, actor.email));
    Ok(collaborator)
}
