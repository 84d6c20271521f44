//! Config vars, and the releases that changing them makes.

use http::Method;
use serde_json::json;

use crate::api::Api;

async fn newest(api: &Api) -> (u64, String) {
    let releases = api.range("/apps/shop/releases", "version ..; max=1, order=desc").await;
    let release = &releases.json[0];
    (release["version"].as_u64().expect("a number"), release["description"].as_str().expect("text").to_owned())
}

#[tokio::test]
async fn a_change_makes_a_release_and_no_change_makes_none() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.lines();
    let set = api.patch("/apps/shop/config-vars", json!({"FOO": "1", "BAR": "2"})).await.is(200);
    assert_eq!(set.json, json!({"BAR": "2", "FOO": "1"}));
    assert_eq!(newest(&api).await, (3, "Set FOO, BAR config vars".to_owned()));
    let email = api.admin().await.email;
    let lines = [
        format!("app[api]: Set FOO, BAR config vars by user {email}"),
        format!("app[api]: Release v3 created by user {email}"),
    ];
    assert_eq!(api.lines(), lines);
    api.nudged();
    for same in [json!({"FOO": "1"}), json!({"NOT_THERE": null}), json!({})] {
        api.patch("/apps/shop/config-vars", same).await.is(200);
    }
    assert_eq!(newest(&api).await.0, 3);
    assert!(api.lines().is_empty() && api.nudged().is_empty());
    api.patch("/apps/shop/config-vars", json!({"FOO": null})).await.is(200);
    assert_eq!(newest(&api).await, (4, "Remove FOO config vars".to_owned()));
    assert_eq!(api.nudged(), [app.id]);
    assert_eq!(api.get("/apps/shop/config-vars").await.json, json!({"BAR": "2"}));
    assert_eq!(api.get("/apps/shop/releases/3/config-vars").await.is(200).json, json!({"BAR": "2", "FOO": "1"}));
}

#[tokio::test]
async fn values_are_kept_as_they_are() {
    let api = Api::new().await;
    api.app("shop").await;
    let value = "line one\nline two \"quoted\" = ü 𝄞 \t ";
    api.patch("/apps/shop/config-vars", json!({"A": value, "EMPTY": "", "N": 5, "B": true})).await.is(200);
    let read = api.get("/apps/shop/config-vars").await.json;
    assert_eq!(read, json!({"A": value, "B": "true", "EMPTY": "", "N": "5"}));
}

#[tokio::test]
async fn bad_keys_and_values_change_nothing() {
    let api = Api::new().await;
    api.app("shop").await;
    for bad in [json!({"A B": "1"}), json!({"": "1"}), json!({"A=": "1"}), json!({"A": {}}), json!({"A": "a\u{0}b"})] {
        let with_good = {
            let mut all = bad;
            all["GOOD"] = json!("1");
            all
        };
        api.patch("/apps/shop/config-vars", with_good).await.fails(422, "invalid_params");
    }
    api.patch("/apps/shop/config-vars", json!([1])).await.fails(422, "invalid_params");
    assert_eq!(newest(&api).await.0, 2);
    let long = "x".repeat(65_536);
    let refused = api.patch("/apps/shop/config-vars", json!({"LONG": long})).await.fails(422, "invalid_params");
    assert!(!refused.text.contains("xxxx"));
}

#[tokio::test]
async fn values_are_not_readable_in_the_data_directory() {
    let api = Api::new().await;
    api.app("shop").await;
    api.patch("/apps/shop/config-vars", json!({"PASSWORD": "open-sesame-4711"})).await.is(200);
    api.patch("/apps/shop/config-vars", json!({"OTHER": "1"})).await.is(200);
    let mut looked = 0;
    for entry in std::fs::read_dir(api.directory.path()).expect("a directory").flatten() {
        let Ok(bytes) = std::fs::read(entry.path()) else { continue };
        looked += 1;
        let found = bytes.windows(16).any(|window| window == b"open-sesame-4711");
        assert!(!found, "{} holds the value", entry.path().display());
    }
    assert!(looked >= 2);
    assert!(!api.lines().concat().contains("open-sesame"));
    let read = api.call(&api.token, Method::GET, "/apps/shop/config-vars", None).await;
    assert_eq!(read.json["PASSWORD"], "open-sesame-4711");
}
