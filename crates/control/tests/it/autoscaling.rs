//! Autoscaling: what people may ask for, and what comes of how requests went, on a clock that the test moves.

use std::sync::Arc;

use dozen_api::{
    routes::{DynoState, Mode},
    traffic::{BUCKETS, Counts, Histogram, Traffic, bucket},
};
use dozen_control::{
    reconcile::{
        autoscale::Autoscale,
        driver::{Scope, Task as _},
    },
    routes_feed::Feed,
    store::apps::App,
};
use dozen_domain::limits::Limits;
use serde_json::{Value, json};

use crate::api::Api;

const MONITORS: &str = "/apps/shop/formation/web/monitors";

async fn deployed(api: &Api) -> App {
    let app = api.app("shop").await;
    api.deploy(app.id, "abc", &[("web", "./serve"), ("worker", "./work")]).await;
    api.lines();
    app
}

/// What the official client sends.
fn asked(more: Value) -> Value {
    let mut body = json!({
        "action_type": "scale", "is_active": true, "notification_channels": [], "notification_period": 1440,
        "op": "GREATER_OR_EQUAL", "period": 1, "name": "LATENCY_SCALE", "value": 500,
        "min_quantity": 1, "max_quantity": 3,
    });
    body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
    body
}

async fn quantity(api: &Api) -> u64 {
    api.get("/apps/shop/formation/web").await.is(200).json["quantity"].as_u64().expect("a number")
}

/// The router tells of so many requests that took so long, and of those that wait.
fn requests(api: &Api, app: &App, count: u64, milliseconds: u64, waiting: u64) {
    let mut times = vec![0; BUCKETS];
    times[bucket(milliseconds)] = count;
    let counts = Counts { requests: count, errors: 0, waiting, times: Histogram::of(times) };
    api.context.traffic.record(Traffic { apps: vec![(app.id, counts)] }, api.clock_now());
}

#[tokio::test]
async fn a_monitor_is_made_changed_switched_off_and_removed_as_the_official_client_does() {
    let api = Api::new().await;
    deployed(&api).await;
    assert_eq!(api.get(MONITORS).await.is(200).json, json!([]));
    let made = api.post(MONITORS, asked(json!({ "notification_channels": ["app"] }))).await.is(201).json;
    assert_eq!(
        (made["action_type"].as_str(), made["value"].as_u64(), made["max_quantity"].as_u64()),
        (Some("scale"), Some(500), Some(3))
    );
    assert_eq!(
        api.lines(),
        [
            "app[api]: Enable autoscaling of web: 1 to 3 dynos, p95 response time below 500 ms by user admin@localhost.localdomain"
        ]
    );
    let path = format!("{MONITORS}/{}", made["id"].as_str().expect("an id"));
    let off = json!({ "is_active": false, "op": "GREATER_OR_EQUAL", "period": 1 });
    let off = api.patch(&path, off).await.is(200).json;
    assert_eq!((off["is_active"].as_bool(), off["value"].as_u64()), (Some(false), Some(500)));
    assert_eq!(api.get(MONITORS).await.is(200).json, json!([off]));
    assert_eq!(api.get(&path).await.is(200).json, off);
    api.post(MONITORS, asked(json!({}))).await.fails(409, "conflict");
    api.delete(&path).await.is(200);
    api.get(&path).await.fails(404, "not_found");
    let queue = asked(json!({ "name": "QUEUE_SCALE", "value": 5, "min_quantity": 0 }));
    assert_eq!(api.post(MONITORS, queue).await.is(201).json["name"], "QUEUE_SCALE");
    let stranger = api.account("eve@example.com").await;
    api.call(&stranger, http::Method::GET, MONITORS, None).await.fails(403, "forbidden");
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let api = Api::new().await;
    deployed(&api).await;
    for wrong in [
        json!({ "name": "CPU_SCALE" }),
        json!({ "action_type": "alert" }),
        json!({ "op": "LESS" }),
        json!({ "period": 5 }),
        json!({ "value": 0 }),
        json!({ "min_quantity": 4 }),
        json!({ "max_quantity": 0 }),
        json!({ "max_quantity": 101 }),
        json!({ "max_quantity": null }),
        json!({ "notification_channels": ["pager"] }),
    ] {
        api.post(MONITORS, asked(wrong)).await.fails(422, "invalid_params");
    }
    let worker = api.post("/apps/shop/formation/worker/monitors", asked(json!({}))).await;
    assert!(worker.fails(422, "invalid_params").text.contains("heroku ps:scale"));
    api.get("/apps/shop/formation/nope/monitors").await.fails(404, "not_found");
    assert_eq!(api.get(MONITORS).await.is(200).json, json!([]), "nothing of it was kept");
}

