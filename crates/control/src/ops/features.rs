//! Features: switches of an app or an account, with what each one does here.

use dozen_api::clock::Micros;
use dozen_domain::ids::FeatureId;
use uuid::Uuid;

use super::{Error, Result};
use crate::{
    state::Context,
    store::{self, accounts::Account, apps::App, features::Switch},
};

/// A feature that exists.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Fixed, the same on every installation.
    pub id: FeatureId,
    /// Name.
    pub name: &'static str,
    /// For people.
    pub display_name: &'static str,
    /// What it does here.
    pub description: &'static str,
    /// Listed by `heroku features`; the others by `heroku labs`.
    pub general: bool,
    /// Its state where nobody has switched it.
    pub default: bool,
    /// Cannot be switched: the platform always works so.
    pub fixed: bool,
}

/// The feature that keeps a browser at one dyno.
pub const SESSION_AFFINITY: &str = "http-session-affinity";
/// The feature that sends plain HTTP to HTTPS.
pub const HTTPS_REDIRECT: &str = "http-redirect-to-https";

const fn id(n: u128) -> FeatureId {
    FeatureId(Uuid::from_u128(0x6b0f_4f1c_2d8e_4c52_9e01_0000_0000_0000 + n))
}

/// New web dynos are up before old ones stop.
pub const PREBOOT: &str = "preboot";
/// Load and memory of dynos are written into the log.
pub const RUNTIME_METRICS: &str = "log-runtime-metrics";
/// Dynos do not cycle; Heroku's name for it on Fir.
pub const NO_CYCLING: &str = "fir-bypass-daily-dyno-restarts";
/// Every request to a web dyno has a connection of its own.
pub const NO_KEEP_ALIVE_TO_DYNOS: &str = "http-disable-keepalive-to-dyno";
/// Web dynos are spoken to in HTTP/2. Heroku has no such feature.
pub const HTTP2_TO_DYNOS: &str = "http2-to-dyno";

/// A client's `Expect: 100-continue` is answered by the dyno. Heroku has it in its labs.
pub const END_TO_END_CONTINUE: &str = "http-end-to-end-continue";

/// Dynos can be entered.
pub const EXEC: &str = "runtime-heroku-exec";

/// Features of apps.
pub const APP: &[Definition] = &[
    Definition {
        id: id(1),
        name: SESSION_AFFINITY,
        display_name: "Session affinity",
        description: "Sends the requests of one browser to the same web dyno, by a cookie, for as long as that dyno runs.",
        general: true,
        default: false,
        fixed: false,
    },
    Definition {
        id: id(2),
        name: NO_KEEP_ALIVE_TO_DYNOS,
        display_name: "No keep-alive to dynos",
        description: "Opens a new connection to the web dyno for every request.",
        general: true,
        default: false,
        fixed: false,
    },
    Definition {
        id: id(3),
        name: RUNTIME_METRICS,
        display_name: "Runtime metrics in the log",
        description: "Writes load and memory of every dyno into the app's log every 20 seconds.",
        general: true,
        default: false,
        fixed: false,
    },
    Definition {
        id: id(4),
        name: PREBOOT,
        display_name: "Preboot",
        description: "Starts new web dynos before old ones are stopped, and goes back to the former release when those of a new one never come up. Switch it off to have old dynos stopped first, as on Heroku.",
        general: true,
        default: true,
        fixed: false,
    },
    Definition {
        id: id(8),
        name: NO_CYCLING,
        display_name: "No daily dyno restarts",
        description: "Leaves dynos running where they would be replaced by fresh ones once a day.",
        general: false,
        default: false,
        fixed: false,
    },
    Definition {
        id: id(9),
        name: HTTPS_REDIRECT,
        display_name: "Redirect to HTTPS",
        description: "Answers plain HTTP requests with a redirect to the same address over HTTPS.",
        general: true,
        default: false,
        fixed: false,
    },
    Definition {
        id: id(5),
        name: "runtime-dyno-metadata",
        display_name: "Dyno metadata",
        description: "Tells processes about app and release in HEROKU_* variables. Always on.",
        general: false,
        default: true,
        fixed: true,
    },
    Definition {
        id: id(10),
        name: HTTP2_TO_DYNOS,
        display_name: "HTTP/2 to dynos",
        description: "Speaks HTTP/2 in clear text with web dynos from the first byte, as gRPC needs it.",
        general: true,
        default: false,
        fixed: false,
    },
    Definition {
        id: id(11),
        name: END_TO_END_CONTINUE,
        display_name: "End-to-end 100-continue",
        description: "Passes Expect: 100-continue on to web dynos and their 100 Continue back, in place of the router's own.",
        general: false,
        default: false,
        fixed: false,
    },
    Definition {
        id: id(6),
        name: EXEC,
        display_name: "Heroku Exec",
        description: "Lets heroku ps:exec and its family into dynos without changing them. Always on.",
        general: false,
        default: true,
        fixed: true,
    },
];

