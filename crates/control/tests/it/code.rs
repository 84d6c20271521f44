//! Buildpacks, features, and what the client asks in passing.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn buildpacks_are_set_in_order_and_cleared() {
    let api = Api::new().await;
    api.app("shop").await;
    assert_eq!(api.get("/apps/shop/buildpack-installations").await.is(200).json, json!([]));
    let updates = json!({"updates": [{"buildpack": "heroku/nodejs"}, {"buildpack": "https://github.com/a/b.git#v2"}]});
    let set = api.put("/apps/shop/buildpack-installations", updates).await.is(200).json;
    let expected = json!([
        {"ordinal": 0, "buildpack": {"url": "urn:buildpack:heroku/nodejs", "name": "heroku/nodejs"}},
        {"ordinal": 1, "buildpack": {"url": "https://github.com/a/b.git#v2", "name": "https://github.com/a/b.git#v2"}},
    ]);
    assert_eq!(set, expected);
    assert_eq!(api.get("/apps/shop/buildpack-installations").await.json, expected);
    let bad = json!({"updates": [{"buildpack": "heroku/cobol"}]});
    api.put("/apps/shop/buildpack-installations", bad).await.fails(422, "invalid_params");
    // What the client sends after the registry did not know a name.
    let unknown = api.put("/apps/shop/buildpack-installations", json!({"updates": [{}]})).await;
    assert!(unknown.json["message"].as_str().is_some_and(|text| text.contains("heroku/python")), "{}", unknown.json);
    unknown.fails(422, "invalid_params");
    assert_eq!(api.get("/apps/shop/buildpack-installations").await.json, expected);
    let cleared = api.put("/apps/shop/buildpack-installations", json!({"updates": []})).await.is(200).json;
    assert_eq!(cleared, json!([]));
    // They are for the next build; no release is made.
    assert_eq!(api.get("/apps/shop/releases/current").await.json["version"], 2);
}

#[tokio::test]
async fn the_registry_knows_what_is_built_in() {
    let api = Api::new().await;
    let request = Request::builder().uri("/buildpacks/heroku%2Fpython").body(Body::empty()).expect("a request");
    assert_eq!(api.send(request).await.is(200).json["blob_url"], "urn:buildpack:heroku/python");
    for more in ["/revisions", "/readme"] {
        let request = Request::builder().uri(format!("/buildpacks/heroku%2Fpython{more}"));
        api.send(request.body(Body::empty()).expect("a request")).await.is(200);
    }
    let search = "/buildpacks?in[namespace][]=heroku&in[name][]=python&in[name][]=go";
    let request = Request::builder().uri(search).body(Body::empty()).expect("a request");
    assert_eq!(api.send(request).await.is(200).json.as_array().map(Vec::len), Some(2));
    let request = Request::builder().uri("/buildpacks/heroku%2Fcobol").body(Body::empty()).expect("a request");
    api.send(request).await.fails(404, "not_found");
}

#[tokio::test]
async fn features_are_switched_and_stay_so() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.nudged();
    let all = api.get("/apps/shop/features").await.is(200).json;
    assert!(all.as_array().is_some_and(|all| all.len() >= 5));
    assert_eq!(api.get("/apps/shop/features/preboot").await.json["enabled"], true);
    assert_eq!(
        api.patch("/apps/shop/features/preboot", json!({"enabled": false})).await.is(200).json["enabled"],
        false
    );
    assert_eq!(api.nudged(), [app.id]);
    assert_eq!(api.get("/apps/shop/features/preboot").await.json["enabled"], false);
    assert_eq!(api.get("/apps/shop/features/runtime-heroku-exec").await.json["enabled"], true);
    let fixed = api.patch("/apps/shop/features/runtime-dyno-metadata", json!({"enabled": false})).await;
    fixed.fails(422, "invalid_params");
    api.patch("/apps/shop/features/preboot", json!({})).await.fails(422, "invalid_params");
    api.patch("/apps/shop/features/nothing", json!({"enabled": true})).await.fails(404, "not_found");
    api.get("/account/features").await.is(200);
    api.get("/account/features/dashboard-repositories-api").await.is(200);
    api.patch("/account/features/dashboard-repositories-api", json!({"enabled": true})).await.is(200);
    api.get("/account/features/nothing").await.fails(404, "not_found");
}

#[tokio::test]
async fn what_the_platform_has_is_told_to_everybody() {
    let api = Api::new().await;
    api.app("shop").await;
    for path in ["/stacks", "/stacks/heroku-24", "/regions", "/regions/us", "/api/v4/current-status", "/schema"] {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        api.send(request).await.is(200);
    }
    api.get("/apps/shop/available-stacks").await.is(200);
    for path in [
        "/teams",
        "/enterprise-accounts",
        "/addons",
        "/pipelines",
        "/apps/shop/addons",
        "/apps/shop/sni-endpoints",
        "/apps/shop/addon-attachments",
    ] {
        assert_eq!(api.get(path).await.is(200).json, json!([]), "{path}");
    }
    api.post("/actions/addons/resolve", json!({"addon": "x"})).await.fails(404, "not_found");
    api.post("/actions/addon-attachments/resolve", json!({"addon_attachment": "X"})).await.fails(404, "not_found");
}
