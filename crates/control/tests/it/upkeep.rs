//! What passes with time: builds and outputs beyond what is kept, addresses, sources of nobody.

use std::{collections::BTreeSet, fs};

use axum::body::Body;
use dozen_control::{ops, store};
use dozen_domain::{
    ids::{BuildId, SourceId},
    limits::Limits,
};
use http::Request;
use serde_json::json;

use crate::api::{Answer, Api};

fn build(api: &Api, app: &store::apps::App, account: &store::accounts::Account) -> store::builds::Build {
    store::builds::Build {
        id: BuildId::random(),
        app: app.id,
        account: account.id,
        email: account.email.clone(),
        status: store::builds::Status::Failed,
        source_url: "https://example.com/x.tgz".to_owned(),
        source_checksum: None,
        source_version: None,
        source_version_description: None,
        buildpacks: Vec::new(),
        stack: "heroku-24".to_owned(),
        slug: None,
        release: None,
        foreign_ms: 0,
        created_at: api.context.now(),
        updated_at: api.context.now(),
    }
}

async fn add(api: &Api, build: &store::builds::Build) -> std::path::PathBuf {
    let mut db = api.context.store.write().await.expect("a transaction");
    store::builds::insert(&mut db, build).await.expect("a build");
    db.commit().await.expect("a commit");
    let path = ops::builds::output_path(&api.context, build.app, build.id);
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(&path, "output").expect("a file");
    path
}

async fn follow(api: &Api, build: &serde_json::Value) -> Answer {
    let url = build["output_stream_url"].as_str().expect("an address");
    let path = url.strip_prefix("http://localhost:5000").expect("ours");
    api.send(Request::builder().uri(path).body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn builds_and_outputs_beyond_what_is_kept_are_forgotten() {
    let api = Api::with(Limits { builds_kept: 2, ..Limits::default() }).await;
    let (app, other) = (api.app("shop").await, api.app("other").await);
    let admin = api.admin().await;
    let mut outputs = Vec::new();
    for n in 0..5 {
        api.clock.advance(1);
        let mut build = build(&api, &app, &admin);
        if n == 0 {
            build.status = store::builds::Status::Pending;
        }
        outputs.push(add(&api, &build).await);
    }
    let others = add(&api, &build(&api, &other, &admin)).await;
    // Of a build whose row went before a kill, and of release commands: the third and second of three stay.
    let stray = outputs[0].with_file_name(format!("{}.log", BuildId::random()));
    fs::write(&stray, "").expect("a file");
    api.deploy(app.id, "abc", &[("web", "serve")]).await;
    let mut phases = Vec::new();
    for version in 1..=3 {
        let release = ops::releases::find(&api.context, app.id, &version.to_string()).await.expect("a release");
        let path = ops::release_phase::output_path(&api.context, app.id, release.id);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, "").expect("a file");
        phases.push(path);
    }
    assert_eq!(ops::builds::forget(&api.context, app.id).await.expect("forgotten"), 2);
    let there: Vec<bool> = outputs.iter().map(|path| path.exists()).collect();
    assert_eq!(there, [true, false, false, true, true], "the first is pending");
    assert!(others.exists() && !stray.exists());
    assert_eq!(phases.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(api.get("/apps/shop/builds").await.is(200).json.as_array().map(Vec::len), Some(3));
    assert_eq!(ops::builds::forget(&api.context, app.id).await.expect("nothing to do"), 0);
}

#[tokio::test]
async fn addresses_of_outputs_stay_for_a_while_and_end() {
    let api = Api::with(Limits { output_url_seconds: 100, ..Limits::default() }).await;
    let app = api.app("shop").await;
    let build = build(&api, &app, &api.admin().await);
    add(&api, &build).await;
    let info = format!("/apps/shop/builds/{}", build.id);
    let first = api.get(&info).await.is(200);
    assert_eq!(follow(&api, &first.json).await.is(200).text, "output");
    api.clock.advance(99);
    assert_eq!(api.get(&info).await.header("etag"), first.header("etag"), "nothing has changed");
    follow(&api, &first.json).await.is(200);
    api.clock.advance(101);
    follow(&api, &first.json).await.fails(410, "gone");
    let next = api.get(&info).await.is(200).json;
    follow(&api, &next).await.is(200);
    // Its end is part of what the secret stands for.
    let url = next["output_stream_url"].as_str().expect("an address");
    let (before, secret) = url.rsplit_once('/').expect("a path");
    let (ends, tag) = secret.split_once('-').expect("an end");
    let forged = json!({"output_stream_url": format!("{before}/{}-{tag}", ends.parse::<i64>().expect("a time") + 1)});
    follow(&api, &forged).await.fails(404, "not_found");
}

#[tokio::test]
async fn sources_go_at_their_end_or_with_their_account() {
    let api = Api::new().await;
    let directory = api.directory.path().join("sources");
    let files = || {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<BTreeSet<_>>()
    };
    let put = |url: String| {
        let path = url.strip_prefix("http://localhost:5000").expect("ours").to_owned();
        api.send(Request::builder().method("PUT").uri(path).body(Body::from("x")).expect("a request"))
    };
    let addresses = ops::sources::create(&api.context, &api.admin().await).await.expect("a source");
    put(addresses.put_url).await.is(200);
    fs::write(directory.join(format!("{}.tgz", SourceId::random())), "of nobody").expect("a file");
    assert_eq!(files().len(), 2);
    assert_eq!(ops::sources::expire(&api.context).await.expect("swept"), 0);
    assert_eq!(files().len(), 1);
    api.clock.advance(3_601);
    assert_eq!(ops::sources::expire(&api.context).await.expect("swept"), 1);
    assert!(files().is_empty());
}