#[tokio::test]
async fn slow_answers_bring_a_dyno_a_minute_and_at_the_most_people_are_told_once() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    let task = Autoscale::new(api.context.clone());
    let notified = json!({ "min_quantity": 2, "notification_channels": ["app"] });
    api.post(MONITORS, asked(notified)).await.is(201);
    api.lines();
    task.run(&Scope::All).await.expect("a look");
    assert_eq!(
        (quantity(&api).await, api.lines()),
        (2, vec!["app[api]: Scaled to web@2:Basic by autoscaling".to_owned()])
    );
    for _ in 0..18 {
        api.clock.advance(10);
        requests(&api, &app, 50, 600, 1);
        task.run(&Scope::All).await.expect("a look");
    }
    assert_eq!(quantity(&api).await, 3);
    let lines = api.lines();
    assert_eq!(
        lines.iter().filter(|line| line.contains("Scaled to web@3:Basic by autoscaling")).count(),
        1,
        "{lines:?}"
    );
    let told = lines.iter().filter(|line| line.contains("web needs more than the 3 dynos")).count();
    assert_eq!(told, 1, "{lines:?}");
}

#[tokio::test]
async fn a_manual_change_within_the_range_stands_and_one_outside_of_it_does_not() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    let task = Autoscale::new(api.context.clone());
    api.post(MONITORS, asked(json!({}))).await.is(201);
    for (wanted, stays) in [(2, 2), (9, 3), (0, 1)] {
        api.patch("/apps/shop/formation/web", json!({ "quantity": wanted })).await.is(200);
        requests(&api, &app, 1, 10, 0);
        task.run(&Scope::Apps([app.id].into())).await.expect("a look");
        assert_eq!(quantity(&api).await, stays, "after {wanted}");
    }
}

#[tokio::test]
async fn an_app_that_may_sleep_holds_its_requests_and_the_first_wakes_it() {
    let mut api = Api::with(Limits { autoscale_sleep_seconds: 600, ..Limits::default() }).await;
    let app = deployed(&api).await;
    let task = Autoscale::new(api.context.clone());
    let feed: Arc<Feed> = Feed::new(api.context.clone());
    api.post(MONITORS, asked(json!({ "min_quantity": 0 }))).await.is(201);
    api.lines();
    task.run(&Scope::All).await.expect("a look");
    api.clock.advance(599);
    task.run(&Scope::All).await.expect("a look");
    assert_eq!(quantity(&api).await, 1);
    api.clock.advance(1);
    task.run(&Scope::All).await.expect("a look");
    assert_eq!(quantity(&api).await, 0);
    let lines = api.lines();
    assert_eq!(lines, ["heroku[web.1]: Idling", "app[api]: Scaled to web@0:Basic by autoscaling"]);

    // The router keeps requests for a dyno that is about to start, rather than answer H14.
    feed.refresh(app.id).await.expect("an entry");
    let entry = feed.app(app.id).expect("an entry");
    assert_eq!((entry.mode, entry.web_quantity), (Mode::Serving, 1));
    let states: Vec<(String, DynoState)> = entry.dynos.iter().map(|dyno| (dyno.name.to_string(), dyno.state)).collect();
    assert_eq!(states, [("web.1".to_owned(), DynoState::Starting)]);

    api.nudged();
    requests(&api, &app, 0, 0, 1);
    task.run(&Scope::Apps([app.id].into())).await.expect("a look");
    assert_eq!(quantity(&api).await, 1);
    assert_eq!(api.lines(), ["heroku[web.1]: Unidling", "app[api]: Scaled to web@1:Basic by autoscaling"]);
    assert_eq!(api.nudged(), [app.id]);
    feed.refresh(app.id).await.expect("an entry");
    let entry = feed.app(app.id).expect("an entry");
    assert!(entry.web_quantity == 1 && entry.dynos.is_empty(), "{entry:?}");
}
