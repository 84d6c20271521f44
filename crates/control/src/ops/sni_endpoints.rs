//! Certificates that people bring for their apps' domains. Keys are sealed as soon as they have been checked.

use dozen_domain::{config::Secret, ids::SniEndpointId};

use super::{Error, Result, apps::random_name};
use crate::{
    state::Context,
    store::{self, accounts::Account, apps::App, domains::Domain, sni_endpoints::SniEndpoint},
    tls::inspect::{self, Checked, Facts},
};

/// A certificate, what it says, and the domains that are served with it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The certificate.
    pub endpoint: SniEndpoint,
    /// What its first certificate says.
    pub facts: Facts,
    /// The domains.
    pub domains: Vec<Domain>,
}

/// A chain and its key as somebody gave them, in PEM.
#[derive(Debug)]
pub struct Given {
    /// The chain, the leaf first.
    pub chain: String,
    /// The leaf's key.
    pub key: Secret,
}

/// An app's certificates by name.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<Shown>> {
    let mut db = context.store.read().await?;
    let domains = store::domains::of_app(&mut db, app.id).await?;
    let all = store::sni_endpoints::of_app(&mut db, app.id).await?;
    all.into_iter().map(|endpoint| show(endpoint, &domains)).collect()
}

/// One of an app's certificates, by name or id.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<Shown> {
    let is = |one: &Shown| one.endpoint.name == identity || one.endpoint.id.to_string() == identity;
    list(context, app).await?.into_iter().find(is).ok_or(Error::NotFound("sni_endpoint"))
}

/// Adds a certificate. Domains that it is for and that have none are served with it from now on.
///
/// # Errors
/// When the certificate or its key cannot be used, or the app has too many.
pub async fn add(context: &Context, app: &App, actor: &Account, given: &Given) -> Result<Shown> {
    let checked = check(context, given)?;
    let mut db = context.store.write().await?;
    let most = context.limits().certificates_per_app;
    if store::sni_endpoints::of_app(&mut db, app.id).await?.len() as u64 >= most {
        return Err(Error::Invalid(format!("An app may have {most} certificates at most. Remove one first.")));
    }
    let facts = checked.facts.clone();
    let endpoint = seal(context, app, checked, &given.key, false)?;
    store::sni_endpoints::put(&mut db, &endpoint).await?;
    for domain in store::domains::of_app(&mut db, app.id).await? {
        if domain.custom && domain.sni_endpoint.is_none() && facts.covers(&domain.hostname) {
            store::domains::set_sni_endpoint(&mut db, domain.id, Some(endpoint.id), context.now()).await?;
        }
    }
    db.commit().await?;
    announce(context, app, actor, "Add", &endpoint);
    find(context, app, &endpoint.id.to_string()).await
}

/// Puts another chain and key in a certificate's place.
///
/// # Errors
/// When there is none, the platform manages it, the new one cannot be used or is not for a domain that is served with it.
pub async fn update(context: &Context, app: &App, actor: &Account, identity: &str, given: &Given) -> Result<Shown> {
    let former = own(find(context, app, identity).await?)?;
    let checked = check(context, given)?;
    for domain in &former.domains {
        covers(&former.endpoint.name, &checked.facts, &domain.hostname)?;
    }
    let fresh = seal(context, app, checked, &given.key, false)?;
    let SniEndpoint { id, name, created_at, .. } = former.endpoint;
    let sealed_key = seal_key(context, id, &given.key);
    let endpoint = SniEndpoint { id, name, created_at, sealed_key, ..fresh };
    let mut db = context.store.write().await?;
    store::sni_endpoints::put(&mut db, &endpoint).await?;
    db.commit().await?;
    announce(context, app, actor, "Update", &endpoint);
    find(context, app, identity).await
}

/// Removes a certificate; its domains are served with the default one.
///
/// # Errors
/// When there is none, the platform manages it, or the database fails.
pub async fn remove(context: &Context, app: &App, actor: &Account, identity: &str) -> Result<Shown> {
    let one = own(find(context, app, identity).await?)?;
    let mut db = context.store.write().await?;
    store::sni_endpoints::delete(&mut db, one.endpoint.id).await?;
    db.commit().await?;
    announce(context, app, actor, "Remove", &one.endpoint);
    Ok(one)
}

/// Says that a certificate is not for a host.
///
/// # Errors
/// When it is not.
pub(super) fn covers(name: &str, facts: &Facts, host: &str) -> Result<()> {
    if facts.covers(host) {
        return Ok(());
    }
    let names = facts.names.join(", ");
    Err(Error::Invalid(format!("{name} is a certificate for {names}, not for {host}. Add one that is.")))
}

/// The key of a certificate.
///
/// # Errors
/// When it was not sealed here.
pub fn open(context: &Context, endpoint: &SniEndpoint) -> Result<Secret> {
    let failed = |error| Error::platform(format!("open the key of the certificate {}", endpoint.name), error);
    let plain = context.keys.config.open(key_context(endpoint.id).as_bytes(), &endpoint.sealed_key);
    let plain = plain.map_err(|error| failed(Box::<dyn std::error::Error + Send + Sync>::from(error)))?;
    String::from_utf8(plain).map(Secret::new).map_err(|error| failed(error.utf8_error().into()))
}

/// A new row for a checked certificate.
pub(super) fn seal(context: &Context, app: &App, checked: Checked, key: &Secret, managed: bool) -> Result<SniEndpoint> {
    let id = SniEndpointId::random();
    let now = context.now();
    Ok(SniEndpoint {
        id,
        app: app.id,
        name: random_name()?.to_string(),
        managed,
        trusted: checked.trusted,
        chain: checked.chain,
        sealed_key: seal_key(context, id, key),
        starts_at: checked.facts.starts_at,
        expires_at: checked.facts.expires_at,
        created_at: now,
        updated_at: now,
    })
}

/// A key as it is stored.
pub(super) fn seal_key(context: &Context, id: SniEndpointId, key: &Secret) -> Vec<u8> {
    context.keys.config.seal(key_context(id).as_bytes(), key.expose().as_bytes())
}

/// Leaves what the platform manages to the platform.
fn own(one: Shown) -> Result<Shown> {
    if one.endpoint.managed {
        return Err(Error::Invalid(format!(
            "{} is managed by the platform. Add your own certificate with certs:add and give it to the domain with \
             domains:update --cert, or end the management with certs:auto:disable.",
            one.endpoint.name
        )));
    }
    Ok(one)
}

fn key_context(id: SniEndpointId) -> String {
    format!("sni-endpoint:{id}")
}

fn check(context: &Context, given: &Given) -> Result<Checked> {
    inspect::check(&given.chain, given.key.expose(), context.now()).map_err(|flaw| Error::Invalid(flaw.to_string()))
}

fn announce(context: &Context, app: &App, actor: &Account, verb: &str, endpoint: &SniEndpoint) {
    context.log_api(app.id, format!("{verb} certificate {} by user {}", endpoint.name, actor.email));
    context.nudge.nudge(app.id);
}

fn show(endpoint: SniEndpoint, domains: &[Domain]) -> Result<Shown> {
    let facts = inspect::facts(&endpoint.chain)
        .map_err(|flaw| Error::platform(format!("read the certificate {}", endpoint.name), flaw))?;
    let is = |domain: &&Domain| domain.sni_endpoint.as_ref().is_some_and(|(id, _)| *id == endpoint.id);
    let domains = domains.iter().filter(is).cloned().collect();
    Ok(Shown { endpoint, facts, domains })
}
