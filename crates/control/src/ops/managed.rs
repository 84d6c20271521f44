//! Apps whose certificates the platform gets and renews (`certs:auto`).

use std::sync::{MutexGuard, PoisonError};

use dozen_api::clock::Micros;
use dozen_domain::{config::Secret, ids::AppId};

use super::{Error, Result, apps, sni_endpoints};
use crate::{
    acme::{self, Authority, Issued},
    reconcile::certificates::{after_failure, renewal},
    state::Context,
    store::{
        self,
        accounts::Account,
        apps::App,
        managed::{Managed, Progress},
        sni_endpoints::SniEndpoint,
    },
    tls::inspect,
};

/// Gets certificates for an app's custom domains from now on.
///
/// # Errors
/// When the database fails.
pub async fn enable(context: &Context, app: &App, actor: &Account) -> Result<App> {
    let mut db = context.store.write().await?;
    store::managed::enable(&mut db, app.id, context.now()).await?;
    db.commit().await?;
    announce(context, app, actor, "Enable").await
}

/// Stops that; certificates that came of it are removed.
///
/// # Errors
/// When the database fails.
pub async fn disable(context: &Context, app: &App, actor: &Account) -> Result<App> {
    let mut db = context.store.write().await?;
    store::managed::disable(&mut db, app.id).await?;
    store::sni_endpoints::delete_managed(&mut db, app.id).await?;
    db.commit().await?;
    announce(context, app, actor, "Disable").await
}

/// Tries again at once what has failed.
///
/// # Errors
/// When it is not enabled, or the database fails.
pub async fn refresh(context: &Context, app: &App, actor: &Account) -> Result<App> {
    if !app.acm {
        return Err(Error::invalid(
            "Automated certificate management is not enabled. Enable it with: heroku certs:auto:enable",
        ));
    }
    let mut db = context.store.write().await?;
    store::managed::retry(&mut db, app.id).await?;
    db.commit().await?;
    announce(context, app, actor, "Refresh").await
}

async fn announce(context: &Context, app: &App, actor: &Account, verb: &str) -> Result<App> {
    context.log_api(app.id, format!("{verb} automated certificate management by user {}", actor.email));
    context.nudge.nudge(app.id);
    apps::by_id(context, app.id).await
}

/// Domains for which something is to be done now.
///
/// # Errors
/// When the database fails.
pub async fn due(context: &Context, now: Micros) -> Result<Vec<Managed>> {
    let mut all = store::managed::all(&mut *context.store.read().await?).await?;
    all.retain(|managed| managed.progress.as_ref().is_none_or(|progress| progress.next_at <= now));
    Ok(all)
}

/// The account with the certificate authority, opened if there is none yet. The inner error is the authority's.
///
/// # Errors
/// When the database fails.
pub async fn authority(context: &Context) -> Result<std::result::Result<Authority, acme::Error>> {
    let settings = &context.settings.acme;
    let at = settings.directory.as_str();
    let sealed = store::managed::account(&mut *context.store.read().await?, at).await?;
    if let Some(sealed) = sealed {
        let plain = context.keys.config.open(account_context(at).as_bytes(), &sealed);
        let plain = plain.map_err(|error| Error::platform("open the account with the certificate authority", error))?;
        let credentials = Secret::new(String::from_utf8_lossy(&plain).into_owned());
        return Ok(Authority::open(settings, &credentials).await);
    }
    let (authority, credentials) = match Authority::register(settings).await {
        Ok(registered) => registered,
        Err(error) => return Ok(Err(error)),
    };
    let sealed = context.keys.config.seal(account_context(at).as_bytes(), credentials.expose().as_bytes());
    let mut db = context.store.write().await?;
    store::managed::set_account(&mut db, at, Some(&sealed), context.now()).await?;
    db.commit().await?;
    Ok(Ok(authority))
}

fn account_context(directory: &str) -> String {
    format!("acme-account:{directory}")
}

