//! Formation and dynos.

use dozen_api::engine::{Engine, Process, Wanted};
use dozen_control::store::apps::App;
use dozen_domain::{config::Vars, ids::ReleaseId, image::Digest, limits::Limits, release::Version, settings::Stop};
use serde_json::json;

use crate::api::Api;

/// Has the engine run what the formation says, as the reconciler would.
async fn apply(api: &Api, app: &App) {
    let formation = api.get("/apps/shop/formation").await.json;
    let processes = formation.as_array().expect("a list").iter().map(|entry| Process {
        process_type: entry["type"].as_str().expect("a type").parse().expect("a type"),
        command: entry["command"].as_str().expect("a command").to_owned(),
        quantity: u32::try_from(entry["quantity"].as_u64().expect("a number")).expect("a small number"),
        size: entry["size"].as_str().expect("a size").parse().expect("a size"),
        stop: Stop::usual(&Limits::default()),
    });
    let wanted = Wanted {
        app: app.id,
        app_name: app.name.clone(),
        release: ReleaseId::random(),
        version: Version(3),
        image: Digest("sha256:0".to_owned()),
        env: Vars::new(),
        processes: processes.collect(),
        preboot: false,
        boot_timeout: std::time::Duration::from_secs(60),
        runtime_metrics: false,
        health_check: None,
        cycle: true,
    };
    api.engine.apply(wanted).await.expect("it runs");
}

async fn shop() -> (Api, App) {
    let api = Api::new().await;
    let app = api.app("shop").await;
    api.deploy(app.id, "abc", &[("web", "serve"), ("worker", "work --hard")]).await;
    api.lines();
    (api, app)
}

#[tokio::test]
async fn scaling_takes_texts_numbers_signs_and_sizes_of_any_case() {
    let (mut api, app) = shop().await;
    api.nudged();
    let updates = json!({"updates": [{"type": "web", "quantity": "2"}, {"type": "worker", "quantity": "+1", "size": "standard-2x"}]});
    let scaled = api.patch("/apps/shop/formation", updates).await.is(200).json;
    let seen: Vec<_> =
        scaled.as_array().expect("a list").iter().map(|f| (&f["type"], &f["quantity"], &f["size"])).collect();
    let expected = [(json!("web"), json!(2), json!("Basic")), (json!("worker"), json!(1), json!("Standard-2X"))];
    assert_eq!(seen, expected.each_ref().map(|(a, b, c)| (a, b, c)));
    let email = api.admin().await.email;
    assert_eq!(api.lines(), [format!("app[api]: Scaled to web@2:Basic worker@1:Standard-2X by user {email}")]);
    assert_eq!(api.nudged(), [app.id]);
    let one = api.patch("/apps/shop/formation/web", json!({"quantity": -1})).await.is(200).json;
    assert_eq!(one["quantity"], 1);
    let sized = api.patch("/apps/shop/formation/web", json!({"dyno_size": {"name": "ECO"}})).await.is(200).json;
    assert_eq!((&sized["size"], &sized["quantity"]), (&json!("Eco"), &json!(1)));
    // Scaling makes no release.
    assert_eq!(api.get("/apps/shop/releases/current").await.json["version"], 3);
}

#[tokio::test]
async fn a_refused_scaling_changes_nothing() {
    let (api, _) = shop().await;
    let refused = async |update, status, id| {
        let updates = json!({"updates": [{"type": "worker", "quantity": 1}, update]});
        api.patch("/apps/shop/formation", updates).await.fails(status, id).json["message"].clone()
    };
    let message = refused(json!({"type": "nothing", "quantity": 1}), 404, "not_found").await;
    assert_eq!(message, "Couldn't find that process type (nothing).");
    refused(json!({"type": "web", "quantity": "-2"}), 422, "invalid_params").await;
    refused(json!({"type": "web", "quantity": "many"}), 422, "invalid_params").await;
    refused(json!({"type": "web", "quantity": 1.5}), 422, "invalid_params").await;
    refused(json!({"type": "web", "quantity": 101}), 422, "invalid_params").await;
    refused(json!({"type": "web", "size": "gigantic"}), 422, "invalid_params").await;
    refused(json!({"type": "web", "docker_image": "x"}), 422, "invalid_params").await;
    assert_eq!(api.get("/apps/shop/formation/worker").await.json["quantity"], 0);
    assert!(api.lines().is_empty());
}

