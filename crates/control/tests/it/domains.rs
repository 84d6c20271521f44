//! Host names of apps.

use http::Method;
use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn a_domain_is_added_shown_and_removed() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.nudged();
    let added =
        api.post("/apps/shop/domains", json!({"hostname": "WWW.Example.com", "sni_endpoint": null})).await.is(201);
    assert_eq!(added.json["hostname"], "www.example.com");
    assert_eq!((&added.json["kind"], &added.json["cname"]), (&json!("custom"), &json!("shop.localhost")));
    assert_eq!(api.nudged(), [app.id]);
    let all = api.range("/apps/shop/domains", "id ..; max=1000;").await.is(200);
    assert_eq!(all.json.as_array().map(Vec::len), Some(2));
    let own = all.json.as_array().and_then(|all| all.iter().find(|one| one["kind"] == "heroku")).expect("its own");
    assert_eq!((&own["hostname"], &own["cname"]), (&json!("shop.localhost"), &json!(null)));
    api.get("/apps/shop/domains/www.example.com").await.is(200);
    api.get(&format!("/apps/shop/domains/{}", added.json["id"].as_str().expect("an id"))).await.is(200);
    api.patch("/apps/shop/domains/www.example.com", json!({"sni_endpoint": null})).await.is(200);
    assert_eq!(api.nudged(), [app.id]);
    api.patch("/apps/shop/domains/www.example.com", json!({"sni_endpoint": "x"})).await.fails(404, "not_found");
    api.delete("/apps/shop/domains/www.example.com").await.is(200);
    assert_eq!(api.nudged(), [app.id]);
    api.delete("/apps/shop/domains/www.example.com").await.fails(404, "not_found");
    api.delete("/apps/shop/domains/shop.localhost").await.fails(422, "invalid_params");
    // No release was made.
    assert_eq!(api.get("/apps/shop/releases/current").await.json["version"], 2);
}

#[tokio::test]
async fn a_name_belongs_to_one_app_of_the_platform() {
    let api = Api::new().await;
    api.app("shop").await;
    api.app("other").await;
    let add = async |app: &str, name: &str| {
        api.post(&format!("/apps/{app}/domains"), json!({"hostname": name, "sni_endpoint": null})).await
    };
    add("shop", "www.example.com").await.is(201);
    let again = add("shop", "www.example.com").await.fails(422, "invalid_params");
    assert_eq!(again.json["message"], "www.example.com is currently in use by this app.");
    let foreign = add("other", "www.example.com.").await.fails(422, "invalid_params");
    assert_eq!(foreign.json["message"], "www.example.com is currently in use by another app.");
    add("other", "example.localhost").await.fails(422, "invalid_params");
    add("other", "not a name").await.fails(422, "invalid_params");
    add("other", "127.0.0.1").await.fails(422, "invalid_params");
    // A wildcard beside it is fine for the same owner.
    add("other", "*.example.com").await.is(201);
}

#[tokio::test]
async fn nobody_takes_a_part_of_anothers_wildcard() {
    let api = Api::new().await;
    api.app("shop").await;
    let other = api.account("other@example.com").await;
    api.call(&other, Method::POST, "/apps", Some(json!({"name": "theirs"}))).await.is(201);
    let theirs = async |name: &str| {
        api.call(&other, Method::POST, "/apps/theirs/domains", Some(json!({"hostname": name}))).await
    };
    let ours = async |name: &str| api.post("/apps/shop/domains", json!({"hostname": name})).await;
    ours("*.example.com").await.is(201);
    theirs("www.example.com").await.fails(422, "invalid_params");
    theirs("a.b.example.com").await.fails(422, "invalid_params");
    theirs("*.b.example.com").await.fails(422, "invalid_params");
    theirs("example.com").await.is(201);
    theirs("notexample.com").await.is(201);
    theirs("shop.example.org").await.is(201);
    ours("*.example.org").await.fails(422, "invalid_params");
}
