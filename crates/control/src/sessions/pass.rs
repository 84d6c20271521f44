//! The pass to a dyno over SSH: the user name that the exec manager gives out, good with one key only.
//!
//! It is a ticket ([`crate::auth::ticket`]), so nothing is stored, and a forward that makes a connection for each of its
//! own goes on working after a restart of the role. Whether its account may still enter is asked at each connection.

use dozen_domain::{
    ids::{AccountId, AppId},
    limits::seconds,
};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::{
    Context,
    auth::ticket,
    store::{self, accounts::Account, apps::App},
};

const PURPOSE: &str = "exec";

/// What a pass is good for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pass {
    /// Whose dyno.
    pub app: AppId,
    /// Its name: a forward finds the dyno that has it when a connection is made.
    pub dyno: String,
    /// Who.
    pub account: AccountId,
    /// E-mail of who, for the log.
    pub email: String,
    /// SHA-256 of the key that goes with it, as SSH sends it.
    key: Vec<u8>,
}

/// Makes a pass for a key: the bytes of the second word of an `authorized_keys` line.
pub fn issue(context: &Context, app: &App, dyno: &str, account: &Account, key: &[u8]) -> String {
    let pass = Pass {
        app: app.id,
        dyno: dyno.to_owned(),
        account: account.id,
        email: account.email.clone(),
        key: fingerprint(key),
    };
    let life = i64::try_from(seconds(context.limits().exec_pass_seconds).as_micros()).unwrap_or(i64::MAX);
    // A letter first: a user name that begins with a hyphen would be an option to an SSH client.
    format!("x{}", ticket::issue(&context.keys.ticket, PURPOSE, context.now().saturating_add(life), &pass))
}

/// What a user name is good for, presented with this key; `None` when it is not one of ours, expired, another key's, or
/// its account has lost the app.
pub async fn redeem(context: &Context, user: &str, key: &[u8]) -> Option<Pass> {
    let text = user.strip_prefix('x')?;
    let pass: Pass = ticket::redeem(&context.keys.ticket, PURPOSE, context.now(), text).ok()?;
    // Of a public key: nothing is told by how long the comparison takes.
    if pass.key != fingerprint(key) {
        return None;
    }
    let mut db = context.store.read().await.ok()?;
    store::collaborators::role_of(&mut db, pass.app, pass.account).await.ok()??;
    Some(pass)
}

fn fingerprint(key: &[u8]) -> Vec<u8> {
    digest(&SHA256, key).as_ref().to_vec()
}
