//! The exec manager's API (CLIENT-CONTRACT 8): Basic credentials, the app's name as the user, the token as the password.

use axum::extract::{FromRequestParts, State};
use data_encoding::BASE64;
use http::{header, request::Parts};
use serde_json::{Value, json};

use super::{
    answer::{Reply, Result},
    body::Json,
    conventions::{identify, peer},
    member::{Identity, Member},
};
use crate::{
    ops::{self, Error, exec::New},
    state::Context,
    store::collaborators::Role,
};

/// Who asks for entry, and to which app.
#[derive(Debug, Clone)]
pub struct Visitor(Member);

impl FromRequestParts<Context> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self> {
        let caller = identify(context, &parts.headers, peer(&parts.extensions)).await?;
        let app = app_name(parts).ok_or(Error::Unauthorized("The user name must be the app's."))?;
        let app = ops::apps::find(context, &caller.account, &app, Role::Collaborator).await?;
        Ok(Self(Member { account: caller.account, app }))
    }
}

fn app_name(parts: &Parts) -> Option<String> {
    let (scheme, value) = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64.decode(value.trim().as_bytes()).ok())??;
    let text = String::from_utf8(decoded).ok()?;
    Some(text.split_once(':')?.0.to_owned())
}

/// `GET /api/v2`
pub async fn list(State(context): State<Context>, Visitor(member): Visitor) -> Result {
    let names = ops::exec::list(&context, &member.app);
    Ok(Reply::ok(&names.iter().map(|name| json!({ "dyno_name": name })).collect::<Vec<Value>>()))
}

/// `PUT /api/v2/{dyno}`
pub async fn enter(
    State(context): State<Context>,
    Visitor(member): Visitor,
    Identity(dyno): Identity,
    Json(new): Json<New>,
) -> Result {
    let entrance = ops::exec::enter(&context, &member.app, &member.account, &dyno, &new)?;
    Ok(Reply::ok(&json!({
        "tunnel_host": entrance.host,
        "tunnel_port": entrance.port,
        "client_user": entrance.user,
        "proxy_public_key": entrance.host_key,
        "dyno_ip": entrance.dyno_ip,
    })))
}
