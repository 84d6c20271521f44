//! `/account`: who one is.

use axum::extract::State;
use dozen_api::{clock::rfc3339_seconds, platform};

use super::{
    answer::{Reply, Result},
    body::Json,
    member::{Caller, Identity},
};
use crate::{
    ops::{self, Error, accounts::Change},
    state::Context,
    store::accounts::Account,
};

/// `GET /account`
pub async fn info(caller: Caller) -> Result {
    Ok(Reply::ok(&view(&caller.account)))
}

/// `PATCH /account`
pub async fn update(State(context): State<Context>, caller: Caller, Json(change): Json<Change>) -> Result {
    let account = ops::accounts::update(&context, caller.account.id, change).await?;
    Ok(Reply::ok(&view(&account)))
}

/// `GET /users/{user}`: oneself, as `~`, by e-mail or id.
pub async fn user(caller: Caller, Identity(user): Identity) -> Result {
    own(&caller, &user)?;
    Ok(Reply::ok(&view(&caller.account)))
}

/// `PATCH /users/{user}`: oneself.
pub async fn update_user(
    State(context): State<Context>,
    caller: Caller,
    Identity(user): Identity,
    Json(change): Json<Change>,
) -> Result {
    own(&caller, &user)?;
    update(State(context), caller, Json(change)).await
}

/// `GET /account/rate-limits`
pub async fn rate_limits(State(context): State<Context>, caller: Caller) -> Result {
    let remaining = context.rates.remaining(caller.account.id, context.now());
    Ok(Reply::ok(&platform::account::RateLimit { remaining }))
}

/// Says whether a path's `{user}` is the caller; one sees nobody else.
///
/// # Errors
/// [`Error::NotFound`] when it is somebody else.
pub fn own(caller: &Caller, user: &str) -> Result<()> {
    let account = &caller.account;
    let is = user == "~" || user.eq_ignore_ascii_case(&account.email) || user == account.id.to_string();
    if is { Ok(()) } else { Err(Error::NotFound("user")) }
}

fn view(account: &Account) -> platform::account::Account {
    platform::account::Account {
        allow_tracking: account.allow_tracking,
        beta: account.beta,
        country_of_residence: None,
        created_at: rfc3339_seconds(account.created_at),
        default_organization: None,
        default_team: None,
        delinquent_at: None,
        email: account.email.clone(),
        federated: false,
        id: account.id.0,
        identity_provider: None,
        last_login: account.last_login.map(rfc3339_seconds),
        name: account.name.clone(),
        sms_number: None,
        suspended_at: None,
        two_factor_authentication: false,
        updated_at: rfc3339_seconds(account.updated_at),
        verified: true,
    }
}
