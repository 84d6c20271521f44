//! Accounts: the first one, further ones, and who is asking.

use std::{fs, net::IpAddr, path::Path};

use dozen_api::clock::Micros;
use dozen_domain::{
    config::Secret,
    ids::{AccountId, AuthorizationId, TokenId},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{Error, Result};
use crate::{
    auth::{
        failures::Attempt,
        keys, password,
        token::{Hash, Token},
    },
    state::Context,
    store::{self, accounts::Account, authorizations::Authorization},
};

/// Passwords that are checked at the same time: each check is slow on purpose and must not take the whole machine.
static CHECKS: Semaphore = Semaphore::const_new(1);

/// Where the first account is told.
const FILE: &str = "admin.json";
/// Its next contents, while the token in it is being replaced.
const NEXT: &str = "admin.next.json";

/// `$D/admin.json`: the first account as `dozen env` reads it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Admin {
    /// Its e-mail.
    pub email: String,
    /// Its token.
    pub api_key: Secret,
}

impl Admin {
    /// Reads it from a data directory.
    ///
    /// # Errors
    /// When it is not there, not readable or not in this form.
    pub fn read(data_dir: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(data_dir.join(FILE))?)?)
    }

    fn write(&self, data_dir: &Path) -> Result<()> {
        self.write_as(&data_dir.join(FILE))
    }

    fn write_as(&self, path: &Path) -> Result<()> {
        let failed = |error| Error::platform(format!("write {}", path.display()), error);
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).map_err(failed)?;
        keys::write_private(path, &text).map_err(failed)
    }
}

/// Makes the first account when there is none. A start that was killed in between finds `admin.json` and uses it.
///
/// # Errors
/// When the database or the file cannot be written, or the given e-mail is none.
pub async fn ensure_admin(context: &Context) -> Result<()> {
    let mut db = context.store.write().await?;
    if store::accounts::any(&mut db).await? {
        drop(db);
        return mend_admin(context).await;
    }
    let settings = &context.settings;
    let written = Admin::read(&settings.data_dir).ok();
    let email = settings.admin_email.clone().or_else(|| written.as_ref().map(|admin| admin.email.clone()));
    let email = check_email(email.as_deref().unwrap_or("admin@localhost.localdomain"))?;
    let api_key = settings.admin_api_key.clone().or_else(|| written.map(|admin| admin.api_key));
    let api_key = api_key.unwrap_or_else(|| Secret::new(Token::random().expose()));
    let admin = Admin { email: email.clone(), api_key: api_key.clone() };
    admin.write(&settings.data_dir)?;
    let account = fresh(email, true, None, context.now());
    store::accounts::insert(&mut db, &account).await?;
    let token = Token::presented(api_key.expose());
    let authorization = authorization(&account, &token, Some("first start".to_owned()), None, context.now());
    store::authorizations::put(&mut db, &authorization).await?;
    db.commit().await?;
    Ok(())
}

/// Makes `admin.json` usable again: ends a replacement of its token that a kill cut off, and gives the first account a
/// new token where the file is lost or damaged (whoever may write it may read the database as well).
async fn mend_admin(context: &Context) -> Result<()> {
    let directory = &context.settings.data_dir;
    let next = directory.join(NEXT);
    if let Ok(bytes) = fs::read(&next) {
        let admin: Option<Admin> = serde_json::from_slice(&bytes).ok();
        let replaced = match &admin {
            Some(admin) => by_token(context, &Token::presented(admin.api_key.expose())).await.is_ok(),
            None => false,
        };
        settle_admin_key(context, replaced)?;
    }
    let why = match Admin::read(directory) {
        Ok(_) => return Ok(()),
        Err(why) => why,
    };
    let mut db = context.store.write().await?;
    let Some(account) = store::accounts::first_admin(&mut db).await? else { return Ok(()) };
    let token = match &context.settings.admin_api_key {
        Some(given) => Token::presented(given.expose()),
        None => Token::random(),
    };
    if store::authorizations::by_token(&mut db, &token.hash(), context.now()).await?.is_none() {
        let text = Some(format!("in place of a lost {FILE}"));
        store::authorizations::put(&mut db, &authorization(&account, &token, text, None, context.now())).await?;
    }
    db.commit().await?;
    let path = directory.join(FILE);
    if path.exists() {
        let aside = directory.join("admin.json.damaged");
        fs::rename(&path, &aside).map_err(|error| Error::platform("put the damaged admin.json aside", error))?;
    }
    Admin { email: account.email, api_key: Secret::new(token.expose()) }.write(directory)?;
    tracing::warn!(
        path = %path.display(), %why,
        "was lost or damaged; written again with a new token. Run eval \"$(dozen env)\" where the former one was in use"
    );
    Ok(())
}

