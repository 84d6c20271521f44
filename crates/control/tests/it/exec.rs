//! The exec manager: where it sends SSH, who gets a pass, and what is told where there is no SSH.

use axum::body::Body;
use data_encoding::BASE64;
use dozen_control::{
    listen::Via,
    sessions::account::{About, Account, settle},
    state::Settings,
};
use http::{Method, Request};
use serde_json::{Value, json};

use crate::api::{Answer, Api};

/// An app with a dyno that runs; the dyno's name.
async fn running(api: &Api) -> String {
    let app = api.app("shop").await;
    api.deploy(app.id, "abc", &[("web", "serve")]).await;
    api.engine.hold_one_offs(true);
    let dyno = api.post("/apps/shop/dynos", json!({"command": "sleep 1000"})).await.is(201).json;
    dyno["name"].as_str().expect("a name").to_owned()
}

/// Asks for a pass as the official client does, over TLS and by this name of the platform.
async fn enter(api: &Api, (app, token): (&str, &str), dyno: &str, key: &Value, host: &str) -> Answer {
    let credentials = BASE64.encode(format!("{app}:{token}").as_bytes());
    let mut request = Request::builder()
        .method(Method::PUT)
        .uri(format!("/api/v2/{dyno}"))
        .header("host", host)
        .header("authorization", format!("Basic {credentials}"))
        .header("content-type", "application/json")
        .body(Body::from(json!({ "client_key": key }).to_string()))
        .expect("a request");
    request.extensions_mut().insert(Via { peer: ([127, 0, 0, 1], 9).into(), tls: true });
    api.send(request).await
}

fn key() -> Value {
    json!(format!("ssh-rsa {} ", BASE64.encode(b"a key that nobody looks into before it is shown")))
}

async fn with_ssh() -> Api {
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = Settings::of_directory(directory.path().to_owned());
    settings.ssh = Some(([127, 0, 0, 2], 80).into());
    Api::open(directory, settings).await
}

#[tokio::test]
async fn where_there_is_no_ssh_a_client_is_told_before_it_tries() {
    let api = Api::new().await;
    let dyno = running(&api).await;
    let feature = api.get("/apps/shop/features/runtime-heroku-exec").await.is(200);
    let warning = feature.header("x-heroku-warning").expect("a warning");
    assert!(warning.contains("run:inside") && warning.contains("DOZEN_SSH_LISTEN"), "{warning}");
    assert_eq!(api.get("/apps/shop/features/preboot").await.is(200).header("x-heroku-warning"), None);
    let refused = enter(&api, ("shop", &api.token), &dyno, &key(), "localhost:5443").await;
    assert!(refused.fails(422, "invalid_params").text.contains("dozen exec"));
    // Through a forwarder SSH comes in by the TLS port.
    let entrance = enter(&api, ("shop", &api.token), &dyno, &key(), "127.0.0.3:41000").await.is(200);
    assert_eq!(entrance.json["tunnel_host"], "127.0.0.3");
    let api = with_ssh().await;
    api.app("shop").await;
    let feature = api.get("/apps/shop/features/runtime-heroku-exec").await.is(200);
    assert_eq!(feature.header("x-heroku-warning"), None);
}

#[tokio::test]
async fn ssh_is_sent_back_the_way_its_client_came() {
    let api = with_ssh().await;
    let dyno = running(&api).await;
    for (asked, sent) in [
        ("localhost:5443", "127.0.0.2"),
        ("127.0.0.5:41000", "127.0.0.5"),
        ("127.0.0.1:41000", "127.0.0.2"),
        ("192.0.2.1:5443", "127.0.0.2"),
    ] {
        let entrance = enter(&api, ("shop", &api.token), &dyno, &key(), asked).await.is(200).json;
        assert_eq!((entrance["tunnel_host"].as_str(), entrance["tunnel_port"].as_u64()), (Some(sent), Some(80)));
    }
}

#[tokio::test]
async fn a_pass_is_for_who_may_deploy_and_for_dynos_of_their_apps() {
    let api = with_ssh().await;
    let dyno = running(&api).await;
    api.app("other").await;
    let stranger = api.account("eve@example.com").await;
    let refused = async |who: (&str, &str), dyno: &str, key: Value| {
        let answer = enter(&api, who, dyno, &key, "localhost:5443").await;
        (answer.status.as_u16(), answer.json["id"].as_str().unwrap_or_default().to_owned())
    };
    let is = |status: u16, id: &str| (status, id.to_owned());
    assert_eq!(refused(("shop", &stranger), &dyno, key()).await, is(403, "forbidden"));
    assert_eq!(refused(("shop", "no-token"), &dyno, key()).await, is(401, "unauthorized"));
    assert_eq!(refused(("nowhere", &api.token), &dyno, key()).await, is(404, "not_found"));
    assert_eq!(refused(("other", &api.token), &dyno, key()).await, is(404, "not_found"), "another app's dyno");
    assert_eq!(refused(("shop", &api.token), "web.99", key()).await, is(404, "not_found"));
    let forged = [json!(""), json!("ssh-rsa"), json!("ssh-rsa %%%"), json!(format!("ssh-rsa {}", "A".repeat(5000)))];
    for key in forged {
        assert_eq!(refused(("shop", &api.token), &dyno, key).await, is(422, "invalid_params"));
    }
    assert_eq!(refused(("shop", &api.token), &dyno, json!(7)).await.0, 422);
}

#[tokio::test]
async fn the_end_of_a_session_is_told_though_the_role_was_killed() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let open = |what: &str| {
        let (dyno, email) = ("web.1".to_owned(), "ann@example.com".to_owned());
        Account::open(&api.context, About { app: app.id, dyno, email, what: what.to_owned() })
    };
    let copy = open("ps:copy");
    // A role that is killed drops nothing.
    std::mem::forget(open("ps:exec"));
    api.clock.advance(7);
    drop(copy);
    let before = api.lines();
    assert_eq!(
        before.last().map(String::as_str),
        Some("app[api]: Session ended in web.1 by user ann@example.com (ps:copy) after 7.0 seconds")
    );
    settle(&api.context);
    let told = "app[api]: Session ended in web.1 by user ann@example.com (ps:exec) after 7.0 seconds, when the platform was restarted";
    assert_eq!(api.lines(), [told]);
    settle(&api.context);
    assert!(api.lines().is_empty(), "it is told once");
}