#[tokio::test]
async fn dynos_are_listed_restarted_and_stopped() {
    let (api, app) = shop().await;
    let updates = json!({"updates": [{"type": "web", "quantity": 11}, {"type": "worker", "quantity": 1}]});
    api.patch("/apps/shop/formation", updates).await.is(200);
    apply(&api, &app).await;
    let dynos = api.get("/apps/shop/dynos").await.is(200).json;
    let names: Vec<&str> = dynos.as_array().expect("a list").iter().filter_map(|dyno| dyno["name"].as_str()).collect();
    assert_eq!((names.len(), names[0], names[1], names[10], names[11]), (12, "web.1", "web.2", "web.11", "worker.1"));
    let web = &dynos[0];
    assert_eq!((&web["state"], &web["type"], &web["size"]), (&json!("up"), &json!("web"), &json!("Basic")));
    assert_eq!((&web["command"], &web["release"]["version"]), (&json!("serve"), &json!(3)));
    assert_eq!(web["release"]["id"], api.get("/apps/shop/releases/3").await.json["id"]);

    let id = async |name: &str| api.get(&format!("/apps/shop/dynos/{name}")).await.is(200).json["id"].clone();
    let (web, worker) = (id("web.1").await, id("worker.1").await);
    api.delete("/apps/shop/dynos/web.1").await.is(202);
    assert_ne!(id("web.1").await, web);
    assert_eq!(id("worker.1").await, worker);
    api.delete("/apps/shop/formations/worker").await.is(202);
    assert_ne!(id("worker.1").await, worker);
    let web = id("web.2").await;
    api.delete("/apps/shop/dynos").await.is(202);
    assert_ne!(id("web.2").await, web);
    api.post("/apps/shop/dynos/web.1/actions/stop", json!({})).await.is(202);
    api.post("/apps/shop/formations/worker/actions/stop", json!({})).await.is(202);

    // `heroku ps:restart web` says a process type where the address has a dyno.
    let (web, other, worker) = (id("web.1").await, id("web.2").await, id("worker.1").await);
    api.delete("/apps/shop/dynos/web").await.is(202);
    assert!(id("web.1").await != web && id("web.2").await != other);
    assert_eq!(id("worker.1").await, worker);
    api.post("/apps/shop/dynos/worker/actions/stop", json!({})).await.is(202);
    let missing = api.delete("/apps/shop/dynos/nothing").await.fails(404, "not_found");
    assert_eq!(missing.json["message"], "Couldn't find that dyno.");

    api.delete("/apps/shop/dynos/web.99").await.fails(404, "not_found");
    api.delete("/apps/shop/formations/nothing").await.fails(404, "not_found");
    api.post("/apps/shop/dynos/web.99/actions/stop", json!({})).await.fails(404, "not_found");
}

#[tokio::test]
async fn a_detached_one_off_runs_with_the_apps_environment() {
    let (api, _) = shop().await;
    api.engine.hold_one_offs(true);
    api.patch("/apps/shop/config-vars", json!({"A": "1", "B": "1"})).await.is(200);
    let body = json!({"command": "worker --once", "attach": false, "env": {"B": "2"}, "size": "standard-1x"});
    let made = api.post("/apps/shop/dynos", body).await.is(201).json;
    let name = made["name"].as_str().expect("a name");
    assert!(name.strip_prefix("run.").is_some_and(|digits| digits.len() == 4), "{name}");
    assert_eq!((&made["command"], &made["size"]), (&json!("work --hard --once"), &json!("Standard-1X")));
    let started = &api.engine.one_offs()[0];
    let value = |key: &str| started.env.get(key).map(|value| value.expose().to_owned());
    assert_eq!((value("A").as_deref(), value("B").as_deref()), (Some("1"), Some("2")));
    assert_eq!(value("PATH").as_deref(), Some("/app/bin"));
    assert_eq!(value("HEROKU_APP_NAME").as_deref(), Some("shop"));
    api.get(&format!("/apps/shop/dynos/{name}")).await.is(200);
    api.post("/apps/shop/dynos", json!({"command": " "})).await.fails(422, "invalid_params");
    api.post("/apps/shop/dynos", json!({})).await.fails(422, "invalid_params");
}

#[tokio::test]
async fn a_one_off_with_a_type_of_the_formation_is_counted_and_gets_no_requests() {
    let (api, app) = shop().await;
    api.engine.hold_one_offs(true);
    let most = api.context.limits().one_offs_per_app;
    let body = json!({"command": "bash", "type": "web"});
    for _ in 0..most {
        api.post("/apps/shop/dynos", body.clone()).await.is(201);
    }
    api.post("/apps/shop/dynos", body).await.fails(422, "invalid_params");
    let feed = dozen_control::routes_feed::Feed::new(api.context.clone());
    feed.refresh(app.id).await.expect("routes");
    let dynos = feed.app(app.id).expect("an entry").dynos;
    assert!(dynos.iter().all(|dyno| dyno.name.number() < 1000), "{dynos:?}");
}

#[tokio::test]
async fn nothing_runs_before_the_first_deploy() {
    let api = Api::new().await;
    api.app("shop").await;
    let refused = api.post("/apps/shop/dynos", json!({"command": "bash"})).await.fails(422, "invalid_params");
    assert!(refused.json["message"].as_str().is_some_and(|text| text.contains("git push heroku main")));
    assert_eq!(api.get("/apps/shop/dynos").await.is(200).json, json!([]));
    assert_eq!(api.get("/apps/shop/formation").await.is(200).json, json!([]));
}

#[tokio::test]
async fn sizes_are_listed() {
    let api = Api::new().await;
    api.app("shop").await;
    let sizes = api.get("/dyno-sizes").await.is(200).json;
    assert_eq!(sizes.as_array().map(Vec::len), Some(9));
    api.get("/dyno-sizes/standard-1x").await.is(200);
    api.get("/apps/shop/available-dyno-sizes").await.is(200);
    api.get("/dyno-sizes/gigantic").await.fails(404, "not_found");
}

#[tokio::test]
async fn a_port_of_a_dyno_is_had_by_an_upgrade_alone() {
    let (api, app) = shop().await;
    apply(&api, &app).await;
    api.get("/apps/shop/dynos/web.1/ports/80").await.fails(400, "bad_request");
}
