//! Releases: deploys, rollbacks, release phases, pagination.

use dozen_control::ops::{self, releases::Change};
use dozen_domain::ids::ReleaseId;
use serde_json::{Value, json};

use crate::api::Api;

fn versions(list: &Value) -> Vec<u64> {
    list.as_array().expect("a list").iter().filter_map(|release| release["version"].as_u64()).collect()
}

#[tokio::test]
async fn a_deploy_is_in_force_at_once_and_brings_its_process_types() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.lines();
    api.nudged();
    let types = [("web", "serve"), ("worker", "work"), ("release", "true")];
    assert_eq!(api.deploy(app.id, "2c3a0b2e1f0d", &types[..2]).await, 3);
    assert_eq!(api.nudged(), [app.id]);
    let release = api.get("/apps/shop/releases/3").await.is(200).json;
    assert_eq!((&release["description"], &release["current"]), (&json!("Deploy 2c3a0b2e"), &json!(true)));
    assert_eq!((&release["status"], &release["output_stream_url"]), (&json!("succeeded"), &json!(null)));
    assert_eq!(release["eligible_for_rollback"], true);
    let email = api.admin().await.email;
    let lines = [
        format!("app[api]: Deploy 2c3a0b2e by user {email}"),
        format!("app[api]: Release v3 created by user {email}"),
        format!("app[api]: Scaled to web@1:Basic worker@0:Basic by user {email}"),
    ];
    assert_eq!(api.lines(), lines);
    let info = api.get("/apps/shop").await.json;
    assert_eq!((&info["slug_size"], &info["buildpack_provided_description"]), (&json!(12_345), &json!("Python")));
    // A type that is gone goes, the others keep their quantity.
    api.patch("/apps/shop/formation/web", json!({"quantity": 3})).await.is(200);
    api.deploy(app.id, "bbb", &[("web", "serve2"), ("clock", "tick")]).await;
    let formation = api.get("/apps/shop/formation").await.is(200).json;
    let seen: Vec<_> = formation.as_array().expect("a list").iter().map(|f| (&f["type"], &f["quantity"])).collect();
    assert_eq!(seen, [(&json!("clock"), &json!(0)), (&json!("web"), &json!(3))]);
    assert_eq!(formation[1]["command"], "serve2");
}

#[tokio::test]
async fn a_release_with_a_release_phase_is_pending_until_it_ends() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.deploy(app.id, "aaa", &[("web", "old")]).await;
    api.deploy(app.id, "bbb", &[("web", "new"), ("worker", "w"), ("release", "migrate")]).await;
    let pending = api.get("/apps/shop/releases/4").await.json;
    assert_eq!((&pending["status"], &pending["current"]), (&json!("pending"), &json!(false)));
    assert!(pending["output_stream_url"].as_str().is_some_and(|url| url.starts_with("http://localhost:5000/")));
    assert_eq!(api.get("/apps/shop/formation").await.json.as_array().map(Vec::len), Some(1));

    let id = |release: &Value| release["id"].as_str().expect("an id").parse::<ReleaseId>().expect("an id");
    ops::releases::finish(&api.context, id(&pending), false).await.expect("an end");
    assert_eq!(api.get("/apps/shop/releases/4").await.json["status"], "failed");
    assert_eq!(api.get("/apps/shop/releases/3").await.json["current"], true);
    // The first answer stays.
    ops::releases::finish(&api.context, id(&pending), true).await.expect("an end");
    assert_eq!(api.get("/apps/shop/releases/4").await.json["status"], "failed");

    // What comes after a failed release starts from the code before it, and keeps the config vars of now.
    api.patch("/apps/shop/config-vars", json!({"A": "1"})).await.is(200);
    let after = api.get("/apps/shop/releases/5").await.json;
    assert_eq!(
        (&after["current"], &after["slug"]),
        (&json!(true), &api.get("/apps/shop/releases/3").await.json["slug"])
    );

    api.deploy(app.id, "ccc", &[("web", "new"), ("worker", "w"), ("release", "migrate")]).await;
    api.nudged();
    let pending = api.get("/apps/shop/releases/6").await.json;
    ops::releases::finish(&api.context, id(&pending), true).await.expect("an end");
    assert_eq!(api.get("/apps/shop/releases/current").await.json["version"], 6);
    assert_eq!(api.get("/apps/shop/formation").await.json.as_array().map(Vec::len), Some(3));
    assert_eq!(api.get("/apps/shop/formation/release").await.json["quantity"], 0);
    api.patch("/apps/shop/formation/release", json!({"quantity": 1})).await.fails(422, "invalid_params");
    assert!(api.nudged().contains(&app.id));
}

#[tokio::test]
async fn a_rollback_is_a_new_release_with_code_and_config_of_the_old_one() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    api.patch("/apps/shop/config-vars", json!({"A": "old"})).await.is(200);
    api.deploy(app.id, "aaa", &[("web", "one")]).await;
    api.patch("/apps/shop/config-vars", json!({"A": "new", "B": "2"})).await.is(200);
    api.deploy(app.id, "bbb", &[("web", "two")]).await;
    api.lines();
    let four = api.get("/apps/shop/releases/4").await.json;
    let back = api.post("/apps/shop/releases", json!({"release": four["id"]})).await.is(201).json;
    assert_eq!((&back["version"], &back["description"]), (&json!(7), &json!("Rollback to v4")));
    assert_eq!((&back["slug"], &back["current"]), (&four["slug"], &json!(true)));
    assert_eq!(api.get("/apps/shop/config-vars").await.json, json!({"A": "old"}));
    assert_eq!(api.get("/apps/shop/formation/web").await.json["command"], "one");
    assert!(api.lines()[0].starts_with("app[api]: Rollback to v4 by user "));
    // A number does as well as an id; what has no code cannot be gone back to.
    api.post("/apps/shop/releases", json!({"release": "v6"})).await.is(201);
    let refused = api.post("/apps/shop/releases", json!({"release": "1"})).await.fails(422, "invalid_params");
    assert_eq!(refused.json["message"], "Cannot roll back to v1: it has no code.");
    api.post("/apps/shop/releases", json!({"release": "99"})).await.fails(404, "not_found");
    api.post("/apps/shop/releases", json!({})).await.fails(422, "invalid_params");
}

