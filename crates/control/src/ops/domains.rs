//! Host names of apps. Adding and removing them makes no release.

use std::net::IpAddr;

use dozen_domain::ids::{DomainId, SniEndpointId};

use super::{Error, Result, sni_endpoints};
use crate::{
    state::Context,
    store::{self, accounts::Account, apps::App, domains::Domain},
};

/// An app's domains, its own first.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<Domain>> {
    Ok(store::domains::of_app(&mut *context.store.read().await?, app.id).await?)
}

/// One of an app's domains, by name or id.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<Domain> {
    let name = identity.trim_end_matches('.').to_ascii_lowercase();
    let is = |domain: &Domain| domain.hostname == name || domain.id.to_string() == name;
    list(context, app).await?.into_iter().find(is).ok_or(Error::NotFound("domain"))
}

/// Adds a host name to an app. It is served with the certificate of this name or id; without one, with any that the
/// app has for it.
///
/// # Errors
/// When it is none, belongs to the platform, or is in use by any app; when the certificate is not for it.
pub async fn add(
    context: &Context,
    app: &App,
    actor: &Account,
    hostname: &str,
    certificate: Option<&str>,
) -> Result<Domain> {
    let hostname = check(hostname, &context.settings.apps_domain)?;
    let sni_endpoint = match certificate {
        Some(certificate) => Some(fitting(context, app, certificate, &hostname).await?),
        None => first_fitting(context, app, &hostname).await?,
    };
    let mut db = context.store.write().await?;
    let most = context.limits().domains_per_app;
    if store::domains::of_app(&mut db, app.id).await?.len() as u64 > most {
        return Err(Error::Invalid(format!("An app may have {most} domains at most.")));
    }
    let in_use = |by: &str| Error::Invalid(format!("{hostname} is currently in use by {by}."));
    for other in store::domains::overlapping(&mut db, &hostname).await? {
        if other.hostname == hostname {
            return Err(in_use(if other.app == app.id { "this app" } else { "another app" }));
        }
        // A wildcard and a name below it may be two apps', but only of one owner: nobody takes a part of another's.
        let owner = store::apps::by_id(&mut db, other.app).await?.map(|app| app.owner);
        if owner != Some(app.owner) {
            return Err(in_use("another app"));
        }
    }
    let now = context.now();
    let id = DomainId::random();
    let domain = Domain {
        id,
        app: app.id,
        hostname,
        custom: true,
        sni_endpoint,
        progress: None,
        created_at: now,
        updated_at: now,
    };
    store::domains::insert(&mut db, &domain).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Add {} domain by user {}", domain.hostname, actor.email));
    context.nudge.nudge(app.id);
    Ok(domain)
}

/// Serves a domain with another certificate, or with the default one.
///
/// # Errors
/// When there is no such domain or certificate, it is the app's own domain, or the certificate is not for it.
pub async fn set_certificate(
    context: &Context,
    app: &App,
    actor: &Account,
    identity: &str,
    certificate: Option<&str>,
) -> Result<Domain> {
    let domain = find(context, app, identity).await?;
    if !domain.custom && certificate.is_some() {
        return Err(Error::Invalid(format!("{} is served with the platform's own certificate.", domain.hostname)));
    }
    let endpoint = match certificate {
        Some(certificate) => Some(fitting(context, app, certificate, &domain.hostname).await?),
        None => None,
    };
    let mut db = context.store.write().await?;
    store::domains::set_sni_endpoint(&mut db, domain.id, endpoint.as_ref().map(|(id, _)| *id), context.now()).await?;
    db.commit().await?;
    let name = endpoint.map_or_else(|| "default".to_owned(), |(_, name)| name);
    context.log_api(app.id, format!("Set certificate {name} for {} by user {}", domain.hostname, actor.email));
    context.nudge.nudge(app.id);
    find(context, app, identity).await
}

type Certificate = (SniEndpointId, String);

async fn fitting(context: &Context, app: &App, certificate: &str, hostname: &str) -> Result<Certificate> {
    let one = sni_endpoints::find(context, app, certificate).await?;
    sni_endpoints::covers(&one.endpoint.name, &one.facts, hostname)?;
    Ok((one.endpoint.id, one.endpoint.name))
}

async fn first_fitting(context: &Context, app: &App, hostname: &str) -> Result<Option<Certificate>> {
    let all = sni_endpoints::list(context, app).await?;
    let found = all.into_iter().find(|one| !one.endpoint.managed && one.facts.covers(hostname));
    Ok(found.map(|one| (one.endpoint.id, one.endpoint.name)))
}

/// Takes a host name from an app.
///
/// # Errors
/// When the app does not have it, or it is the app's own.
pub async fn remove(context: &Context, app: &App, actor: &Account, identity: &str) -> Result<Domain> {
    let domain = find(context, app, identity).await?;
    if !domain.custom {
        return Err(Error::Invalid(format!("{} is the app's own name and stays with it.", domain.hostname)));
    }
    let mut db = context.store.write().await?;
    store::domains::delete(&mut db, domain.id).await?;
    store::sni_endpoints::delete_unused(&mut db, app.id).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Remove {} domain by user {}", domain.hostname, actor.email));
    context.nudge.nudge(app.id);
    Ok(domain)
}

/// A host name in the form in which it is stored, if it can be one of an app's (RFC 1123 labels, `*` first allowed).
fn check(hostname: &str, apps_domain: &str) -> Result<String> {
    let name = hostname.trim().trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    let known = plain.contains('.') && plain.split('.').all(label) && name.len() <= 253;
    if !known || plain.parse::<IpAddr>().is_ok() {
        return Err(Error::Invalid(format!(
            "{hostname} is not a valid hostname. Use one like www.example.com or *.example.com."
        )));
    }
    let apps_domain = apps_domain.to_ascii_lowercase();
    if plain == apps_domain || plain.ends_with(&format!(".{apps_domain}")) {
        return Err(Error::Invalid(format!(
            "{hostname} is below the platform's own domain {apps_domain}. Rename the app to change its name there."
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_checked_and_made_equal() {
        let good = [("WWW.Example.com.", "www.example.com"), ("*.example.com", "*.example.com"), ("a_b.co", "a_b.co")];
        for (given, stored) in good {
            assert_eq!(check(given, "apps.test").expect(given), stored);
        }
        let bad = [
            "",
            "example",
            "ex ample.com",
            "-a.com",
            "a-.com",
            "a..com",
            "1.2.3.4",
            "*.*.com",
            "a*.com",
            "x/y.com",
            "shop.apps.test",
            "apps.test",
            "*.apps.test",
            "http://a.com",
            "a.com:80",
        ];
        for given in bad {
            assert!(check(given, "apps.test").is_err(), "{given}");
        }
    }
}
