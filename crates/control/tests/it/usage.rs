//! The record of when dynos ran, and what is read from it.

use std::sync::Arc;

use dozen_api::engine::{Meter, Run};
use dozen_control::{
    ops::{self, usage::Recorder},
    store::apps::App,
};
use dozen_domain::{ids::DynoId, size::Size, usage::Month};
use serde_json::json;

use crate::api::Api;

const SECOND: i64 = 1_000_000;

fn run(app: &App, name: &str, from: i64, to: Option<i64>) -> Run {
    Run {
        dyno: DynoId::random(),
        app: app.id,
        name: name.parse().expect("a name"),
        size: Size::Basic,
        one_off: name.starts_with("run"),
        started_at: from,
        ended_at: to,
    }
}

#[tokio::test]
async fn usage_is_told_by_app_type_and_size_and_outlives_the_app() {
    let api = Api::new().await;
    let (shop, other) = (api.app("shop").await, api.app("other").await);
    let recorder = Recorder::new(api.context.clone());
    let start = "2026-10".parse::<Month>().expect("a month").start();
    let web = run(&shop, "web.1", start, Some(start + 10 * SECOND));
    let open = Run { ended_at: None, ..web.clone() };
    // However often and in whichever order it is told.
    recorder.record(vec![open.clone(), web.clone(), open]).await;
    recorder
        .record(vec![
            web,
            run(&shop, "web.2", start - 5 * SECOND, Some(start + SECOND / 2)),
            run(&shop, "run.1234", start, Some(start + 3 * SECOND)),
            run(&other, "worker.1", start, Some(start + 7 * SECOND)),
        ])
        .await;
    let usage = api.get("/apps/shop/usage?month=2026-10").await.is(200).json;
    let entry = |app: &App, name: &str, process_type: &str, seconds: i64, dynos: u64| {
        json!({
            "app": {"id": app.id, "name": name}, "month": "2026-10", "type": process_type, "size": "Basic",
            "dyno_seconds": seconds, "dynos": dynos, "estimated": false,
        })
    };
    assert_eq!(usage, json!([entry(&shop, "shop", "run", 3, 1), entry(&shop, "shop", "web", 11, 2)]));
    assert_eq!(api.get("/apps/shop/usage?month=2026-12").await.is(200).json, json!([]));
    api.get("/usage?month=October").await.fails(422, "invalid_params");
    api.delete("/apps/other").await.is(200);
    let all = api.get("/usage?month=2026-10").await.is(200).json;
    assert_eq!(all[0], entry(&other, "other", "worker", 7, 1));
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    let month = "2026-10".parse().expect("a month");
    let stranger = ops::accounts::create(&api.context, "x@example.com", None).await.expect("an account").0;
    let (_, nothing) = ops::usage::of_account(&api.context, &stranger, Some(month)).await.expect("an answer");
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn what_ended_unseen_counts_until_control_last_was_there() {
    let api = Api::new().await;
    let shop = api.app("shop").await;
    let now = api.context.now();
    let alive = api.context.settings.data_dir.join("run/alive");
    std::fs::create_dir_all(alive.parent().expect("a folder")).expect("a folder");
    std::fs::write(&alive, (now - 4 * SECOND).to_string()).expect("a note");
    let recorder = Arc::new(Recorder::new(api.context.clone()));
    let (gone, there) = (run(&shop, "web.1", now - 9 * SECOND, None), run(&shop, "worker.1", now - 9 * SECOND, None));
    recorder.record(vec![gone, there.clone()]).await;
    recorder.adopted(vec![there.dyno]).await;
    let (month, entries) =
        ops::usage::of_app(&api.context, &shop, Some(Month::of(now - 9 * SECOND))).await.expect("usage");
    let web = &entries[0];
    assert_eq!((web.process_type.as_str(), web.dyno_seconds, web.estimated), ("web", 5, true), "{month}");
    let worker = &entries[1];
    assert!(worker.dyno_seconds >= 9 && !worker.estimated, "{worker:?}");
}
