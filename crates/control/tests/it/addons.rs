//! Add-ons: the scheduler that people add by habit.

use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn the_scheduler_is_added_found_and_removed_and_each_change_is_a_release() {
    let api = Api::new().await;
    api.app("shop").await;
    let service = &api.get("/addon-services").await.is(200).json[0];
    assert_eq!((&service["name"], &service["state"]), (&json!("scheduler"), &json!("ga")));
    api.get("/addon-services/scheduler").await.is(200);
    let plans = api.get("/addon-services/scheduler/plans").await.is(200).json;
    assert_eq!((&plans[0]["name"], &plans[0]["price"]["cents"]), (&json!("scheduler:standard"), &json!(0)));
    api.get("/plans/scheduler:standard").await.is(200);
    let refused = api.post("/apps/shop/addons", json!({"plan": {"name": "heroku-postgresql"}})).await;
    assert!(refused.fails(404, "not_found").text.contains("scheduler:standard"), "what there is, is told");

    let addon = api.post("/apps/shop/addons", json!({"plan": {"name": "scheduler"}})).await.is(201).json;
    let name = addon["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("scheduler-") && addon["state"] == "provisioned", "{addon}");
    let newest = |releases: &serde_json::Value| {
        let all = releases.as_array().expect("a list").clone();
        all.last().expect("one")["description"].as_str().expect("a text").to_owned()
    };
    assert_eq!(newest(&api.get("/apps/shop/releases").await.json), format!("Attach SCHEDULER (@ref:{name})"));
    api.post("/apps/shop/addons", json!({"plan": "scheduler:standard"})).await.fails(422, "invalid_params");

    for identity in
        [name.as_str(), "scheduler", "SCHEDULER", "scheduler:standard", addon["id"].as_str().expect("an id")]
    {
        let found = api.post("/actions/addons/resolve", json!({"addon": identity, "app": "shop"})).await.is(200);
        assert_eq!(found.json[0]["name"], json!(name), "{identity}");
        api.get(&format!("/apps/shop/addons/{identity}")).await.is(200);
    }
    api.post("/actions/addons/resolve", json!({"addon": "scheduler", "app": null})).await.fails(404, "not_found");
    api.post("/actions/addons/resolve", json!({"addon": "shop::SCHEDULER", "app": null})).await.is(200);
    let found = api.post("/actions/addon-attachments/resolve", json!({"addon_attachment": "SCHEDULER", "app": "shop"}));
    assert_eq!(found.await.is(200).json[0]["addon"]["name"], json!(name));
    let path = format!("/addons/{name}");
    api.get(&path).await.is(200);
    assert_eq!(api.get(&format!("{path}/addon-attachments")).await.is(200).json[0]["name"], "SCHEDULER");
    for path in ["/addons", "/apps/shop/addons", "/addon-attachments", "/apps/shop/addon-attachments"] {
        assert_eq!(api.get(path).await.is(200).json.as_array().map(Vec::len), Some(1), "{path}");
    }
    let stranger = api.account("bob@example.com").await;
    api.call(&stranger, http::Method::GET, &path, None).await.fails(404, "not_found");
    let renamed = api.patch("/apps/shop/addons/scheduler", json!({"name": "clockwork"})).await.is(200);
    assert_eq!(renamed.json["name"], "clockwork");

    // It has one plan and one attachment, and keeps them.
    api.patch("/apps/shop/addons/scheduler", json!({"plan": {"name": "scheduler:standard"}})).await.is(200);
    let other = api.patch("/apps/shop/addons/scheduler", json!({"plan": {"name": "scheduler:gold"}})).await;
    assert!(other.fails(404, "not_found").text.contains("scheduler:standard"), "what there is, is told");
    let attachment = api.get("/apps/shop/addon-attachments/scheduler").await.is(200).json;
    assert_eq!(attachment["name"], "SCHEDULER");
    let path = format!("/addon-attachments/{}", attachment["id"].as_str().expect("an id"));
    assert_eq!(api.get(&path).await.is(200).json, attachment);
    let kept = api.delete(&path).await.fails(422, "invalid_params");
    assert!(kept.text.contains("heroku addons:destroy clockwork -a shop"), "{}", kept.text);
    api.call(&stranger, http::Method::DELETE, &path, None).await.fails(404, "not_found");
    api.get("/apps/shop/addon-attachments/nothing").await.fails(404, "not_found");
    let second = json!({"addon": "clockwork", "app": "shop"});
    api.post("/addon-attachments", second).await.fails(422, "invalid_params");

    // With it go the jobs that people made.
    api.post("/apps/shop/cron-jobs", json!({"command": "true", "schedule": "@daily", "name": "tidy"})).await.is(201);
    assert_eq!(api.delete("/apps/shop/addons/clockwork").await.is(200).json["state"], "deprovisioned");
    assert_eq!(newest(&api.get("/apps/shop/releases").await.json), "Detach SCHEDULER (@ref:clockwork)");
    assert_eq!(api.get("/apps/shop/cron-jobs").await.json, json!([]));
    api.delete("/apps/shop/addons/clockwork").await.fails(404, "not_found");
}
