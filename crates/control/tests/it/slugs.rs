//! Slugs that come as archives: announced, put, released, had again.

use std::io::Write as _;

use axum::body::Body;
use dozen_control::{ops, store};
use dozen_domain::limits::Limits;
use http::{Method, Request};
use ring::digest;
use serde_json::{Value, json};

use crate::api::{Answer, Api};

/// What the fake takes for an archive.
fn archive(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("gzip");
    gzip.finish().expect("gzip")
}

fn checksum(bytes: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, bytes);
    format!("SHA256:{}", data_encoding::HEXLOWER.encode(sum.as_ref()))
}

/// An archive's address without the platform's own.
fn path(slug: &Value) -> String {
    let url = slug["blob"]["url"].as_str().expect("an address");
    url.strip_prefix("http://localhost:5000").expect("ours").to_owned()
}

async fn put(api: &Api, path: &str, bytes: &[u8]) -> Answer {
    let request = Request::builder().method(Method::PUT).uri(path).body(Body::from(bytes.to_vec()));
    api.send(request.expect("a request")).await
}

/// What is at an address, as bytes.
async fn have(api: &Api, path: &str) -> Vec<u8> {
    let (_, ticket) = path.split_once("?ticket=").expect("a ticket");
    let (mut file, size) = ops::slugs::get(&api.context, ticket).await.expect("an archive");
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut file, &mut bytes).await.expect("bytes");
    assert_eq!(size, bytes.len() as u64);
    bytes
}

#[tokio::test]
async fn a_slug_is_announced_put_released_and_had_again() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let bytes = archive("an app");
    let new = json!({
        "process_types": {"worker": "./work", "web": "./serve"},
        "commit": "0123456789abcdef",
        "commit_description": null,
        "buildpack_provided_description": "Ruby/Rack",
        "checksum": checksum(&bytes),
        "stack": "heroku-24",
    });
    let slug = api.post("/apps/shop/slugs", new).await.is(201).json;
    assert_eq!((&slug["blob"]["method"], &slug["size"]), (&json!("PUT"), &json!(null)));
    let info = format!("/apps/shop/slugs/{}", slug["id"].as_str().expect("an id"));
    assert_eq!(api.get(&info).await.is(200).json["blob"]["method"], "PUT");
    let release = json!({"slug": slug["id"]});
    let refused = api.post("/apps/shop/releases", release.clone()).await.fails(422, "invalid_params");
    assert!(refused.text.contains("has no blob yet"), "{}", refused.text);

    put(&api, &path(&slug), &bytes).await.is(200);
    let there = api.get(&info).await.is(200).json;
    assert_eq!((&there["blob"]["method"], &there["size"]), (&json!("GET"), &json!(bytes.len())));
    assert_eq!(have(&api, &path(&there)).await, bytes);
    // Once is enough, and one address is for one thing.
    put(&api, &path(&slug), &bytes).await.fails(409, "conflict");
    put(&api, &path(&there), &bytes).await.fails(404, "not_found");
    let made = api.post("/apps/shop/releases", release).await.is(201).json;
    assert_eq!((&made["slug"]["id"], &made["description"]), (&slug["id"], &json!("Deploy 01234567")));
    assert_eq!(api.get("/apps/shop/formation/web").await.is(200).json["command"], "./serve");
    let wanted = dozen_control::reconcile::apps::wanted(&api.context, app.id).await.expect("a database");
    assert_eq!(wanted.expect("something to run").processes.len(), 2);
    assert!(std::fs::read_dir(api.directory.path().join("tmp")).into_iter().flatten().count() == 0);
}

