//! Log sessions: a URL with its own secret, and the events behind it.

use axum::body::Body;
use dozen_api::{
    frame,
    logs::{Hello, Place, Sent, Session, Source},
    socket,
};
use http::{Method, Request};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::api::{Answer, Api};

/// A logs role that answers one session with two lines, and says what it was asked.
fn logs_role(api: &Api) -> JoinHandle<Session> {
    let run = api.directory.path().join("run");
    std::fs::create_dir_all(&run).expect("a directory");
    let listener = socket::bind(&run.join("logs.sock")).expect("a socket");
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let hello: Option<Hello> = frame::read(&mut connection).await.expect("a frame");
        let Some(Hello::Session(session)) = hello else { panic!("no session: {hello:?}") };
        for sequence in [7, 8] {
            let place = Place { sequence, ordinal: Some(sequence - 5) };
            let line = Sent::Line { place, text: format!("2026 app[web.1]: line {sequence}") };
            frame::write(&mut connection, &line).await.expect("a write");
        }
        let end = Some(Place { sequence: 9, ordinal: Some(4) });
        frame::write(&mut connection, &Sent::Caught { end }).await.expect("a write");
        session
    })
}

async fn open(api: &Api, url: &str, after: Option<&str>) -> Answer {
    let path = url.strip_prefix("http://localhost:5000").expect("a URL of the API");
    let mut request = Request::builder().uri(path).header("accept", "text/event-stream");
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    api.send(request.body(Body::empty()).expect("a request")).await
}

/// The ids of an answer's events.
fn ids(answer: &Answer) -> impl Iterator<Item = &str> {
    answer.text.lines().filter_map(|line| line.strip_prefix("id: "))
}

async fn session(api: &Api, body: serde_json::Value) -> String {
    let made = api.post("/apps/shop/log-sessions", body).await.is(201);
    made.json["logplex_url"].as_str().expect("a URL").to_owned()
}

#[tokio::test]
async fn history_streams_as_events_and_ends() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let role = logs_role(&api);
    let url = session(&api, json!({"dyno": "web", "source": "app", "lines": 50, "tail": false})).await;
    let answer = open(&api, &url, None).await.is(200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let ids: Vec<&str> = ids(&answer).collect();
    let expected = format!(
        "retry: 1\n\nid: {}\ndata: 2026 app[web.1]: line 7\n\nid: {}\ndata: 2026 app[web.1]: line 8\n\n",
        ids[0], ids[1]
    );
    assert_eq!(answer.text, expected);
    assert!(ids[0].starts_with("7-2.") && ids[1].starts_with("8-3."), "{ids:?}");
    let process = Some("web".to_owned());
    let asked = Session { app: app.id, source: Some(Source::App), process, lines: 50, tail: false, after: None };
    assert_eq!(role.await.expect("the role"), asked);
}

#[tokio::test]
async fn a_reconnect_goes_on_after_the_last_line() {
    let api = Api::new().await;
    api.app("shop").await;
    let url = session(&api, json!({})).await;
    let role = logs_role(&api);
    let answer = open(&api, &url, None).await.is(200);
    let id = ids(&answer).next().expect("an event");
    assert_eq!(role.await.expect("the role").after, None);
    // The address itself is past its time, but the client was there before.
    api.clock.advance(3600);
    open(&api, &url, None).await.fails(404, "not_found");
    let role = logs_role(&api);
    open(&api, &url, Some(id)).await.is(200);
    let asked = role.await.expect("the role");
    let after = Some(Place { sequence: 7, ordinal: Some(2) });
    assert_eq!((asked.after, asked.lines, asked.tail), (after, 100, false));
    // Not so one who has found the address and makes an id up, or has it from another session.
    let another = session(&api, json!({})).await;
    let role = logs_role(&api);
    let answer = open(&api, &another, None).await.is(200);
    let of_another = ids(&answer).next().expect("an event");
    role.await.expect("the role");
    for made_up in ["7-2", "7-2.", "7", "", "7-2.AAAAAAAAAAAA", of_another] {
        open(&api, &url, Some(made_up)).await.fails(404, "not_found");
    }
    api.clock.advance(25 * 3600);
    open(&api, &url, Some(id)).await.fails(404, "not_found");
}

#[tokio::test]
async fn an_id_is_taken_from_whoever_opens_the_address_in_time_and_nonsense_is_not() {
    let api = Api::new().await;
    api.app("shop").await;
    let url = session(&api, json!({})).await;
    for (id, sequence) in [("6-1", Some(6)), ("6", Some(6)), ("6-1.x", Some(6)), ("x", None)] {
        let role = logs_role(&api);
        open(&api, &url, Some(id)).await.is(200);
        assert_eq!(role.await.expect("the role").after.map(|place| place.sequence), sequence, "{id}");
    }
}

#[tokio::test]
async fn an_address_is_worth_nothing_when_changed_or_when_its_account_has_lost_the_app() {
    let api = Api::new().await;
    api.app("shop").await;
    let url = session(&api, json!({})).await;
    open(&api, &format!("{url}x"), None).await.fails(404, "not_found");
    open(&api, "http://localhost:5000/logs/stream", None).await.fails(404, "not_found");
    let friend = api.account("friend@example.com").await;
    api.post("/apps/shop/collaborators", json!({"user": "friend@example.com"})).await.is(201);
    let made = api.call(&friend, Method::POST, "/apps/shop/log-sessions", Some(json!({}))).await.is(201);
    let url = made.json["logplex_url"].as_str().expect("a URL").to_owned();
    api.delete("/apps/shop/collaborators/friend@example.com").await.is(200);
    open(&api, &url, None).await.fails(404, "not_found");
    api.post("/apps/shop/log-sessions", json!({"source": "moon"})).await.fails(422, "invalid_params");
}
