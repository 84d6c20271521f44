//! Builds from the API, buildpacks chosen by hand, and what a failed build tells.

use std::process::Command;

use dozen_testkit::{App, LONG, wait_for};
use serde_json::json;

use crate::platform;

#[test]
fn a_source_blob_is_built_and_released() {
    let platform = platform().start();
    let app = App::plain(&platform, "from-source");
    let (status, source) = platform.api("POST", "/sources", None);
    assert!(status < 300, "{source}");
    let blob = &source["source_blob"];
    let archive = app.directory().join("../source.tgz");
    app.git(&["archive", "--format=tar.gz", "-o", &archive.display().to_string(), "HEAD"]);
    let put = Command::new("curl")
        .args(["-sS", "-f", "-X", "PUT", "-H", "Content-Type:", "--data-binary"])
        .arg(format!("@{}", archive.display()))
        .arg(blob["put_url"].as_str().expect("a URL"))
        .output()
        .expect("curl");
    assert!(put.status.success(), "{put:?}");
    let body = json!({ "source_blob": { "url": blob["get_url"], "version": "abc123" } });
    let (status, build) = platform.api("POST", "/apps/from-source/builds", Some(&body));
    assert_eq!(status, 201, "{build}");
    let path = format!("/apps/from-source/builds/{}", build["id"].as_str().expect("an id"));
    let build = wait_for("the build to end", LONG, || {
        let (_, build) = platform.api("GET", &path, None);
        (build["status"] != "pending").then_some(build)
    });
    assert_eq!(build["status"], "succeeded", "{build}");
    let _answer = app.wait_for_answer();
}

#[test]
fn buildpacks_are_chosen_and_shown() {
    let platform = platform().start();
    let app = App::plain(&platform, "chosen");
    drop(app.heroku(&["buildpacks"]).says("has no Buildpack"));
    drop(app.heroku(&["buildpacks:set", "https://example.com/buildpack.tgz"]));
    drop(app.heroku(&["buildpacks:add", "https://example.com/second.tgz"]));
    drop(app.heroku(&["buildpacks"]).says("1. https://example.com/buildpack.tgz").says("second.tgz"));
    drop(app.heroku(&["buildpacks:remove", "https://example.com/second.tgz"]));
    drop(app.heroku(&["buildpacks:clear"]));
    drop(app.heroku(&["buildpacks"]).says("has no Buildpack"));
}

#[test]
fn a_failing_build_tells_what_failed_and_releases_nothing() {
    let platform = platform().start();
    let app = App::create(&platform, "failing");
    app.write("requirements.txt", "");
    app.write("Procfile", "web: true\n");
    app.write("bin/post_compile", "#!/bin/sh\necho this step is broken\nexit 7\n");
    app.commit("a broken step");
    app.git(&["update-index", "--chmod=+x", "bin/post_compile"]);
    app.git(&["commit", "-q", "-m", "executable"]);
    drop(app.try_push().failure().says("this step is broken").says("pre-receive hook declined"));
    let (_, releases) = platform.api("GET", "/apps/failing/releases", None);
    let deployed = releases.as_array().expect("a list").iter().any(|release| release["slug"].is_object());
    assert!(!deployed, "{releases}");
    let (_, builds) = platform.api("GET", "/apps/failing/builds", None);
    assert_eq!(builds[0]["status"], "failed", "{builds}");
}
