//! What the official client asks in passing and what Heroku keeps on other hosts: answers that are true for a platform
//! without teams and pipelines; the schema; the state of the platform.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, Uri, header};
use serde_json::json;

use super::{
    answer::{Reply, Result},
    member::Member,
};
use crate::ops::Error;

/// The schema of heroku/platform-api (MIT licence), as it is.
const SCHEMA: &str = include_str!("../../../api/schema.json");

/// A list of something that nobody has here: teams, enterprise accounts.
pub async fn none() -> Result {
    Ok(Reply::ok(&[(); 0]))
}

/// A list of something that no app has here: webhooks.
pub async fn none_of_app(_: Member) -> Result {
    Ok(Reply::ok(&[(); 0]))
}

/// `GET /apps/{app}/pipeline-couplings`: one object, which there is none of.
pub async fn no_coupling(_: Member) -> Result {
    Err(Error::NotFoundBecause { resource: "pipeline_coupling", message: NO_PIPELINES.to_owned() })
}

/// The log drains of an add-on: those that there are have none.
pub async fn no_addon() -> Result {
    Err(Error::NotFound("add_on"))
}

/// `GET /schema`
pub async fn schema() -> Response {
    let kind = HeaderValue::from_static("application/schema+json");
    ([(header::CONTENT_TYPE, kind)], SCHEMA).into_response()
}

/// `GET /api/v4/current-status` of the status host: that this answers is the news.
pub async fn status() -> Result {
    let systems = ["Apps", "Data", "Tools"].map(|system| json!({"system": system, "status": "green"}));
    Ok(Reply::ok(&json!({"status": systems, "incidents": [], "scheduled": []})))
}

/// What Heroku has and this platform has not: beginnings of paths (`*` stands for one part), what is missing there, and
/// what to do about it.
const ABSENT: &[(&str, &str, &str)] = &[
    ("/teams", "team", NO_TEAMS),
    ("/enterprise-accounts", "team", NO_TEAMS),
    (
        "/spaces",
        "space",
        "Dozen has no private spaces: all apps run on the platform's own machine. Leave the space out of the command.",
    ),
    (
        "/account/app-transfers",
        "app_transfer",
        "Dozen does not transfer apps. Let the other account work on yours with heroku access:add EMAIL, or have it \
         create an app of its own and push the code there.",
    ),
    ("/pipelines", "pipeline", NO_PIPELINES),
    ("/pipeline-couplings", "pipeline_coupling", NO_PIPELINES),
    ("/pipeline-promotions", "pipeline_promotion", NO_PIPELINES),
    ("/pipeline-transfers", "pipeline_transfer", NO_PIPELINES),
    ("/review-apps", "review_app", NO_PIPELINES),
    ("/apps/*/review-app", "review_app", NO_PIPELINES),
    ("/app-setups", "app_setup", NO_PIPELINES),
    ("/test-runs", "test_run", NO_PIPELINES),
    ("/apps/*/webhooks", "webhook", NO_WEBHOOKS),
    ("/apps/*/webhook-deliveries", "webhook_delivery", NO_WEBHOOKS),
    ("/apps/*/webhook-events", "webhook_event", NO_WEBHOOKS),
    (
        "/account/keys",
        "key",
        "Dozen keeps no SSH keys of accounts: git goes over HTTPS with your API key, and heroku ps:exec needs none.",
    ),
    (
        "/oauth/clients",
        "oauth_client",
        "Dozen has no OAuth clients. Make a token for a program with heroku authorizations:create.",
    ),
    ("/client/v11", "database", NO_DATABASES),
    ("/postgres", "database", NO_DATABASES),
    ("/redis", "database", NO_DATABASES),
    ("/data", "database", NO_DATABASES),
];

const NO_TEAMS: &str = "Dozen has no teams: an app belongs to one account, and its owner lets others in with heroku \
                        access:add EMAIL. Leave the team out of the command.";
const NO_PIPELINES: &str = "Dozen has no pipelines. Give each stage an app of its own and push the same commit to it: \
                            heroku git:remote -a APP -r staging, then git push staging main.";
const NO_WEBHOOKS: &str = "Dozen has no webhooks. Follow an app with heroku logs --tail, or have its log sent to a \
                           service of yours with heroku drains:add URL.";
const NO_DATABASES: &str = "Dozen runs no databases. Use one of your own by its URL: heroku config:set \
                            DATABASE_URL=postgres://…";

/// What is missing at a path, and what to do about it.
fn absent(path: &str) -> Option<Error> {
    let begins = |pattern: &str| {
        let mut parts = path.split('/');
        pattern.split('/').all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
    };
    let (_, resource, message) = ABSENT.iter().find(|(pattern, ..)| begins(pattern))?;
    Some(Error::NotFoundBecause { resource, message: (*message).to_owned() })
}

/// Whatever is not in the table: what is known to be missing here is named, the rest gets Heroku's words, which also
/// cover a wrong method.
pub async fn unknown(uri: Uri) -> Response {
    if let Some(error) = absent(uri.path()) {
        return error.into_response();
    }
    let message = "The requested API endpoint was not found. Are you using the right HTTP verb (i.e. `GET` vs. `POST`), \
                   and did you specify your intended version with the `Accept` header?";
    let body = json!({"id": "not_found", "message": message});
    Reply::with(StatusCode::NOT_FOUND, &body).into_response()
}

/// What everybody is answered whose connection is one too many.
pub async fn crowded(State(most): State<u64>) -> Response {
    let message = format!(
        "The platform's API has {most} connections open, as many as it may. Try again in a moment; its operator can \
         allow more with DOZEN_LIMIT_API_CONNECTIONS."
    );
    let body = json!({"id": "too_many_connections", "message": message});
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (close, Reply::with(StatusCode::SERVICE_UNAVAILABLE, &body)).into_response()
}
