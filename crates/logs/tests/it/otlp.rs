//! Telemetry drains to a consumer on the official protobuf definitions.

use std::collections::BTreeMap;

use dozen_api::{
    drains::{Destination, Drain, Telemetry},
    logs::Source,
};
use dozen_domain::{
    config::Secret,
    ids::{AppId, DrainId},
    limits::Limits,
};
use dozen_testkit::otlp::{Consumer, attributes};
use serde_json::{Value, json};

use crate::{
    receivers::set,
    role::{Role, line},
};

fn drain(endpoint: String, grpc: bool) -> Drain {
    Drain {
        id: DrainId::random(),
        app: AppId::random(),
        app_name: "shop".to_owned(),
        token: "d.1".to_owned(),
        to: Destination::Telemetry(Telemetry {
            endpoint: Secret::new(endpoint),
            grpc,
            headers: BTreeMap::from([("Api-Key".to_owned(), Secret::new("hunter2"))]),
            traces: true,
            logs: true,
            metrics: true,
        }),
    }
}

/// Stores the lines at once, so that they come in one frame.
async fn talk(role: &Role, drain: &Drain) {
    let (app, sender) = (drain.app, role.sender());
    sender.send(line(app, Source::App, "web.1", "caf\u{e9}"));
    let request = "at=error code=H12 desc=\"Request timeout\" method=GET path=\"/a?b=1\" host=shop.localhost \
                   request_id=0af76519-16cd-43dd-8448-eb211c80319c fwd=\"192.0.2.1\" dyno=web.1 connect=1ms \
                   service=699ms status=503 bytes=0 protocol=http";
    sender.send(line(app, Source::Heroku, "router", request));
    let sample = "source=web.1 dyno=heroku.1.2 sample#memory_rss=2.50MB sample#load_avg_1m=0.20";
    sender.send(line(app, Source::Heroku, "web.1", sample));
    sender.flushed().await;
}

fn check(requests_of: &BTreeMap<String, Value>, drain: &Drain) {
    let logs = &requests_of["ExportLogsServiceRequest"];
    assert_eq!(logs["headers"]["api-key"], "hunter2");
    let resource = &logs["message"]["resourceLogs"][0];
    let app = drain.app.to_string();
    let resource_attributes = attributes(&resource["resource"]);
    assert_eq!((resource_attributes["service.name"], resource_attributes["heroku.app.id"]), ("shop", app.as_str()));
    assert_eq!(resource["scopeLogs"][0]["scope"]["name"], "dozen");
    let records = resource["scopeLogs"][0]["logRecords"].as_array().unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["body"], json!({"stringValue": "caf\u{e9}"}));
    assert_eq!(records[0]["timeUnixNano"], "1704067200000000000");
    assert_eq!(records[0]["severityNumber"], "SEVERITY_NUMBER_INFO");
    assert_eq!(attributes(&records[0])["heroku.log.process"], "web.1");
    assert_eq!(attributes(&records[0])["heroku.log.source"], "app");
    assert_eq!(
        (&records[1]["severityNumber"], &records[1]["severityText"]),
        (&json!("SEVERITY_NUMBER_ERROR"), &json!("ERROR"))
    );

    let metrics =
        &requests_of["ExportMetricsServiceRequest"]["message"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    let metric = |name: &str| metrics.as_array().unwrap().iter().find(|metric| metric["name"] == name).unwrap();
    let memory = metric("heroku.dyno.memory_rss");
    assert_eq!((&memory["unit"], &memory["gauge"]["dataPoints"][0]["asDouble"]), (&json!("By"), &json!(2_621_440.0)));
    let requests = metric("http.server.request.duration");
    assert_eq!(requests["histogram"]["aggregationTemporality"], "AGGREGATION_TEMPORALITY_DELTA");
    let point = &requests["histogram"]["dataPoints"][0];
    assert_eq!((&point["count"], &point["sum"]), (&json!("1"), &json!(0.7)));
    assert_eq!(point["bucketCounts"].as_array().unwrap().len(), point["explicitBounds"].as_array().unwrap().len() + 1);
    assert_eq!(attributes(point)["http.response.status_code"], "503");

    let spans = &requests_of["ExportTraceServiceRequest"]["message"]["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let span = &spans.as_array().unwrap()[0];
    assert_eq!(spans.as_array().unwrap().len(), 1);
    // Bytes are base64 in the JSON form of protocol buffers.
    assert_eq!(
        (&span["traceId"], &span["name"], &span["kind"]),
        (&json!("CvdlGRbNQ92ESOshHIAxnA=="), &json!("GET"), &json!("SPAN_KIND_SERVER"))
    );
    let nanos = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(
        (nanos("startTimeUnixNano"), nanos("endTimeUnixNano")),
        (1_704_067_199_300_000_000, 1_704_067_200_000_000_000)
    );
    assert_eq!(span["status"], json!({"code": "STATUS_CODE_ERROR", "message": "Request timeout"}));
    let all = span["attributes"].as_array().unwrap();
    let value = |key: &str| &all.iter().find(|pair| pair["key"] == key).unwrap()["value"];
    assert_eq!(value("http.response.status_code"), &json!({"intValue": "503"}));
    assert_eq!(
        (value("url.path"), value("url.query")),
        (&json!({"stringValue": "/a"}), &json!({"stringValue": "b=1"}))
    );
    assert_eq!(value("error.type"), &json!({"stringValue": "H12"}));
}

fn limits() -> Limits {
    // The first export of a Python server that has just started may take long on a busy machine.
    Limits { drain_request_ms: 60_000, drain_retry_ms: 1, ..Limits::default() }
}

#[tokio::test]
async fn a_consumer_takes_every_signal_over_http_and_a_second_try() {
    let role = Role::start_with(limits()).await;
    let consumer = Consumer::start(&["1"]);
    let drain = drain(format!("http://127.0.0.1:{}/base/", consumer.http), false);
    set(&role, std::slice::from_ref(&drain)).await;
    talk(&role, &drain).await;
    let requests = tokio::task::spawn_blocking(move || (consumer.requests(), consumer)).await.unwrap();
    assert_eq!(requests.0["ExportLogsServiceRequest"]["headers"]["content-type"], "application/x-protobuf");
    check(&requests.0, &drain);
}

#[tokio::test]
async fn a_consumer_takes_every_signal_over_grpc() {
    let role = Role::start_with(limits()).await;
    let consumer = Consumer::start(&[]);
    let drain = drain(format!("http://127.0.0.1:{}", consumer.grpc), true);
    set(&role, std::slice::from_ref(&drain)).await;
    talk(&role, &drain).await;
    let requests = tokio::task::spawn_blocking(move || (consumer.requests(), consumer)).await.unwrap();
    check(&requests.0, &drain);
}
