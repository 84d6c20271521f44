//! OAuth authorizations, and signing in with e-mail and password.

use axum::body::Body;
use data_encoding::BASE64;
use dozen_control::{listen::Via, ops};
use dozen_domain::{config::Secret, limits::Limits};
use http::{Method, Request};
use serde_json::{Value, json};

use crate::api::{Answer, Api};

async fn basic(api: &Api, user: &str, password: &str, method: Method, path: &str, body: Value) -> Answer {
    let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Basic {credentials}"));
    api.send(request.body(Body::from(body.to_string())).expect("a request")).await
}

fn token(answer: &Answer) -> String {
    answer.json["access_token"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn one_signs_in_with_a_password_or_a_token_in_its_place() {
    let api = Api::new().await;
    let password = Some(Secret::new("correct horse battery"));
    ops::accounts::create(&api.context, "p@example.com", password).await.expect("an account");
    let admin = api.admin().await.email;
    let body = json!({"description": "Heroku CLI login from here", "expires_in": 2_592_000, "scope": ["global"]});
    for (email, password) in [("P@example.com", "correct horse battery"), (&admin, &api.token)] {
        let made = basic(&api, email, password, Method::POST, "/oauth/authorizations", body.clone()).await.is(201);
        assert_eq!(made.json["access_token"]["expires_in"], 2_592_000);
        assert!(made.json["user"]["email"].as_str().is_some_and(|own| own.eq_ignore_ascii_case(email)));
        api.call(&token(&made), Method::GET, "/account", None).await.is(200);
    }
    for (email, password) in [("p@example.com", "wrong"), ("nobody@example.com", "x"), ("p@example.com", &api.token)] {
        let refused = basic(&api, email, password, Method::POST, "/oauth/authorizations", body.clone()).await;
        refused.fails(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_token_is_accepted_as_the_password_of_any_user_name() {
    let api = Api::new().await;
    for user in ["", "anything", "heroku"] {
        basic(&api, user, &api.token, Method::GET, "/account", json!({})).await.is(200);
    }
    basic(&api, "", "wrong", Method::GET, "/account", json!({})).await.fails(401, "unauthorized");
}

#[tokio::test]
async fn a_token_is_shown_once_and_then_with_stars() {
    let api = Api::new().await;
    let made = api.post("/oauth/authorizations", json!({"description": "ci"})).await.is(201);
    assert_eq!(made.json["scope"], json!(["global"]));
    api.post("/oauth/authorizations", json!({"expires_in": "60"})).await.is(201);
    let id = made.json["id"].as_str().expect("an id");
    let secret = token(&made);
    let shown = api.get(&format!("/oauth/authorizations/{id}")).await.is(200);
    let shown = token(&shown);
    assert!(shown.contains("**********") && shown != secret && secret.starts_with(&shown[..8]), "{shown}");
    let all = api.get("/oauth/authorizations").await.is(200);
    assert_eq!(all.json.as_array().map(Vec::len), Some(3));
    assert!(!all.text.contains(&secret));
    let own = api.call(&secret, Method::GET, "/oauth/authorizations/~", None).await.is(200);
    assert_eq!(own.json["id"], id);
}

#[tokio::test]
async fn an_authorization_is_changed_renewed_and_ended() {
    let api = Api::new().await;
    let made = api.post("/oauth/authorizations", json!({"expires_in": 60})).await.is(201);
    let path = format!("/oauth/authorizations/{}", made.json["id"].as_str().expect("an id"));
    let changed = api.patch(&path, json!({"description": "laptop", "client": {}})).await.is(200);
    assert_eq!(changed.json["description"], "laptop");
    let renewed = api.post(&format!("{path}/actions/regenerate-tokens"), json!({})).await.is(201);
    api.call(&token(&made), Method::GET, "/account", None).await.fails(401, "unauthorized");
    api.call(&token(&renewed), Method::GET, "/account", None).await.is(200);
    api.clock.advance(61);
    api.call(&token(&renewed), Method::GET, "/account", None).await.fails(401, "unauthorized");
    api.get(&path).await.fails(404, "not_found");

    let made = api.post("/oauth/authorizations", json!({})).await.is(201);
    let path = format!("/oauth/authorizations/{}", made.json["id"].as_str().expect("an id"));
    api.delete(&path).await.is(200);
    api.call(&token(&made), Method::GET, "/account", None).await.fails(401, "unauthorized");
    api.delete(&path).await.fails(404, "not_found");
    assert_eq!(api.delete("/oauth/sessions/~").await.fails(404, "not_found").json["resource"], "session");
}

#[tokio::test]
async fn the_first_accounts_token_may_be_renewed_and_its_file_follows() {
    let api = Api::new().await;
    let first = api.get("/oauth/authorizations/~").await.is(200);
    let path = format!("/oauth/authorizations/{}/actions/regenerate-tokens", first.json["id"].as_str().expect("an id"));
    let renewed = api.post(&path, json!({})).await.is(201);
    let admin = ops::accounts::Admin::read(api.directory.path()).expect("admin.json");
    assert_eq!(admin.api_key.expose(), token(&renewed));
}

#[tokio::test]
async fn nobody_sees_anothers_authorizations() {
    let api = Api::new().await;
    let made = api.post("/oauth/authorizations", json!({})).await.is(201);
    let path = format!("/oauth/authorizations/{}", made.json["id"].as_str().expect("an id"));
    let other = api.account("other@example.com").await;
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        api.call(&other, method, &path, Some(json!({}))).await.fails(404, "not_found");
    }
    let all = api.call(&other, Method::GET, "/oauth/authorizations", None).await;
    assert_eq!(all.json.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_scope_limits_what_its_token_does() {
    let api = Api::new().await;
    api.app("shop").await;
    let made = api.post("/oauth/authorizations", json!({"scope": ["read"]})).await.is(201);
    let narrow = token(&made);
    api.call(&narrow, Method::GET, "/apps/shop", None).await.is(200);
    api.call(&narrow, Method::GET, "/apps/shop/config-vars", None).await.fails(403, "forbidden");
    api.call(&narrow, Method::PATCH, "/apps/shop", Some(json!({}))).await.fails(403, "forbidden");
    api.call(&narrow, Method::POST, "/oauth/authorizations", Some(json!({}))).await.fails(403, "forbidden");
    // Nor does it open the way to a wider one as a password.
    let admin = api.admin().await.email;
    basic(&api, &admin, &narrow, Method::POST, "/oauth/authorizations", json!({})).await.fails(401, "unauthorized");
    api.post("/oauth/authorizations", json!({"scope": ["everything"]})).await.fails(422, "invalid_params");
    api.post("/oauth/authorizations", json!({"expires_in": 0})).await.fails(422, "invalid_params");
    let refused = api.post("/oauth/authorizations", json!({"expires_in": "abc"})).await.fails(422, "invalid_params");
    assert_eq!(refused.json["message"], r#"expires_in must be a whole number; it is "abc"."#);
}

/// As [`basic`] for a sign-in, from an address.
async fn sign_in(api: &Api, from: &str, email: &str, password: &str) -> Answer {
    let credentials = BASE64.encode(format!("{email}:{password}").as_bytes());
    let request = Request::builder()
        .method(Method::POST)
        .uri("/oauth/authorizations")
        .header("authorization", format!("Basic {credentials}"))
        .extension(Via { peer: format!("{from}:1234").parse().expect("an address"), tls: true });
    api.send(request.body(Body::from("{}")).expect("a request")).await
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down_where_it_comes_from() {
    let limits = Limits { login_failures_per_account: 3, auth_failures_per_address: 6, ..Limits::default() };
    let api = Api::with(limits).await;
    let password = "correct horse battery";
    for email in ["ann@example.com", "bob@example.com"] {
        ops::accounts::create(&api.context, email, Some(Secret::new(password))).await.expect("an account");
    }
    let ann = |from: &'static str, password: &'static str| sign_in(&api, from, "ann@example.com", password);
    for _ in 0..3 {
        ann("192.0.2.1", "a guess").await.fails(401, "unauthorized");
    }
    // The right one is not even looked at now.
    for tried in ["a guess", password] {
        let refused = ann("192.0.2.1", tried).await.fails(429, "rate_limit");
        let message = refused.json["message"].as_str().expect("a message");
        assert!(message.contains("Too many failed logins") && message.contains("20 minutes"), "{message}");
    }
    ann("192.0.2.2", password).await.is(201);
    sign_in(&api, "192.0.2.1", "bob@example.com", password).await.is(201);
    // A token is no guess: it is let in from anywhere.
    let admin = api.admin().await.email;
    for _ in 0..10 {
        sign_in(&api, "192.0.2.1", &admin, "a guess").await;
    }
    sign_in(&api, "192.0.2.1", &admin, "a guess").await.fails(429, "rate_limit");
    sign_in(&api, "192.0.2.1", &admin, &api.token).await.is(201);
    api.clock.advance(3_600);
    ann("192.0.2.1", password).await.is(201);
}

#[tokio::test]
async fn tokens_that_are_none_are_answered_429_in_the_end_and_right_ones_never() {
    let api = Api::with(Limits { auth_failures_per_address: 5, ..Limits::default() }).await;
    let ask = |token: String| {
        let request = Request::builder()
            .uri("/account")
            .header("authorization", format!("Bearer {token}"))
            .extension(Via { peer: "[2001:db8::1]:1234".parse().expect("an address"), tls: true });
        api.send(request.body(Body::empty()).expect("a request"))
    };
    for _ in 0..10 {
        ask("undefined".to_owned()).await.fails(401, "unauthorized");
    }
    for n in 0..5 {
        ask(format!("guess-{n}")).await.fails(401, "unauthorized");
    }
    ask("guess".to_owned()).await.fails(429, "rate_limit");
    ask(api.token.clone()).await.is(200);
    ask("undefined".to_owned()).await.fails(401, "unauthorized");
}
