//! Log and telemetry drains: what may be added, what is told, what leaves no trace.

use std::sync::Arc;

use dozen_api::{
    drains::{Destination, Drain},
    frame,
    logs::Hello,
    socket,
};
use dozen_control::reconcile::{
    drains::Drains,
    driver::{Scope, Task},
};
use serde_json::json;

use crate::api::Api;

const URL: &str = "syslog+tls://1.1.1.1:6514";

#[tokio::test]
async fn a_log_drain_is_added_listed_found_and_removed() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.nudged();
    let url = "https://me:hunter2@1.1.1.1/in?key=hunter3";
    let made = api.post("/apps/shop/log-drains", json!({"url": url})).await.is(201).json;
    assert_eq!(made["url"], url);
    assert!(made["token"].as_str().is_some_and(|token| token.starts_with("d.") && token.len() == 38), "{made}");
    assert_eq!(api.nudged(), [app.id]);
    api.post("/apps/shop/log-drains", json!({"url": URL})).await.is(201);
    let all = api.get("/apps/shop/log-drains").await.is(200).json;
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    // The official client names a drain by its URL, percent-encoded.
    let encoded = "https%3A%2F%2Fme%3Ahunter2%401.1.1.1%2Fin%3Fkey%3Dhunter3";
    for identity in [encoded, made["token"].as_str().expect("text"), made["id"].as_str().expect("text")] {
        assert_eq!(api.get(&format!("/apps/shop/log-drains/{identity}")).await.is(200).json, made);
    }
    api.post("/apps/shop/log-drains", json!({"url": url})).await.fails(422, "invalid_params");
    assert_eq!(api.delete(&format!("/apps/shop/log-drains/{encoded}")).await.is(200).json, made);
    api.delete(&format!("/apps/shop/log-drains/{encoded}")).await.fails(404, "not_found");
    let lines = api.lines();
    assert!(
        lines.iter().any(|line| line.starts_with("app[api]: Add log drain https://1.1.1.1/in by user ")),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|line| line.contains("hunter")), "{lines:?}");
    let database = std::fs::read(api.directory.path().join("dozen.db-wal")).expect("the database's log");
    assert!(!database.windows(6).any(|bytes| bytes == b"hunter"), "a password lies open in the database");
}

#[tokio::test]
async fn what_cannot_be_a_drain_is_refused_with_what_to_do() {
    let api = Api::new().await;
    api.app("shop").await;
    let refused = [
        ("nonsense", "not a valid URL"),
        ("ftp://1.1.1.1", "the scheme ftp"),
        ("syslog://1.1.1.1", "no port"),
        ("syslog+tls://1.1.1.1:6514/path", "a path"),
        ("http://127.0.0.1:8080", "an address of this machine itself"),
        ("http://localhost:8080", "an address of this machine itself"),
        ("http://[::ffff:127.0.0.1]:8080", "an address of this machine itself"),
        ("http://2130706433/", "an address of this machine itself"),
        ("http://169.254.169.254/latest/meta-data", "a link-local address"),
        ("syslog://10.0.0.1:514", "DOZEN_DRAIN_ALLOW_NETWORKS"),
        ("https://does-not-exist.invalid", "cannot be resolved"),
    ];
    for (url, why) in refused {
        let answer = api.post("/apps/shop/log-drains", json!({"url": url})).await.fails(422, "invalid_params");
        assert!(answer.json["message"].as_str().is_some_and(|text| text.contains(why)), "{url}: {}", answer.json);
    }
    api.post("/apps/shop/log-drains", json!({})).await.fails(422, "invalid_params");
    for n in 1..=5 {
        api.post("/apps/shop/log-drains", json!({"url": format!("https://1.1.1.1/{n}")})).await.is(201);
    }
    let sixth = api.post("/apps/shop/log-drains", json!({"url": "https://1.1.1.1/6"})).await;
    assert!(sixth.json["message"].as_str().is_some_and(|text| text.contains("5 log drains at most")), "{}", sixth.json);
    sixth.fails(422, "invalid_params");
    let stranger = api.account("stranger@example.com").await;
    api.call(&stranger, http::Method::GET, "/apps/shop/log-drains", None).await.fails(403, "forbidden");
}