/// Before the first account's token is replaced: writes what `admin.json` is to be, so that a kill in between leaves
/// `dozen env` a token that works. [`settle_admin_key`] ends it. Says whether it is that token at all.
///
/// # Errors
/// When the file cannot be written; nothing has changed then.
pub(super) fn prepare_admin_key(context: &Context, old: &Hash, new: &Token) -> Result<bool> {
    let directory = &context.settings.data_dir;
    let Ok(mut admin) = Admin::read(directory) else { return Ok(false) };
    if Token::presented(admin.api_key.expose()).hash() != *old {
        return Ok(false);
    }
    admin.api_key = Secret::new(new.expose());
    admin.write_as(&directory.join(NEXT))?;
    Ok(true)
}

/// Puts the prepared `admin.json` in force when the token was `replaced`, and throws it away when it was not.
///
/// # Errors
/// When the disk refuses; the next start of the role does it again.
pub(super) fn settle_admin_key(context: &Context, replaced: bool) -> Result<()> {
    let directory = &context.settings.data_dir;
    let next = directory.join(NEXT);
    let settled = if replaced { fs::rename(&next, directory.join(FILE)) } else { fs::remove_file(&next) };
    settled.map_err(|error| Error::platform(format!("replace {FILE}"), error))
}

/// Makes an account with a token, for `dozen accounts:create EMAIL`. A password is optional: a token serves as one.
///
/// # Errors
/// When the e-mail is none or taken, or the database fails.
pub async fn create(context: &Context, email: &str, password: Option<Secret>) -> Result<(Account, Token)> {
    let email = check_email(email)?;
    let stored = match password {
        None => None,
        Some(secret) => Some(derive(secret).await?),
    };
    let account = fresh(email, false, stored, context.now());
    let token = Token::random();
    let authorization = authorization(&account, &token, Some("accounts:create".to_owned()), None, context.now());
    let mut db = context.store.write().await?;
    match store::accounts::insert(&mut db, &account).await {
        Err(error) if error.is_taken() => {
            return Err(Error::Invalid(format!("There is an account with the e-mail {} already.", account.email)));
        }
        other => other?,
    }
    store::authorizations::put(&mut db, &authorization).await?;
    db.commit().await?;
    Ok((account, token))
}

/// The account a token belongs to, with the token's authorization.
///
/// # Errors
/// When there is none ([`Error::Unauthorized`]) or the database fails.
pub async fn by_token(context: &Context, token: &Token) -> Result<(Authorization, Account)> {
    let mut db = context.store.read().await?;
    let found = store::authorizations::by_token(&mut db, &token.hash(), context.now()).await?;
    found.ok_or(Error::Unauthorized("Invalid credentials provided."))
}

/// As [`by_token`], for somebody at an address that may have failed too often. A right token is let in all the same.
///
/// # Errors
/// As [`by_token`]; [`Error::TooManyFailures`] when it would have to be told once too often that it is wrong.
pub async fn by_token_from(context: &Context, token: &Token, peer: Option<IpAddr>) -> Result<(Authorization, Account)> {
    match (by_token(context, token).await, peer) {
        (Err(Error::Unauthorized(why)), Some(peer)) => {
            context.failures.token(peer, context.now()).map_err(Error::TooManyFailures)?;
            Err(Error::Unauthorized(why))
        }
        (found, _) => found,
    }
}

