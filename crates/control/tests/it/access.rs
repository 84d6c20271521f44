//! Who may see and do what.

use dozen_control::http::routes;
use http::Method;
use serde_json::json;

use crate::api::Api;

fn fill(path: &str) -> String {
    path.replace("{app}", "mine")
        .split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn no_private_route_answers_without_credentials() {
    let api = Api::new().await;
    api.app("mine").await;
    for (method, path) in routes::PRIVATE {
        for token in ["undefined", "", "HRKU-0000"] {
            let method: Method = method.parse().expect("a method");
            let answer = api.call(token, method.clone(), &fill(path), Some(json!({}))).await;
            assert_eq!(answer.status, 401, "{method} {path} with {token:?}: {}", answer.text);
            assert_eq!(answer.json["id"], "unauthorized");
        }
    }
}

#[tokio::test]
async fn a_stranger_gets_no_further_than_the_name_of_an_app() {
    let api = Api::new().await;
    api.app("mine").await;
    let stranger = api.account("stranger@example.com").await;
    let of_app = routes::PRIVATE.iter().filter(|(_, path)| path.contains("{app}"));
    for (method, path) in of_app {
        let method: Method = method.parse().expect("a method");
        let answer = api.call(&stranger, method.clone(), &fill(path), Some(json!({"name": "theirs"}))).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text);
        assert_eq!(answer.json["message"], "You do not have access to the app mine.", "{method} {path}");
    }
    let apps = api.call(&stranger, Method::GET, "/apps", None).await.is(200);
    assert_eq!(apps.json, json!([]));
    let filter = json!({"in": {"id": [api.get("/apps/mine").await.json["id"]]}});
    assert_eq!(api.call(&stranger, Method::POST, "/filters/apps", Some(filter)).await.json, json!([]));
    api.get("/apps/mine").await.is(200);
}

#[tokio::test]
async fn a_collaborator_works_on_an_app_but_does_not_decide_over_it() {
    let api = Api::new().await;
    let app = api.app("mine").await;
    api.deploy(app.id, "abc", &[("web", "serve")]).await;
    let friend = api.account("friend@example.com").await;
    api.account("third@example.com").await;
    let added = api.post("/apps/mine/collaborators", json!({"user": "Friend@example.com"})).await.is(201);
    assert_eq!(
        (&added.json["role"], &added.json["user"]["email"]),
        (&json!("collaborator"), &json!("friend@example.com"))
    );

    let call = |method, path, body| api.call(&friend, method, path, Some(body));
    assert_eq!(call(Method::GET, "/users/~/apps", json!({})).await.json[0]["name"], "mine");
    call(Method::PATCH, "/apps/mine/config-vars", json!({"A": "1"})).await.is(200);
    call(Method::PATCH, "/apps/mine", json!({"maintenance": true})).await.is(200);
    call(Method::PATCH, "/apps/mine/formation", json!({"updates": [{"type": "web", "quantity": 2}]})).await.is(200);
    call(Method::PATCH, "/apps/mine", json!({"name": "stolen"})).await.fails(403, "forbidden");
    call(Method::DELETE, "/apps/mine", json!({})).await.fails(403, "forbidden");
    call(Method::POST, "/apps/mine/collaborators", json!({"user": "third@example.com"})).await.fails(403, "forbidden");
    api.post("/apps/mine/collaborators", json!({"user": "third@example.com"})).await.is(201);
    call(Method::DELETE, "/apps/mine/collaborators/third@example.com", json!({})).await.fails(403, "forbidden");
    // Leaving is everybody's right.
    call(Method::DELETE, "/apps/mine/collaborators/friend@example.com", json!({})).await.is(200);
    call(Method::GET, "/apps/mine", json!({})).await.fails(403, "forbidden");
}

#[tokio::test]
async fn collaborators_are_added_once_and_only_with_an_account() {
    let api = Api::new().await;
    api.app("mine").await;
    let unknown = api.post("/apps/mine/collaborators", json!({"user": "nobody@example.com"})).await;
    let unknown = unknown.fails(404, "not_found");
    assert!(unknown.json["message"].as_str().is_some_and(|text| text.contains("dozen accounts:create")));
    let none = api.post("/apps/mine/collaborators", json!({"user": "notanemail"})).await.fails(422, "invalid_params");
    assert_eq!(none.json["message"], r#""notanemail" is not an e-mail address."#);
    api.account("friend@example.com").await;
    api.post("/apps/mine/collaborators", json!({"user": "friend@example.com"})).await.is(201);
    api.post("/apps/mine/collaborators", json!({"user": "friend@example.com"})).await.fails(422, "invalid_params");
    let list = api.get("/apps/mine/collaborators").await.is(200);
    assert_eq!(list.json.as_array().map(Vec::len), Some(2));
    let owner = api.admin().await.email;
    api.delete(&format!("/apps/mine/collaborators/{owner}")).await.fails(422, "invalid_params");
    api.delete("/apps/mine/collaborators/nobody@example.com").await.fails(404, "not_found");
    api.get("/apps/mine/collaborators/friend@example.com").await.is(200);
    api.post("/apps/mine/collaborators", json!({})).await.fails(422, "invalid_params");
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let api = Api::new().await;
    let missing = api.get("/apps/nothing").await.fails(404, "not_found");
    assert_eq!(
        (&missing.json["message"], &missing.json["resource"]),
        (&json!("Couldn't find that app."), &json!("app"))
    );
    api.app("mine").await;
    for path in [
        "releases/99",
        "releases/x",
        "formation/web",
        "dynos/web.1",
        "domains/a.example.com",
        "features/nothing",
        "collaborators/x",
        "slugs/x",
        "builds/x",
        "releases/99/config-vars",
        "pipeline-couplings",
    ] {
        api.get(&format!("/apps/mine/{path}")).await.fails(404, "not_found");
    }
}