#[tokio::test]
async fn a_slug_is_released_again_with_words_of_ones_own() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let slug = api.slug(app.id, "abc", &[("web", "serve")]).await;
    let made = api.post("/apps/shop/releases", json!({"slug": slug, "description": "Retry"})).await.is(201);
    assert_eq!(made.json["description"], "Retry");
    let other = api.app("other").await;
    let foreign = api.slug(other.id, "abc", &[("web", "serve")]).await;
    api.post("/apps/shop/releases", json!({"slug": foreign})).await.fails(404, "not_found");
    api.post("/apps/shop/releases", json!({"slug": "x"})).await.fails(404, "not_found");
}

#[tokio::test]
async fn releases_come_in_pages_newest_first_when_asked() {
    let api = Api::new().await;
    api.app("shop").await;
    for n in 0..20 {
        api.patch("/apps/shop/config-vars", json!({"N": n})).await.is(200);
    }
    let page = api.range("/apps/shop/releases", "version ..; max=15, order=desc").await.is(206);
    assert_eq!(versions(&page.json), (8..=22).rev().collect::<Vec<_>>());
    let next = page.header("next-range").expect("a next range").to_owned();
    assert_eq!(page.header("accept-ranges"), Some("version, id"));
    assert_eq!(page.header("content-range"), Some("version 22..8"));
    let rest = api.range("/apps/shop/releases", &next).await.is(200);
    assert_eq!(versions(&rest.json), (1..=7).rev().collect::<Vec<_>>());
    assert_eq!(rest.header("next-range"), None);
    assert_eq!(versions(&api.range("/apps/shop/releases", "version ..; order=desc,max=1").await.json), [22]);
    assert_eq!(versions(&api.get("/apps/shop/releases").await.is(200).json), (1..=22).collect::<Vec<_>>());
    api.range("/apps/shop/releases", "size 1..").await.fails(400, "bad_request");
}

#[tokio::test]
async fn two_changes_at_the_same_time_make_two_releases() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let admin = api.admin().await;
    let change = |n: usize| {
        let (context, admin) = (api.context.clone(), admin.clone());
        let key = format!("KEY_{n}").parse().expect("a key");
        let change = Change::Config(vec![(key, Some(dozen_domain::config::Secret::new("1")))]);
        tokio::spawn(async move { ops::releases::create(&context, app.id, &admin, change).await })
    };
    let changes: Vec<_> = (0..10).map(change).collect();
    for change in changes {
        change.await.expect("a task").expect("a release");
    }
    assert_eq!(versions(&api.get("/apps/shop/releases").await.json), (1..=12).collect::<Vec<_>>());
    assert_eq!(api.get("/apps/shop/config-vars").await.json.as_object().map(serde_json::Map::len), Some(10));
}

#[tokio::test]
async fn pages_are_the_same_whether_cut_from_the_whole_list_or_asked_of_the_database() {
    let api = Api::new().await;
    api.app("shop").await;
    for n in 0..11 {
        api.patch("/apps/shop/config-vars", json!({"N": n.to_string()})).await.is(200);
    }
    let whole = api.get("/apps/shop/releases").await.is(200).json;
    let mut ids: Vec<String> = list(&whole, "id");
    ids.sort();
    let versions: Vec<String> = (1..=13).map(|version| version.to_string()).collect();
    for (key, sorted) in [("version", versions), ("id", ids)] {
        for (order, sorted) in [("", sorted.clone()), (", order=desc", sorted.into_iter().rev().collect())] {
            let (mut seen, mut next) = (Vec::new(), Some(format!("{key} ..; max=3{order}")));
            while let Some(range) = next {
                let page = api.range("/apps/shop/releases", &range).await;
                next = page.header("next-range").map(str::to_owned);
                assert_eq!(page.status.as_u16(), if next.is_some() { 206 } else { 200 }, "{range}");
                seen.extend(list(&page.json, key));
            }
            assert_eq!(seen, sorted, "{key}{order}");
            let (from, to) = (&sorted[2], &sorted[5]);
            let page = api.range("/apps/shop/releases", &format!("{key} {from}..{to}; max=100{order}")).await;
            assert_eq!(list(&page.is(200).json, key), sorted[2..=5]);
            let page = api.range("/apps/shop/releases", &format!("{key} ]{from}..{to}; max=2{order}")).await;
            assert_eq!(list(&page.is(206).json, key), sorted[3..=4]);
        }
    }
    api.range("/apps/shop/releases", "size 3..").await.fails(400, "bad_request");
}

fn list(page: &serde_json::Value, key: &str) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    page.as_array().expect("a list").iter().map(|one| text(&one[key])).collect()
}
