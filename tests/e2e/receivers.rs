//! `heroku drains` and `heroku telemetry` with receivers that others have written: rsyslog, syslog-ng and OpenTelemetry's
//! own definitions; and with an HTTPS receiver that looks closely and behaves badly.

use std::{collections::BTreeMap, fs};

use dozen_testkit::{
    App, Builder, LONG,
    otlp::{Consumer, attributes},
    receivers::{Act, Certificate, Http, Request},
    syslog_servers::SyslogServer,
    wait_until,
};
use serde_json::{Value, json};

use crate::platform;

/// A platform that lets drains lead to this machine and trusts this certificate.
fn trusting(trust: &tempfile::NamedTempFile, certificate: &Certificate) -> Builder {
    fs::write(trust.path(), certificate.pem()).expect("a file");
    platform()
        .variable("DOZEN_DRAIN_ALLOW_NETWORKS", "127.0.0.1/32,::1/128")
        .variable("SSL_CERT_FILE", &trust.path().display().to_string())
}

#[test]
fn rsyslog_syslog_ng_and_an_https_receiver_get_the_lines_of_an_app() {
    let (certificate, trust) = (Certificate::of("localhost"), tempfile::NamedTempFile::new().expect("a file"));
    let platform = trusting(&trust, &certificate)
        .limit("drain_request_ms", 2_000)
        .limit("drain_tries", 10) // a slow moment of the machine is no failure of the receiver's
        .limit("drain_retry_ms", 1)
        .start();
    let app = App::plain(&platform, "received");
    let servers = [SyslogServer::rsyslog(&certificate), SyslogServer::syslog_ng(&certificate)];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let http = runtime.block_on(Http::start_tls(&certificate));
    http.next(&[Act::Answer(500), Act::Stall, Act::Answer(200), Act::Reset, Act::Answer(503)]);
    for server in &servers {
        for url in [&server.tcp, &server.tls] {
            drop(app.heroku(&["drains:add", url]).says(&format!("Successfully added drain {url}")));
        }
    }
    drop(app.heroku(&["drains:add", &http.url]));
    let drains = platform.api("GET", "/apps/received/log-drains", None).1;
    let token = |url: &str| {
        let drain = drains.as_array().and_then(|drains| drains.iter().find(|drain| drain["url"] == url));
        drain.and_then(|drain| drain["token"].as_str()).unwrap_or_else(|| panic!("no {url} in {drains}")).to_owned()
    };
    let _pushed = app.push();
    for n in 0..10 {
        assert_eq!(app.get(&format!("/print/needle-{n}-[x]")).status, 200);
    }
    let asked = |n: u8| format!(" router at=info method=GET path=\"/print/needle-{n}-");
    let last = [" app web.1 needle-9-[x]\n".to_owned(), asked(9)]; // each role's lines have an order of their own
    // Every line since the drains were added, in order: what the platform did, the router's lines, and the app's.
    let arrived = |lines: &[String]| {
        let place =
            |what: &str| lines.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{lines:#?}"));
        let mut places =
            vec![place(" app build -----> "), place(" app api Release v"), place(" heroku web.1 Starting process")];
        places.extend((0..10).map(|n| place(&format!(" app web.1 needle-{n}-[x]"))));
        assert!(places.is_sorted(), "{places:?} in {lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains(" app web.1 needle-")).count(), 10, "{lines:#?}");
        assert!((0..10).map(|n| place(&asked(n))).is_sorted(), "{lines:#?}");
    };
    for server in &servers {
        let written = server.until(|written| last.iter().all(|what| written.matches(what.as_str()).count() == 2));
        for url in [&server.tcp, &server.tls] {
            let token = format!(" {} ", token(url));
            let lines: Vec<String> = written.lines().filter(|line| line.contains(&token)).map(str::to_owned).collect();
            arrived(&lines);
            let starts = |what: &str, facility: &str| {
                let line = lines.iter().find(|line| line.contains(what)).expect("a line");
                assert!(line.starts_with(&format!("{facility}{token}")), "{line}");
            };
            starts(" app web.1 needle-0", "local7.info");
            starts(" heroku router at=info", "local3.info");
            starts(" heroku web.1 Starting process", "syslog.notice");
        }
    }
    wait_until("the last lines at the HTTPS receiver", LONG, || {
        let all = http.inbox.all();
        let last = [" app web.1 - needle-9-[x]", " router - at=info method=GET path=\"/print/needle-9-"];
        last.iter().all(|what| all.iter().any(|message| message.contains(what)))
    });
    // Without priority, time and host, as it was for the others.
    let plain = |message: &String| {
        message.splitn(4, ' ').nth(3).map(|rest| format!(" {}", rest.replacen(" - ", " ", 1))).expect("a message")
    };
    arrived(&http.inbox.all().iter().map(plain).collect::<Vec<_>>());
    let requests = http.requests();
    requests.iter().for_each(|request| drop(request.checked(&token(&http.url))));
    // What failed came again under its id, and as what it was.
    let id = |request: &Request| request.header("logplex-frame-id").unwrap_or_default().to_owned();
    let frames: BTreeMap<_, _> = requests.iter().map(|request| (id(request), request.body.clone())).collect();
    assert!(requests.iter().all(|request| frames[&id(request)] == request.body), "one id is one frame");
    assert!(requests.len() >= frames.len() + 4, "{} requests, {} frames", requests.len(), frames.len());
    drop(app.heroku(&["drains:remove", &http.url]));
}

#[test]
fn a_telemetry_consumer_gets_logs_metrics_and_traces_by_both_protocols() {
    let platform = platform()
        .variable("DOZEN_DRAIN_ALLOW_NETWORKS", "127.0.0.1/32")
        .limit("drain_request_ms", 60_000) // a Python server that has just started may take long on a busy machine
        .limit("dyno_metrics_ms", 1_000)
        .start();
    let app = App::plain(&platform, "measured");
    let _pushed = app.push();
    drop(app.heroku(&["labs:enable", "log-runtime-metrics"]));
    let consumer = Consumer::start(&["1"]); // its first request fails
    let endpoint = format!("http://127.0.0.1:{}/base", consumer.http);
    let add = ["telemetry:add", &endpoint, "--app", "measured", "--headers", r#"{"Api-Key":"hunter2"}"#];
    drop(app.heroku(&add).says(&format!("successfully added drain {endpoint}")));
    let (_, drains) = platform.api("GET", "/apps/measured/telemetry-drains", None);
    let id = drains[0]["id"].as_str().expect("an id").to_owned();
    drop(app.heroku(&["telemetry", "--app", "measured"]).says(&id).says(&endpoint));
    assert_eq!(app.get("/print/over-http").status, 200);
    look(&consumer, "http", "over-http");

    let endpoint = format!("http://127.0.0.1:{}", consumer.grpc);
    let update =
        ["telemetry:update", &id, "--endpoint", &endpoint, "--transport", "grpc", "--signals", "logs,traces,metrics"];
    drop(app.heroku(&update).says("Transport: gRPC"));
    assert_eq!(app.get("/print/over-grpc").status, 200);
    look(&consumer, "grpc", "over-grpc");

    drop(app.heroku(&["telemetry:update", &id, "--signals", "logs"]).says("Signals:   logs").says("hunter2"));
    drop(app.heroku(&["telemetry:remove", &id]));
    assert_eq!(platform.api("GET", "/apps/measured/telemetry-drains", None).1, json!([]));
}

/// Reads requests until the app has been seen to print `needle` and to be asked for it, and until its memory is known.
fn look(consumer: &Consumer, how: &str, needle: &str) {
    let (mut printed, mut asked, mut measured) = (false, false, false);
    while !(printed && asked && measured) {
        let request = consumer.request();
        if request["how"] != how {
            continue; // what was under way when the drain was changed
        }
        assert_eq!(request["headers"]["api-key"], "hunter2", "{request}");
        let message = &request["message"];
        for record in all(message, &["resourceLogs", "scopeLogs", "logRecords"]) {
            let here = record["body"]["stringValue"] == needle;
            assert!(!here || attributes(record)["heroku.log.process"] == "web.1", "{record}");
            printed |= here;
        }
        for span in all(message, &["resourceSpans", "scopeSpans", "spans"]) {
            let path = attributes(span)["url.path"];
            assert_eq!((&span["name"], &span["kind"]), (&json!("GET"), &json!("SPAN_KIND_SERVER")), "{span}");
            asked |= path == format!("/print/{needle}");
        }
        for metric in all(message, &["resourceMetrics", "scopeMetrics", "metrics"]) {
            let value = metric["gauge"]["dataPoints"][0]["asDouble"].as_f64();
            measured |= metric["name"] == "heroku.dyno.memory_rss" && value.is_some_and(|bytes| bytes > 1e6);
        }
        for kind in ["resourceLogs", "resourceSpans", "resourceMetrics"] {
            for of in all(message, &[kind]) {
                assert_eq!(attributes(&of["resource"])["service.name"], "measured", "{of}");
            }
        }
    }
}

/// Everything below these keys, all of which are of lists.
fn all<'a>(message: &'a Value, keys: &[&str]) -> Vec<&'a Value> {
    let below =
        |of: Vec<&'a Value>, key: &&str| of.into_iter().filter_map(|one| one[*key].as_array()).flatten().collect();
    keys.iter().fold(vec![message], below)
}
