//! What holds for every request: request ids, credentials, rate limit, conditional answers.

use std::net::IpAddr;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use dozen_domain::config::Secret;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use uuid::Uuid;

use super::member::Caller;
use crate::{
    auth::token::Token,
    listen::Via,
    ops::{self, Error},
    origin,
    state::Context,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");

/// For every request: answers one of the client's request ids, and 304 where the client has the answer already.
pub async fn every(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let known = request.headers().get(header::IF_NONE_MATCH).cloned().filter(|_| request.method() == Method::GET);
    let host = origin::host(request.extensions().get::<Via>().copied(), request.headers());
    let mut response = origin::scope(host, next.run(request)).await;
    if let (Some(known), Some(etag)) = (known, response.headers().get(header::ETAG))
        && response.status() == StatusCode::OK
        && matches_etag(&known, etag)
    {
        let etag = etag.clone();
        response = StatusCode::NOT_MODIFIED.into_response();
        response.headers_mut().insert(header::ETAG, etag);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// For every request that needs an account: finds out whose it is, counts it, and says how many are left.
pub async fn authenticated(State(context): State<Context>, request: Request<Body>, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match caller(&context, &parts).await {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let left = context.rates.take(caller.account.id, context.now());
    parts.extensions.insert(caller);
    let mut response = match left {
        Some(_) => next.run(Request::from_parts(parts, body)).await,
        None => Error::RateLimited.into_response(),
    };
    response.headers_mut().insert(RATE_LIMIT_REMAINING, HeaderValue::from(left.unwrap_or(0)));
    response
}

/// The first of the client's ids that is one; the official client sends a list that grows to 7 KiB.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    const LENGTHS: std::ops::RangeInclusive<usize> = 20..=200; // as the router accepts (BEHAVIOUR 2.2)
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let plain = |id: &&str| LENGTHS.contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let id = given.split(',').map(str::trim).find(plain).map(str::to_owned);
    let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn matches_etag(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else { return false };
    known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag == etag)
}

/// What a client presents.
enum Credentials {
    /// A bearer token, or the password of a client that sends the token so.
    Token(Token),
    /// E-mail and something that may be a token or a password.
    Password(String, Secret),
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        // What the official client sends when it has none.
        if value == "undefined" {
            return None;
        }
        return Some(Credentials::Token(Token::presented(value)));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(value.as_bytes()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials::Password(user.to_owned(), Secret::new(password)))
}

/// The account that some headers speak for: a token as `Bearer` or as the password of `Basic`, under any user name.
///
/// # Errors
/// [`Error::Unauthorized`] when there is none, [`Error::TooManyFailures`] when that was so too often at this address, or
/// when the database fails.
pub async fn identify(context: &Context, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Caller, Error> {
    let token = match credentials(headers) {
        Some(Credentials::Token(token)) => token,
        Some(Credentials::Password(_, password)) => Token::presented(password.expose()),
        None => return Err(Error::Unauthorized("There were no credentials in your `Authorization` header.")),
    };
    let (authorization, account) = ops::accounts::by_token_from(context, &token, peer).await?;
    Ok(Caller { account, authorization: Some(authorization) })
}

/// The address that a request comes from.
pub fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Via>().map(|via| via.peer.ip())
}

async fn caller(context: &Context, request: &Parts) -> Result<Caller, Error> {
    let peer = peer(&request.extensions);
    // Passwords are slow to check, on purpose. They open only the way to a token.
    let login = request.method == Method::POST && request.uri.path() == "/oauth/authorizations";
    if let (true, Some(Credentials::Password(email, password))) = (login, credentials(&request.headers))
        && !email.is_empty()
    {
        let account = ops::accounts::by_password(context, &email, password, peer).await?;
        return Ok(Caller { account, authorization: None });
    }
    let caller = identify(context, &request.headers, peer).await?;
    let scopes = caller.authorization.iter().flat_map(|authorization| &authorization.scope);
    if scopes.into_iter().any(|scope| permits(scope, &request.method, request.uri.path())) {
        Ok(caller)
    } else {
        Err(Error::Forbidden("Your token's scope does not permit this request.".to_owned()))
    }
}

/// Whether a scope permits a request (Dev Center: OAuth, scopes). Config vars, and releases with them, are protected.
fn permits(scope: &str, method: &Method, path: &str) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let protected = path.contains("/config-vars") || path.contains("/releases") || path.contains("/slugs");
    let personal = path.starts_with("/oauth")
        || path.starts_with("/account")
        || (path.starts_with("/users/") && !path.ends_with("/apps"));
    match scope {
        "global" => true,
        "identity" => reads && path == "/account",
        "read" => reads && !protected && !path.starts_with("/oauth"),
        "read-protected" => reads && !path.starts_with("/oauth"),
        "write" => (reads && !path.starts_with("/oauth") || !personal) && !protected,
        "write-protected" => reads && !path.starts_with("/oauth") || !personal,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_clients_request_ids_is_answered() {
        let check = |given: &str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(given).expect("a header"));
            let id = request_id(&headers);
            let id = id.to_str().expect("text");
            match expected {
                Some(expected) => assert_eq!(id, expected),
                None => assert!(Uuid::parse_str(id).is_ok(), "{id}"),
            }
        };
        let one = "0c9be2e5-6f5b-4b0f-a6c5-0f2c6f4a2f0e";
        check(&format!("{one},older"), Some(one));
        check(&format!("x, {one}"), Some(one));
        check("short", None);
        check("contains spaces and other things", None);
    }

    #[test]
    fn a_scope_permits_what_it_says() {
        let check = |scope: &str, method: Method, path: &str, expected: bool| {
            assert_eq!(permits(scope, &method, path), expected, "{scope} {method} {path}");
        };
        check("global", Method::DELETE, "/oauth/authorizations/x", true);
        check("identity", Method::GET, "/account", true);
        check("identity", Method::GET, "/apps", false);
        check("read", Method::GET, "/apps/a", true);
        check("read", Method::GET, "/apps/a/config-vars", false);
        check("read", Method::DELETE, "/apps/a", false);
        check("read-protected", Method::GET, "/apps/a/config-vars", true);
        check("write", Method::DELETE, "/apps/a/dynos", true);
        check("write", Method::PATCH, "/apps/a/config-vars", false);
        check("write", Method::POST, "/oauth/authorizations", false);
        check("write-protected", Method::PATCH, "/apps/a/config-vars", true);
        check("write-protected", Method::PATCH, "/account", false);
        check("nonsense", Method::GET, "/account", false);
    }

    #[test]
    fn etags_match_weak_or_in_a_list() {
        let value = |text: &str| HeaderValue::from_str(text).expect("a header");
        assert!(matches_etag(&value("\"a\", W/\"b\""), &value("\"b\"")));
        assert!(matches_etag(&value("*"), &value("\"b\"")));
        assert!(!matches_etag(&value("\"a\""), &value("\"b\"")));
    }
}