/// The account with this e-mail and password, where one of its tokens may be the password.
///
/// # Errors
/// When they do not match ([`Error::Unauthorized`]), the address has tried too often, or the database fails.
pub async fn by_password(context: &Context, email: &str, password: Secret, peer: Option<IpAddr>) -> Result<Account> {
    const WRONG: Error = Error::Unauthorized("Invalid credentials provided.");
    match by_token(context, &Token::presented(password.expose())).await {
        // A narrower token must not open the way to a wider one.
        Ok((authorization, account))
            if account.email.eq_ignore_ascii_case(email)
                && authorization.scope.iter().any(|scope| scope == "global") =>
        {
            return Ok(account);
        }
        Ok(_) => return Err(WRONG),
        Err(Error::Unauthorized(_)) => {}
        Err(other) => return Err(other),
    }
    let attempt = peer.map(|peer| context.failures.password(peer, email, context.now())).transpose();
    let attempt = attempt.map_err(Error::TooManyFailures)?;
    let account = store::accounts::by_email(&mut *context.store.read().await?, email).await?.ok_or(WRONG)?;
    let stored = account.password.clone().ok_or(WRONG)?;
    let _permit = CHECKS.acquire().await.map_err(|error| Error::platform("check a password", error))?;
    let matches = spawn_blocking(move || password::matches(&stored, password.expose())).await;
    if !matches.map_err(|error| Error::platform("check a password", error))? {
        return Err(WRONG);
    }
    attempt.into_iter().for_each(Attempt::succeeded);
    Ok(account)
}

/// What may be changed of one's own account.
#[derive(Debug, Default, Deserialize)]
pub struct Change {
    /// Full name; an empty one removes it.
    pub name: Option<String>,
    /// May be tracked.
    pub allow_tracking: Option<bool>,
    /// Sees beta features.
    pub beta: Option<bool>,
}

/// Changes one's own account.
///
/// # Errors
/// When the database fails.
pub async fn update(context: &Context, account: AccountId, change: Change) -> Result<Account> {
    let mut db = context.store.write().await?;
    let mut account = store::accounts::by_id(&mut db, account).await?.ok_or(Error::NotFound("account"))?;
    if let Some(name) = change.name {
        account.name = Some(name).filter(|name| !name.is_empty());
    }
    account.allow_tracking = change.allow_tracking.unwrap_or(account.allow_tracking);
    account.beta = change.beta.unwrap_or(account.beta);
    account.updated_at = context.now();
    store::accounts::update(&mut db, &account).await?;
    db.commit().await?;
    Ok(account)
}

async fn derive(secret: Secret) -> Result<password::Stored> {
    const LEAST: usize = 8; // characters; Heroku's minimum
    if secret.expose().chars().count() < LEAST {
        return Err(Error::Invalid(format!("Password is too short (minimum is {LEAST} characters)")));
    }
    let derived = spawn_blocking(move || password::store(secret.expose())).await;
    derived.map_err(|error| Error::platform("derive a password", error))
}

/// An e-mail address without the space around it.
///
/// # Errors
/// When it is none.
pub(super) fn check_email(email: &str) -> Result<String> {
    let email = email.trim();
    let ok = email.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !host.is_empty() && !host.contains('@') && !host.starts_with('.') && !host.ends_with('.')
    });
    let ok = ok && email.len() <= 254 && !email.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':');
    if ok { Ok(email.to_owned()) } else { Err(Error::Invalid(format!("{email:?} is not an e-mail address."))) }
}

fn fresh(email: String, admin: bool, password: Option<password::Stored>, now: Micros) -> Account {
    Account {
        id: AccountId::random(),
        email,
        name: None,
        admin,
        password,
        allow_tracking: false,
        beta: false,
        created_at: now,
        updated_at: now,
        last_login: None,
    }
}

/// An authorization of an account for a token, not stored yet.
pub(super) fn authorization(
    account: &Account,
    token: &Token,
    description: Option<String>,
    expires_at: Option<Micros>,
    now: Micros,
) -> Authorization {
    Authorization {
        id: AuthorizationId::random(),
        account: account.id,
        description,
        scope: vec!["global".to_owned()],
        token_id: TokenId::random(),
        token_hash: token.hash(),
        token_hint: token.hint(),
        token_expires_at: expires_at,
        created_at: now,
        updated_at: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_has_two_sides() {
        for good in ["a@b", "admin@localhost.localdomain", " x.y+z@example.com "] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "a@", "@b", "a@b@c", "a b@c", "a@.b", "a:b@c"] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }
}
