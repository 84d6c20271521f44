//! OAuth authorizations: tokens, each with what it is for and what it permits.

use dozen_domain::ids::{AuthorizationId, TokenId};
use serde::Deserialize;

use super::{Error, Result, accounts, number::Written};
use crate::{
    auth::token::Token,
    state::Context,
    store::{self, accounts::Account, authorizations::Authorization},
};

const SCOPES: &[&str] = &["global", "identity", "read", "read-protected", "write", "write-protected"];
const SECOND: i64 = 1_000_000; // microseconds

/// An authorization as clients ask for it.
#[derive(Debug, Default, Deserialize)]
pub struct New {
    /// What for.
    pub description: Option<String>,
    /// Seconds until its token ends; missing: never.
    #[serde(default)]
    pub expires_in: Written,
    /// What it permits; missing: everything.
    pub scope: Option<Vec<String>>,
}

/// Says whether a token opens the git repositories of its account's apps: who pushes, releases.
pub fn permits_code(authorization: &Authorization) -> bool {
    authorization.scope.iter().any(|scope| matches!(scope.as_str(), "global" | "write" | "write-protected"))
}

/// Makes an authorization; the token is shown this once.
///
/// # Errors
/// When scope or time make no sense, or the database fails.
pub async fn create(context: &Context, account: &Account, new: New) -> Result<(Authorization, Token)> {
    let scope = new.scope.filter(|scope| !scope.is_empty()).unwrap_or_else(|| vec!["global".to_owned()]);
    if let Some(unknown) = scope.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(Error::Invalid(format!("There is no scope {unknown}. Scopes: {}.", SCOPES.join(", "))));
    }
    let expires_in = new.expires_in.whole("expires_in")?;
    if expires_in.is_some_and(|seconds| seconds <= 0) {
        return Err(Error::invalid("expires_in must be a positive number of seconds."));
    }
    let now = context.now();
    let expires_at = expires_in.map(|seconds| now.saturating_add(seconds.saturating_mul(SECOND)));
    let token = Token::random();
    let mut authorization = accounts::authorization(account, &token, new.description, expires_at, now);
    authorization.scope = scope;
    let mut db = context.store.write().await?;
    store::authorizations::delete_ended(&mut db, now).await?;
    store::authorizations::put(&mut db, &authorization).await?;
    db.commit().await?;
    Ok((authorization, token))
}

/// An account's authorizations, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, account: &Account) -> Result<Vec<Authorization>> {
    let all = store::authorizations::of_account(&mut *context.store.read().await?, account.id).await?;
    let now = context.now();
    Ok(all.into_iter().filter(|one| one.token_expires_at.is_none_or(|end| end > now)).collect())
}

/// One of an account's authorizations by id or its token, or with `~` the one that `own` is.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(
    context: &Context,
    account: &Account,
    own: Option<AuthorizationId>,
    identity: &str,
) -> Result<Authorization> {
    let hash = Token::presented(identity).hash();
    let is = |one: &Authorization| match identity {
        "~" => Some(one.id) == own,
        _ => one.id.to_string() == identity || one.token_hash == hash,
    };
    list(context, account).await?.into_iter().find(is).ok_or(Error::NotFound("authorization"))
}

/// Changes what an authorization is for.
///
/// # Errors
/// When the database fails.
pub async fn update(context: &Context, mut one: Authorization, description: Option<String>) -> Result<Authorization> {
    one.description = description.or(one.description);
    one.updated_at = context.now();
    put(context, &one).await?;
    Ok(one)
}

/// Replaces an authorization's token by a new one of the same length of life; the old one ends at once.
///
/// # Errors
/// When the database fails.
pub async fn regenerate(context: &Context, mut one: Authorization) -> Result<(Authorization, Token)> {
    let (token, now, old) = (Token::random(), context.now(), one.token_hash);
    one.token_expires_at = one.token_expires_at.map(|end| now + (end - one.updated_at).max(SECOND));
    (one.token_id, one.token_hash, one.token_hint) = (TokenId::random(), token.hash(), token.hint());
    one.updated_at = now;
    let first = accounts::prepare_admin_key(context, &old, &token)?;
    let stored = put(context, &one).await;
    if first {
        accounts::settle_admin_key(context, stored.is_ok())?;
    }
    stored?;
    Ok((one, token))
}

async fn put(context: &Context, one: &Authorization) -> Result<()> {
    let mut db = context.store.write().await?;
    store::authorizations::put(&mut db, one).await?;
    db.commit().await?;
    Ok(())
}

/// Ends an authorization and its token.
///
/// # Errors
/// When the database fails.
pub async fn revoke(context: &Context, one: &Authorization) -> Result<()> {
    let mut db = context.store.write().await?;
    store::authorizations::delete(&mut db, one.id).await?;
    db.commit().await?;
    Ok(())
}