#[tokio::test]
async fn what_is_not_the_slug_is_refused_and_may_be_put_again() {
    let api = Api::with(Limits { slug_bytes: 100, ..Limits::default() }).await;
    api.app("shop").await;
    let bytes = archive("x");
    let new = |sum: Option<String>| json!({"process_types": {"web": "./serve"}, "checksum": sum});
    let slug = api.post("/apps/shop/slugs", new(Some(checksum(&bytes)))).await.is(201).json;
    put(&api, &path(&slug), &archive("y")).await.fails(422, "invalid_params");
    put(&api, &path(&slug), &[0; 101]).await.fails(413, "request_too_large");
    put(&api, &path(&slug), &bytes).await.is(200);
    let slug = api.post("/apps/shop/slugs", new(None)).await.is(201).json;
    put(&api, &path(&slug), b"no gzip").await.fails(422, "invalid_params");
    put(&api, &path(&slug), &bytes).await.is(200);
    let info = format!("/apps/shop/slugs/{}", slug["id"].as_str().expect("an id"));
    assert_eq!(api.get(&info).await.json["checksum"], checksum(&bytes));
    for bad in [
        json!({}),
        json!({"process_types": {}}),
        json!({"process_types": {"web": ""}}),
        json!({"process_types": {"web": 1}}),
        json!({"process_types": {"not a type": "x"}}),
        json!({"process_types": {"web": "x"}, "checksum": "md5:00"}),
        json!({"process_types": {"web": "x"}, "stack": "cedar-14"}),
    ] {
        api.post("/apps/shop/slugs", bad).await.fails(422, "invalid_params");
    }
    assert!(std::fs::read_dir(api.directory.path().join("tmp")).into_iter().flatten().count() == 0);
}

#[tokio::test]
async fn addresses_end_and_belong_to_those_who_see_the_app() {
    let api = Api::new().await;
    api.app("shop").await;
    let other = api.account("other@example.com").await;
    let new = json!({"process_types": {"web": "./serve"}});
    api.call(&other, Method::POST, "/apps/shop/slugs", Some(new.clone())).await.fails(403, "forbidden");
    let slug = api.post("/apps/shop/slugs", new).await.is(201).json;
    let info = format!("/apps/shop/slugs/{}", slug["id"].as_str().expect("an id"));
    api.call(&other, Method::GET, &info, None).await.fails(403, "forbidden");
    put(&api, "/slugs/x.tgz?ticket=x", b"").await.fails(404, "not_found");
    api.clock.advance(3_601);
    put(&api, &path(&slug), &archive("x")).await.fails(410, "gone");
    let again = api.get(&info).await.is(200).json;
    put(&api, &path(&again), &archive("x")).await.is(200);
}

#[tokio::test]
async fn a_built_slug_has_the_checksum_of_the_archive_that_is_made_of_it() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let id = api.slug(app.id, "abc", &[("web", "serve")]).await;
    let info = format!("/apps/shop/slugs/{id}");
    let built = api.get(&info).await.is(200).json;
    let bytes = have(&api, &path(&built)).await;
    assert!(bytes.starts_with(b"what sha256:"), "{bytes:?}");
    assert_eq!(built["checksum"], checksum(&bytes));
    let kept = store::slugs::by_id(&mut api.context.store.read().await.expect("a database"), id).await;
    assert_eq!(kept.expect("a row").and_then(|slug| slug.checksum), Some(checksum(&bytes)));
    assert!(std::fs::read_dir(api.directory.path().join("tmp")).into_iter().flatten().count() == 0);
}

#[tokio::test]
async fn slugs_that_nobody_releases_go_with_their_archives() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let kept = || std::fs::read_dir(api.directory.path().join(format!("apps/{}/slugs", app.id))).into_iter().flatten();
    let announce = || api.post("/apps/shop/slugs", json!({"process_types": {"web": "./serve"}}));
    let (forgotten, released) = (announce().await.json, announce().await.json);
    for slug in [&forgotten, &released] {
        put(&api, &path(slug), &archive("x")).await.is(200);
    }
    api.post("/apps/shop/releases", json!({"slug": released["id"]})).await.is(201);
    ops::slugs::prune(&api.context, app.id).await.expect("pruned");
    assert_eq!(kept().count(), 2, "it may still be released");
    api.clock.advance(604_801);
    ops::slugs::prune(&api.context, app.id).await.expect("pruned");
    assert_eq!(kept().count(), 1);
    assert_eq!(api.builds.kept().last().map(|(_, images)| images.len()), Some(1));
    let gone = api.get(&format!("/apps/shop/slugs/{}", forgotten["id"].as_str().expect("an id"))).await.is(200).json;
    assert!(gone["deleted_at"].is_string(), "{gone}");
    let request = Request::builder().uri(path(&gone)).body(Body::empty());
    api.send(request.expect("a request")).await.fails(410, "gone");
    let refused = api.post("/apps/shop/releases", json!({"slug": forgotten["id"]})).await;
    assert!(refused.fails(422, "invalid_params").text.contains("removed to save space"));
}
