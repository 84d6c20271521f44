//! Accounts, from the first start on.

use dozen_control::{
    auth::token::Token,
    ops::{self, accounts::Admin},
    state::Settings,
};
use dozen_domain::{config::Secret, limits::Limits};
use http::Method;
use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn the_first_start_makes_an_account_and_keeps_it_private() {
    let api = Api::new().await;
    let path = api.directory.path().join("admin.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let admin = Admin::read(api.directory.path()).expect("admin.json");
    assert_eq!(api.get("/account").await.is(200).json["email"], admin.email.as_str());
}

#[tokio::test]
async fn given_names_are_used_once_and_the_second_start_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = Settings::of_directory(directory.path().to_owned());
    settings.admin_email = Some("me@example.com".to_owned());
    settings.admin_api_key = Some(Secret::new("my-own-key"));
    let api = Api::open(directory, settings).await;
    assert_eq!(api.token, "my-own-key");
    assert_eq!(api.get("/account").await.json["email"], "me@example.com");
    api.context.store.close().await;
    let mut settings = Settings::of_directory(api.directory.path().to_owned());
    settings.admin_email = Some("other@example.com".to_owned());
    let again = Api::open(api.directory, settings).await;
    assert_eq!(again.token, "my-own-key");
    assert_eq!(again.get("/account").await.json["email"], "me@example.com");
}

#[tokio::test]
async fn one_changes_and_sees_oneself_only() {
    let api = Api::new().await;
    let changed = api.patch("/account", json!({"name": "Ada", "beta": true, "unknown": 1})).await.is(200);
    assert_eq!((&changed.json["name"], &changed.json["beta"]), (&json!("Ada"), &json!(true)));
    assert_eq!(api.get("/users/~").await.json["name"], "Ada");
    let other = api.account("other@example.com").await;
    api.get("/users/other@example.com").await.fails(404, "not_found");
    api.call(&other, Method::GET, "/users/other@example.com/apps", None).await.is(200);
}

#[tokio::test]
async fn an_email_is_taken_once_whatever_its_case() {
    let api = Api::new().await;
    api.account("a@example.com").await;
    assert!(ops::accounts::create(&api.context, "A@example.com", None).await.is_err());
    assert!(ops::accounts::create(&api.context, "no-email", None).await.is_err());
}

#[tokio::test]
async fn tokens_and_passwords_are_not_in_the_database() {
    let api = Api::new().await;
    let password = Some(Secret::new("correct horse battery"));
    let (_, token) = ops::accounts::create(&api.context, "p@example.com", password).await.expect("an account");
    api.context.store.close().await;
    for name in ["dozen.db", "dozen.db-wal"] {
        let Ok(bytes) = std::fs::read(api.directory.path().join(name)) else { continue };
        for secret in [token.expose(), &api.token, "correct horse battery"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name} holds a secret");
        }
    }
}

#[tokio::test]
async fn the_account_may_make_so_many_calls_an_hour() {
    let limits = Limits { api_calls_per_hour: 3, ..Limits::default() };
    let api = Api::with(limits).await;
    assert_eq!(api.get("/account").await.header("ratelimit-remaining"), Some("2"));
    assert_eq!(api.get("/account/rate-limits").await.is(200).json["remaining"], 1);
    api.get("/account").await.is(200);
    let refused = api.get("/account").await.fails(429, "rate_limit");
    assert_eq!(refused.header("ratelimit-remaining"), Some("0"));
    api.clock.advance(1200);
    api.get("/account").await.is(200);
    assert!(ops::accounts::by_token(&api.context, &Token::presented("x")).await.is_err());
}

#[tokio::test]
async fn a_lost_or_damaged_admin_file_is_written_again_with_a_token_that_works() {
    for damage in [None, Some("{")] {
        let api = Api::new().await;
        let path = api.directory.path().join("admin.json");
        match damage {
            None => std::fs::remove_file(&path).expect("removed"),
            Some(text) => std::fs::write(&path, text).expect("a file"),
        }
        ops::accounts::ensure_admin(&api.context).await.expect("mended");
        let admin = Admin::read(api.directory.path()).expect("admin.json");
        api.call(admin.api_key.expose(), Method::GET, "/account", None).await.is(200);
        api.get("/account").await.is(200);
        assert_eq!(api.directory.path().join("admin.json.damaged").exists(), damage.is_some());
        let before = std::fs::read(&path).expect("a file");
        ops::accounts::ensure_admin(&api.context).await.expect("nothing to do");
        assert_eq!(std::fs::read(&path).expect("a file"), before);
    }
}

#[tokio::test]
async fn a_kill_while_the_first_token_is_replaced_leaves_one_that_works() {
    for replaced in [false, true] {
        let api = Api::new().await;
        let next = api.directory.path().join("admin.next.json");
        let new = if replaced { api.post("/oauth/authorizations", json!({})).await.is(201).json } else { json!(null) };
        let token = new["access_token"]["token"].as_str().unwrap_or("never stored").to_owned();
        let admin = Admin::read(api.directory.path()).expect("admin.json");
        std::fs::write(&next, json!({"email": admin.email, "api_key": token}).to_string()).expect("a file");
        ops::accounts::ensure_admin(&api.context).await.expect("mended");
        let after = Admin::read(api.directory.path()).expect("admin.json");
        assert_eq!(after.api_key.expose(), if replaced { &token } else { admin.api_key.expose() });
        api.call(after.api_key.expose(), Method::GET, "/account", None).await.is(200);
        assert!(!next.exists());
    }
}