/// Features of accounts.
pub const ACCOUNT: &[Definition] = &[Definition {
    id: id(7),
    name: "dashboard-repositories-api",
    display_name: "Repositories API",
    description: "Lets clients ask the platform for a pipeline's repository. Always on.",
    general: false,
    default: true,
    fixed: true,
}];

/// A feature and how it is switched.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Which.
    pub definition: &'static Definition,
    /// On or off.
    pub enabled: bool,
    /// When it was first switched, or what it belongs to was made.
    pub created_at: Micros,
    /// When it was last switched.
    pub updated_at: Micros,
}

fn join(definition: &'static Definition, switches: &[Switch], since: Micros) -> Feature {
    let switch = switches.iter().find(|switch| switch.name == definition.name);
    Feature {
        definition,
        enabled: switch.map_or(definition.default, |switch| switch.enabled),
        created_at: switch.map_or(since, |switch| switch.created_at),
        updated_at: switch.map_or(since, |switch| switch.updated_at),
    }
}

/// Says whether one of an app's features is on, by its name and what was switched.
pub fn is_on(switches: &[Switch], name: &str) -> bool {
    let switched = switches.iter().find(|switch| switch.name == name).map(|switch| switch.enabled);
    switched.unwrap_or_else(|| APP.iter().any(|definition| definition.name == name && definition.default))
}

fn definition(all: &'static [Definition], identity: &str) -> Result<&'static Definition> {
    let found = all.iter().find(|definition| definition.name == identity || definition.id.to_string() == identity);
    found.ok_or(Error::NotFound("feature"))
}

fn check(definition: &Definition, enabled: bool) -> Result<()> {
    if definition.fixed && enabled != definition.default {
        return Err(Error::Invalid(format!("{} is always on here.", definition.name)));
    }
    Ok(())
}

/// An app's features.
///
/// # Errors
/// When the database fails.
pub async fn of_app(context: &Context, app: &App) -> Result<Vec<Feature>> {
    let switches = store::features::of_app(&mut *context.store.read().await?, app.id).await?;
    Ok(APP.iter().map(|definition| join(definition, &switches, app.created_at)).collect())
}

/// One of an app's features, by name or id.
///
/// # Errors
/// When it does not exist or the database fails.
pub async fn find_of_app(context: &Context, app: &App, identity: &str) -> Result<Feature> {
    let wanted = definition(APP, identity)?;
    let all = of_app(context, app).await?;
    all.into_iter().find(|feature| feature.definition == wanted).ok_or(Error::NotFound("feature"))
}

/// Switches one of an app's features.
///
/// # Errors
/// When it does not exist, cannot be switched, or the database fails.
pub async fn switch_app(context: &Context, app: &App, actor: &Account, identity: &str, on: bool) -> Result<Feature> {
    let wanted = definition(APP, identity)?;
    check(wanted, on)?;
    let mut db = context.store.write().await?;
    store::features::switch_app(&mut db, app.id, wanted.name, on, context.now()).await?;
    db.commit().await?;
    let word = if on { "Enable" } else { "Disable" };
    context.log_api(app.id, format!("{word} {} feature by user {}", wanted.name, actor.email));
    context.nudge.nudge(app.id);
    find_of_app(context, app, identity).await
}

/// An account's features.
///
/// # Errors
/// When the database fails.
pub async fn of_account(context: &Context, account: &Account) -> Result<Vec<Feature>> {
    let switches = store::features::of_account(&mut *context.store.read().await?, account.id).await?;
    Ok(ACCOUNT.iter().map(|definition| join(definition, &switches, account.created_at)).collect())
}

/// One of an account's features, by name or id.
///
/// # Errors
/// When it does not exist or the database fails.
pub async fn find_of_account(context: &Context, account: &Account, identity: &str) -> Result<Feature> {
    let wanted = definition(ACCOUNT, identity)?;
    let all = of_account(context, account).await?;
    all.into_iter().find(|feature| feature.definition == wanted).ok_or(Error::NotFound("feature"))
}

/// Switches one of an account's features.
///
/// # Errors
/// When it does not exist, cannot be switched, or the database fails.
pub async fn switch_account(context: &Context, account: &Account, identity: &str, on: bool) -> Result<Feature> {
    let wanted = definition(ACCOUNT, identity)?;
    check(wanted, on)?;
    let mut db = context.store.write().await?;
    store::features::switch_account(&mut db, account.id, wanted.name, on, context.now()).await?;
    db.commit().await?;
    find_of_account(context, account, identity).await
}
