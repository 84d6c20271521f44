//! Who may reach which repository: Basic authentication with a token as the password, as the CLI's credential helper
//! answers it. The user name says nothing.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use axum::response::{IntoResponse as _, Response};
use data_encoding::BASE64;
use dozen_api::clock::Micros;
use dozen_domain::ids::{AccountId, AppId};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Push, said};
use crate::{Context, auth::token::Token, ops, reconcile::driver::chain, store::collaborators::Role};

const HOUR: Micros = 3_600_000_000;

/// Git requests of this hour, by app and account.
#[derive(Debug, Default)]
pub struct Requests(Mutex<HashMap<(AppId, AccountId), (Micros, u64)>>);

impl Requests {
    /// Counts one; says whether it is within the limit.
    fn take(&self, push: Push, now: Micros, most: u64) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (since, _)| now - *since < HOUR);
        let (_, count) = all.entry((push.app, push.account)).or_insert((now, 0));
        *count += 1;
        *count <= most
    }
}

/// Finds out who asks for which app, or answers why not. `counts`: the request is the first of a push or fetch.
pub(super) async fn check(
    context: &Context,
    name: &str,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    counts: bool,
) -> Result<Push, Response> {
    let Some(token) = password(headers) else { return Err(unauthorized()) };
    let account = match ops::accounts::by_token_from(context, &Token::presented(token), peer).await {
        Ok((authorization, account)) if ops::authorizations::permits_code(&authorization) => account,
        Ok(_) => return Err(refused(&ops::Error::Forbidden("Your token's scope does not permit git.".to_owned()))),
        Err(ops::Error::Unauthorized(_)) => return Err(unauthorized()),
        Err(error) => return Err(refused(&error)),
    };
    let Some(name) = name.strip_suffix(".git") else {
        return Err(said(StatusCode::NOT_FOUND, " !\tA repository is called <app>.git.\n".to_owned()));
    };
    let app = match ops::apps::find(context, &account, name, Role::Collaborator).await {
        Ok(app) => app,
        Err(ops::Error::NotFound(_)) => {
            return Err(said(StatusCode::NOT_FOUND, format!(" !\tNo such app as {name}.\n")));
        }
        Err(error) => return Err(refused(&error)),
    };
    let push = Push { app: app.id, account: account.id };
    let most = context.limits().git_requests_per_hour;
    if counts && !context.git_requests.take(push, context.now(), most) {
        let words = format!(" !\tMore than {most} git requests for {name} within an hour. Try again later.\n");
        return Err(said(StatusCode::TOO_MANY_REQUESTS, words));
    }
    Ok(push)
}

fn password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(BASE64.decode(encoded.trim().as_bytes()).ok()?).ok()?;
    plain.split_once(':').map(|(_, password)| password.to_owned())
}

fn unauthorized() -> Response {
    let words =
        " !\tInvalid credentials. Run `eval \"$(dozen env)\"` or `heroku login -i`, or use a token as the password.\n";
    let mut response = (StatusCode::UNAUTHORIZED, words).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Dozen\""));
    response
}

pub(super) fn refused(error: &ops::Error) -> Response {
    if error.is_ours() {
        tracing::error!(error = %chain(error), "git over HTTP failed");
    }
    let answer = error.answer();
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    said(status, format!(" !\t{}\n", answer.message))
}