/// Records that an order is under way.
///
/// # Errors
/// When the database fails.
pub async fn begin(context: &Context, managed: &Managed) -> Result<()> {
    if managed.progress.as_ref().is_some_and(|progress| progress.status == "cert issued") {
        return Ok(()); // the former one is good meanwhile
    }
    let failures = managed.progress.as_ref().map_or(0, |progress| progress.failures);
    let now = context.now();
    let progress = Progress { status: "in-progress".to_owned(), reason: None, failures, next_at: now };
    record(context, managed, &progress).await
}

/// Records a failure and when it is tried again.
///
/// # Errors
/// When the database fails.
pub async fn failed(context: &Context, managed: &Managed, error: &acme::Error) -> Result<Progress> {
    if matches!(error, acme::Error::Forgotten) {
        let mut db = context.store.write().await?;
        store::managed::set_account(&mut db, &context.settings.acme.directory, None, context.now()).await?;
        db.commit().await?;
    }
    let limits = context.limits();
    let (first, longest) = (limits.acme_retry_seconds, limits.acme_retry_max_seconds);
    let mut progress = after_failure(managed.progress.as_ref(), &error.to_string(), context.now(), first, longest);
    if matches!(error, acme::Error::Wildcard(_)) {
        "failed".clone_into(&mut progress.status);
    }
    record(context, managed, &progress).await?;
    Ok(progress)
}

async fn record(context: &Context, managed: &Managed, progress: &Progress) -> Result<()> {
    let mut db = context.store.write().await?;
    store::managed::record(&mut db, managed.domain, progress, context.now()).await?;
    db.commit().await?;
    Ok(())
}

/// Serves a domain with a fresh certificate; answers until when. What has gone meanwhile stays gone. The inner error
/// says that what the authority sent cannot be served.
///
/// # Errors
/// When the database fails.
pub async fn issued(
    context: &Context,
    managed: &Managed,
    issued: &Issued,
) -> Result<std::result::Result<Micros, acme::Error>> {
    let checked = match inspect::check(&issued.chain, issued.key.expose(), context.now()) {
        Ok(checked) => checked,
        Err(flaw) => return Ok(Err(acme::Error::Unusable(flaw.to_string()))),
    };
    let (starts_at, expires_at) = (checked.facts.starts_at, checked.facts.expires_at);
    let app = apps::by_id(context, managed.app).await?;
    let fresh = sni_endpoints::seal(context, &app, checked, &issued.key, true)?;
    let mut db = context.store.write().await?;
    let domains = store::domains::of_app(&mut db, app.id).await?;
    let Some(domain) = domains.into_iter().find(|domain| domain.id == managed.domain && app.acm) else {
        return Ok(Ok(expires_at));
    };
    // The name stays when a certificate is renewed.
    let former = domain.sni_endpoint.as_ref().map(|(id, _)| *id);
    let former = store::sni_endpoints::of_app(&mut db, app.id).await?.into_iter().find(|one| Some(one.id) == former);
    let endpoint = match former.filter(|former| former.managed) {
        Some(SniEndpoint { id, name, created_at, .. }) => {
            let sealed_key = sni_endpoints::seal_key(context, id, &issued.key);
            SniEndpoint { id, name, created_at, sealed_key, ..fresh }
        }
        None => fresh,
    };
    store::sni_endpoints::put(&mut db, &endpoint).await?;
    store::domains::set_sni_endpoint(&mut db, domain.id, Some(endpoint.id), context.now()).await?;
    let next_at = renewal(starts_at, expires_at, context.limits().acme_renew_days);
    let progress = Progress { status: "cert issued".to_owned(), reason: None, failures: 0, next_at };
    store::managed::record(&mut db, domain.id, &progress, context.now()).await?;
    db.commit().await?;
    context.nudge.nudge(app.id);
    Ok(Ok(expires_at))
}

/// Answers that the router is to give to certificate authorities, by app.
pub fn challenges(
    context: &Context,
) -> MutexGuard<'_, std::collections::BTreeMap<AppId, Vec<dozen_api::routes::Challenge>>> {
    context.challenges.lock().unwrap_or_else(PoisonError::into_inner)
}
