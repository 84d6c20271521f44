//! Apps.

use dozen_domain::limits::Limits;
use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn an_app_is_made_with_two_releases() {
    let mut api = Api::new().await;
    let app = api.post("/apps", json!({"name": "shop", "region": "us", "stack": "heroku-24"})).await.is(201);
    assert_eq!(app.json["web_url"], "http://shop.localhost:8080/");
    assert_eq!(app.json["git_url"], "https://localhost:5443/shop.git");
    assert_eq!(app.json["generation"]["name"], "cedar");
    assert_eq!(app.json["slug_size"], json!(null));
    let releases = api.get("/apps/shop/releases").await.is(200);
    let seen: Vec<_> =
        releases.json.as_array().expect("a list").iter().map(|r| (&r["version"], &r["description"])).collect();
    assert_eq!(seen, [(&json!(1), &json!("Initial release")), (&json!(2), &json!("Enable Logplex"))]);
    let email = api.admin().await.email;
    let lines = [
        format!("app[api]: Initial release by user {email}"),
        format!("app[api]: Release v1 created by user {email}"),
        format!("app[api]: Enable Logplex by user {email}"),
        format!("app[api]: Release v2 created by user {email}"),
    ];
    assert_eq!(api.lines(), lines);
    assert!(!api.nudged().is_empty());
}

#[tokio::test]
async fn a_release_and_a_scaling_change_the_app() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let updated = async || api.get("/apps/shop").await.is(200).json["updated_at"].clone();
    let made = updated().await;
    let mut before = made.clone();
    let mut later = async |what: &str| {
        let now = updated().await;
        assert!(now.as_str() > before.as_str(), "{what}: {before}, {now}");
        before = now;
    };
    api.clock.advance(60);
    api.deploy(app.id, "abc", &[("web", "serve")]).await;
    later("a deploy").await;
    api.clock.advance(60);
    api.patch("/apps/shop/config-vars", json!({"A": "1"})).await.is(200);
    later("a config change").await;
    api.clock.advance(60);
    api.patch("/apps/shop/formation/web", json!({"quantity": 2})).await.is(200);
    later("a scaling").await;
    let info = api.get("/apps/shop").await.is(200).json;
    assert_eq!((&info["created_at"], &info["create_status"]), (&made, &json!("complete")));
}

#[tokio::test]
async fn an_app_without_a_name_gets_one() {
    let api = Api::new().await;
    for body in [json!({}), json!({"name": null})] {
        let app = api.post("/apps", body).await.is(201);
        let name = app.json["name"].as_str().expect("a name").to_owned();
        let parts: Vec<&str> = name.split('-').collect();
        assert!(parts.len() == 3 && parts[2].len() == 5 && parts[2].bytes().all(|b| b.is_ascii_digit()), "{name}");
        api.get(&format!("/apps/{name}")).await.is(200);
    }
}

#[tokio::test]
async fn bad_names_and_taken_ones_are_refused_in_words() {
    let api = Api::new().await;
    api.app("shop").await;
    let check = async |name: &str, message: &str| {
        let answer = api.post("/apps", json!({"name": name})).await.fails(422, "invalid_params");
        assert_eq!(answer.json["message"], message);
    };
    check("shop", "Name shop is already taken").await;
    check("ab", "Name is too short (minimum is 3 characters)").await;
    check(&"a".repeat(31), "Name is too long (maximum is 30 characters)").await;
    let letters = "Name must start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes.";
    check("Shop", letters).await;
    check("shop-", letters).await;
    api.post("/apps", json!({"stack": "heroku-16"})).await.fails(422, "invalid_params");
    api.post("/apps", json!({"region": "mars"})).await.fails(422, "invalid_params");
}

#[tokio::test]
async fn an_app_is_found_by_name_and_id_and_renamed_with_its_domain() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    assert_eq!(api.get(&format!("/apps/{}", app.id)).await.is(200).json["name"], "shop");
    api.app("other").await;
    api.nudged();
    api.patch("/apps/shop", json!({"name": "other"})).await.fails(422, "invalid_params");
    api.patch("/apps/shop", json!({"name": "store"})).await.is(200);
    assert_eq!(api.nudged(), [app.id]);
    api.get("/apps/shop").await.fails(404, "not_found");
    let domains = api.get("/apps/store/domains").await.is(200);
    assert_eq!(domains.json[0]["hostname"], "store.localhost");
    api.app("shop").await;
}

#[tokio::test]
async fn maintenance_is_switched_and_told() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.lines();
    api.nudged();
    assert_eq!(api.patch("/apps/shop", json!({"maintenance": true})).await.is(200).json["maintenance"], true);
    let email = api.admin().await.email;
    assert_eq!(api.lines(), [format!("app[api]: Maintenance mode on by user {email}")]);
    assert_eq!(api.nudged(), [app.id]);
    api.patch("/apps/shop", json!({"maintenance": "yes"})).await.fails(422, "invalid_params");
    api.patch("/apps/shop", json!({"build_stack": "heroku-24"})).await.is(200);
    api.patch("/apps/shop", json!({"build_stack": "container"})).await.fails(422, "invalid_params");
}

#[tokio::test]
async fn a_destroyed_app_is_gone_with_everything() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.deploy(app.id, "abc", &[("web", "serve")]).await;
    api.post("/apps/shop/domains", json!({"hostname": "www.example.com", "sni_endpoint": null})).await.is(201);
    api.nudged();
    api.delete("/apps/shop").await.is(200);
    assert_eq!(api.nudged(), [app.id]);
    api.get("/apps/shop").await.fails(404, "not_found");
    // Name and host name are free again.
    api.app("shop").await;
    api.post("/apps/shop/domains", json!({"hostname": "www.example.com", "sni_endpoint": null})).await.is(201);
}

#[tokio::test]
async fn an_account_has_a_limited_number_of_apps() {
    let limits = Limits { apps_per_account: 1, ..Limits::default() };
    let api = Api::with(limits).await;
    api.app("one").await;
    api.post("/apps", json!({"name": "two"})).await.fails(422, "invalid_params");
}

#[tokio::test]
async fn apps_are_filtered_by_id() {
    let api = Api::new().await;
    let (one, _) = (api.app("one").await, api.app("two").await);
    let found = api.post("/filters/apps", json!({"in": {"id": [one.id]}})).await.is(200);
    assert_eq!(found.json.as_array().map(Vec::len), Some(1));
    assert_eq!(found.json[0]["name"], "one");
}
