//! What holds for every request.

use axum::body::Body;
use dozen_domain::limits::Limits;
use http::{Method, Request};
use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn unknown_addresses_and_wrong_methods_are_herokus_not_found() {
    let api = Api::new().await;
    for (method, path) in
        [(Method::GET, "/nothing"), (Method::PUT, "/apps"), (Method::DELETE, "/account"), (Method::GET, "/")]
    {
        let answer = api.call(&api.token, method, path, None).await.fails(404, "not_found");
        let message = answer.json["message"].as_str().expect("a message").to_owned();
        assert!(message.starts_with("The requested API endpoint was not found."), "{message}");
    }
    let request = Request::builder().uri("/nothing").body(Body::empty()).expect("a request");
    api.send(request).await.fails(404, "not_found");
}

#[tokio::test]
async fn what_heroku_has_and_dozen_has_not_is_named_with_what_to_use_instead() {
    let api = Api::new().await;
    api.app("shop").await;
    for (method, path, resource, says) in [
        (Method::GET, "/teams/acme/apps", "team", "no teams"),
        (Method::POST, "/teams/apps", "team", "access:add"),
        (Method::PATCH, "/teams/apps/shop", "team", "no teams"),
        (Method::GET, "/spaces/north", "space", "no private spaces"),
        (Method::POST, "/account/app-transfers", "app_transfer", "does not transfer apps"),
        (Method::POST, "/pipelines", "pipeline", "git:remote"),
        (Method::POST, "/apps/shop/webhooks", "webhook", "drains:add"),
        (Method::POST, "/account/keys", "key", "HTTPS"),
        (Method::POST, "/oauth/clients", "oauth_client", "authorizations:create"),
    ] {
        let answer = api.call(&api.token, method, path, Some(json!({}))).await.fails(404, "not_found");
        assert_eq!(answer.json["resource"], resource, "{path}");
        assert!(answer.json["message"].as_str().is_some_and(|message| message.contains(says)), "{}", answer.text);
    }
    // What only begins alike is unknown.
    let answer = api.get("/teamsters").await.fails(404, "not_found");
    assert!(answer.text.contains("The requested API endpoint was not found."), "{}", answer.text);
}

#[tokio::test]
async fn bodies_that_are_no_json_are_a_bad_request() {
    let api = Api::new().await;
    let send = async |body: &'static str| {
        let request = Request::builder().method(Method::POST).uri("/apps");
        let request = request.header("authorization", format!("Bearer {}", api.token));
        api.send(request.body(Body::from(body)).expect("a request")).await
    };
    send("{").await.fails(400, "bad_request");
    send("name=x").await.fails(400, "bad_request");
    send("[1]").await.fails(422, "invalid_params");
    send("{\"name\": 5}").await.fails(422, "invalid_params");
    send("{\"unheard_of\": 5}").await.is(201);
    send("").await.is(201);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let limits = Limits { api_body_bytes: 100, ..Limits::default() };
    let api = Api::with(limits).await;
    api.post("/apps", json!({"name": "x".repeat(200)})).await.fails(413, "request_too_large");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let api = Api::new().await;
    api.app("shop").await;
    let first = api.get("/apps/shop").await.is(200);
    let etag = first.header("etag").expect("an etag").to_owned();
    let again = async |etag: &str| {
        let request = Request::builder().uri("/apps/shop").header("if-none-match", etag);
        let request = request.header("authorization", format!("Bearer {}", api.token));
        api.send(request.body(Body::empty()).expect("a request")).await
    };
    let same = again(&etag).await.is(304);
    assert!(same.text.is_empty());
    assert_eq!(same.header("etag"), Some(etag.as_str()));
    api.patch("/apps/shop", json!({"maintenance": true})).await.is(200);
    again(&etag).await.is(200);
}

#[tokio::test]
async fn every_accept_header_of_the_client_is_accepted() {
    let api = Api::new().await;
    for accept in ["3", "3.sdk", "3.docker-releases", "3.webhooks", "3.whatever"] {
        let request = Request::builder()
            .uri("/account")
            .header("accept", format!("application/vnd.heroku+json; version={accept}"))
            .header("request-id", "0c9be2e5-6f5b-4b0f-a6c5-0f2c6f4a2f0e,older".to_owned() + &"x".repeat(7000))
            .header("authorization", format!("Bearer {}", api.token));
        let answer = api.send(request.body(Body::empty()).expect("a request")).await.is(200);
        assert_eq!(answer.header("request-id"), Some("0c9be2e5-6f5b-4b0f-a6c5-0f2c6f4a2f0e"));
    }
}

#[tokio::test]
async fn an_empty_list_has_no_next_page() {
    let api = Api::new().await;
    let empty = api.range("/apps", "name ..; max=1").await.is(200);
    assert_eq!((empty.json, empty.headers.get("next-range")), (json!([]), None));
    for name in ["one", "two", "xyz"] {
        api.app(name).await;
    }
    let first = api.range("/users/~/apps", "name ..; max=2").await.is(206);
    assert_eq!(first.header("next-range"), Some("name ]two..; max=2"));
    let rest = api.range("/users/~/apps", "name ]two..; max=2").await.is(200);
    assert_eq!(rest.json[0]["name"], "xyz");
}
