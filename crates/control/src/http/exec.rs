//! The exec manager's API (CLIENT-CONTRACT 8): Basic credentials, the app's name as the user, the token as the password.
//! And the way to a port of a dyno for our own client, which needs no SSH: the connection itself is handed over.

use axum::{
    Extension,
    body::Body,
    extract::{FromRequestParts, Path, State},
    response::Response,
};
use data_encoding::BASE64;
use dozen_domain::limits::seconds;
use http::{HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
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

/// `GET /apps/{app}/dynos/{dyno}/ports/{port}` with `Upgrade: tcp`: the bytes of a connection to that port.
pub async fn forward(
    State(context): State<Context>,
    member: Member,
    Path((_, dyno, port)): Path<(String, String, String)>,
    upgrade: Option<Extension<OnUpgrade>>,
) -> Result<Response> {
    let Some(Extension(upgrade)) = upgrade else {
        return Err(Error::BadRequest("Ask for this with Connection: Upgrade and Upgrade: tcp.".to_owned()));
    };
    let wrong = |_| Error::BadRequest(format!("{port} is no port."));
    let port = port.parse().map_err(wrong)?;
    let forward = ops::exec::forward(&context, &member.app, &member.account, &dyno, port).await?;
    let patience = seconds(context.limits().attach_idle_seconds);
    tokio::spawn(forward.carry(patience, upgrade));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}