#[tokio::test]
async fn a_telemetry_drain_is_added_changed_and_removed() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let new = |signals: serde_json::Value, exporter: serde_json::Value| json!({"owner": {"id": app.id, "type": "app"}, "signals": signals, "exporter": exporter});
    let exporter = json!({"type": "otlphttp", "endpoint": "https://1.1.1.1:4318", "headers": {"api-key": "hunter2"}});
    let made = api.post("/telemetry-drains", new(json!(["traces", "metrics", "logs"]), exporter.clone())).await;
    let made = made.is(201).json;
    assert_eq!((&made["exporter"], &made["signals"]), (&exporter, &json!(["traces", "metrics", "logs"])));
    assert_eq!(api.get("/apps/shop/telemetry-drains").await.is(200).json, json!([made]));
    let path = format!("/telemetry-drains/{}", made["id"].as_str().expect("text"));
    assert_eq!(api.get(&path).await.is(200).json, made);
    let change = json!({"signals": ["logs"], "exporter": {"type": "otlp", "endpoint": "https://1.1.1.1:4317"}});
    let changed = api.patch(&path, change).await.is(200).json;
    assert_eq!(changed["signals"], json!(["logs"]));
    assert_eq!(changed["exporter"]["headers"], json!({"api-key": "hunter2"}), "what is not named stays");
    assert_eq!(changed["exporter"]["type"], "otlp");
    let refused = [
        new(json!([]), exporter.clone()),
        new(json!(["smoke"]), exporter.clone()),
        new(json!(["logs"]), json!({"type": "splunk", "endpoint": "https://1.1.1.1"})),
        new(json!(["logs"]), json!({"type": "otlp"})),
        new(json!(["logs"]), json!({"type": "otlp", "endpoint": "syslog://1.1.1.1:514"})),
        new(json!(["logs"]), json!({"type": "otlp", "endpoint": "http://127.0.0.1:4317"})),
        new(json!(["logs"]), json!({"type": "otlp", "endpoint": "https://1.1.1.1", "headers": {"a b": "c"}})),
        new(json!(["logs"]), json!({"type": "otlp", "endpoint": "https://1.1.1.1", "headers": {"a": "b\r\nc: d"}})),
        json!({"owner": {"id": app.id, "type": "space"}, "signals": ["logs"], "exporter": exporter}),
    ];
    for body in refused {
        api.post("/telemetry-drains", body).await.fails(422, "invalid_params");
    }
    let stranger = api.account("stranger@example.com").await;
    for method in [http::Method::GET, http::Method::DELETE] {
        api.call(&stranger, method, &path, None).await.fails(404, "not_found");
    }
    api.delete(&path).await.is(200);
    api.get(&path).await.fails(404, "not_found");
}

#[tokio::test]
async fn the_logs_role_is_told_of_all_drains_as_often_as_it_takes() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let made = api.post("/apps/shop/log-drains", json!({"url": URL})).await.is(201).json;
    std::fs::create_dir(api.directory.path().join("run")).expect("a directory");
    let task: Arc<dyn Task> = Arc::new(Drains::new(api.context.clone()));
    task.run(&Scope::All).await.expect("without a logs role there is nothing to do");
    let listener = socket::bind(&api.directory.path().join("run/logs.sock")).expect("a socket");
    // Tells them once, and answers if it is to.
    let hear = async |answer: bool| -> Vec<Drain> {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let hello: Option<Hello> = frame::read(&mut connection).await.expect("a frame");
        if answer {
            frame::write_bytes(&mut connection, &[]).await.expect("a write");
        }
        match hello {
            Some(Hello::Drains(drains)) => drains,
            other => panic!("{other:?}"),
        }
    };
    let (run, heard) = tokio::join!(task.run(&Scope::All), hear(false));
    run.expect_err("it has not taken them");
    assert_eq!(heard.len(), 1);
    let (run, heard) = tokio::join!(task.run(&Scope::All), hear(true));
    run.expect("it has taken them");
    let [drain] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((drain.app, drain.app_name.as_str()), (app.id, "shop"));
    assert_eq!(drain.token, made["token"].as_str().expect("text"));
    assert!(matches!(&drain.to, Destination::Log(url) if url.expose() == URL));
    let scope = Scope::Apps([app.id].into());
    let nothing_new = task.run(&scope).await.expect("nothing to tell");
    assert_eq!(nothing_new, "nothing new");
    api.delete("/apps/shop").await.is(200);
    let (run, heard) = tokio::join!(task.run(&scope), hear(true));
    run.expect("it has taken them");
    assert_eq!(heard, [], "a destroyed app's drains go with it");
}
