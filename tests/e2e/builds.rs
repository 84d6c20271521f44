//! Builds from the API, buildpacks chosen by hand, and what a failed build tells.

use std::process::Command;

use dozen_testkit::{App, LONG, wait_for, wait_until};
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

/// Sends a file with curl to an address that carries its own secret.
fn put(file: &std::path::Path, url: &str) -> std::process::Output {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail-with-body", "-X", "PUT", "-H", "Content-Type:", "--data-binary"]);
    curl.arg(format!("@{}", file.display())).arg(url).output().expect("curl")
}

#[test]
fn a_slug_made_by_hand_is_released_and_goes_on_to_another_app() {
    let platform = platform().start();
    let api = |method: &str, path: &str, body: serde_json::Value, status: u16| {
        let (answered, json) = platform.api(method, path, (!body.is_null()).then_some(&body));
        assert_eq!(answered, status, "{method} {path}: {json}");
        json
    };
    let folder = platform.scratch("slug");
    std::fs::create_dir_all(folder.join("app")).expect("a directory");
    std::fs::write(folder.join("app/server.py"), App::SERVER).expect("a file");
    let archive = folder.join("slug.tgz");
    let tar = Command::new("tar").current_dir(&folder).args(["-czf", "slug.tgz", "./app"]).status().expect("tar");
    assert!(tar.success());

    let new = json!({"process_types": {"web": "python3 server.py"}, "commit": "0123456789abcdef"});
    api("POST", "/apps", json!({"name": "by-hand"}), 201);
    let slug = api("POST", "/apps/by-hand/slugs", new.clone(), 201);
    assert_eq!(slug["blob"]["method"], "PUT");
    let url = |slug: &serde_json::Value| slug["blob"]["url"].as_str().expect("a URL").to_owned();
    let refused = put(&folder.join("app/server.py"), &url(&slug));
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && said.contains("not a whole gzipped tar"), "{refused:?}");
    let release = json!({"slug": slug["id"]});
    let refused = api("POST", "/apps/by-hand/releases", release.clone(), 422);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("no blob yet")), "{refused}");
    assert!(put(&archive, &url(&slug)).status.success());
    api("POST", "/apps/by-hand/releases", release, 201);
    wait_until("an answer", LONG, || platform.http("by-hand.localhost", "/").status == 200);

    // A pushed app's slug runs as another app.
    let pushed = App::plain(&platform, "pushed");
    let _output = pushed.push();
    let release = api("GET", "/apps/pushed/releases/current", json!(null), 200);
    let path = format!("/apps/pushed/slugs/{}", release["slug"]["id"].as_str().expect("a slug"));
    let slug = api("GET", &path, json!(null), 200);
    let had = folder.join("had.tgz");
    let got = Command::new("curl").args(["-sS", "-f", "-o"]).arg(&had).arg(url(&slug)).status().expect("curl");
    assert!(got.success());
    let copy = json!({"process_types": slug["process_types"], "commit": slug["commit"]});
    api("POST", "/apps", json!({"name": "copied"}), 201);
    let copy = api("POST", "/apps/copied/slugs", copy, 201);
    assert!(put(&had, &url(&copy)).status.success());
    api("POST", "/apps/copied/releases", json!({"slug": copy["id"]}), 201);
    wait_until("an answer", LONG, || platform.http("copied.localhost", "/").status == 200);
}

/// Makes a classic buildpack of three scripts.
fn classic(folder: &std::path::Path, name: &str, compile: &str, release: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let bin = folder.join(name).join("bin");
    std::fs::create_dir_all(&bin).expect("a directory");
    for (script, text) in [("detect", &*format!("echo {name}")), ("compile", compile), ("release", release)] {
        let path = bin.join(script);
        std::fs::write(&path, format!("#!/bin/sh\nset -eu\n{text}\n")).expect("a file");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
}

#[test]
fn several_classic_buildpacks_build_on_one_another_and_the_last_says_what_runs() {
    let folder = tempfile::tempdir().expect("a directory");
    // The first has a tool for the second, and something for the running app's environment.
    classic(
        folder.path(),
        "tools",
        "mkdir -p \"$1/tools\" \"$1/.profile.d\"
printf '#!/bin/sh\\necho tool of $1' > \"$1/tools/mark\" && chmod +x \"$1/tools/mark\"
printf 'export PATH=\"%s/tools:$PATH\"\\nexport FROM_TOOLS=exported' \"$1\" > \"$(dirname \"$0\")/../export\"
echo 'export MARKS=\"tools\"' > \"$1/.profile.d/000_tools.sh\"",
        "printf -- '---\\ndefault_process_types:\\n  web: never run\\n  extra: sleep 1000\\n'",
    );
    classic(
        folder.path(),
        "server",
        "echo \"       made by: $(mark)\"
echo \"$FROM_TOOLS in $(basename \"$1\"), $(cat \"$3/GREETED\")\" > \"$1/made\"
echo 'export MARKS=\"$MARKS server\"' > \"$1/.profile.d/100_server.sh\"",
        "printf -- '---\\nconfig_vars:\\n  WORKERS: 2\\ndefault_process_types:\\n  web: echo \"marks $MARKS, workers $WORKERS\"; exec python3 -u server.py\\n'",
    );
    let platform = platform().variable("DOZEN_BUILDPACK_DIRS", &folder.path().display().to_string()).start();
    let app = App::create(&platform, "several");
    app.write("server.py", App::SERVER);
    app.commit("no Procfile");
    for name in ["tools", "server"] {
        drop(app.heroku(&["buildpacks:add", &format!("file://{}", folder.path().join(name).display())]));
    }
    drop(app.heroku(&["config:set", "GREETED=world"]));
    let pushed = app.try_push().success();
    drop(pushed.says("made by: tool of").says("Default types for buildpack -> ").says("web"));
    let _answer = app.wait_for_answer();
    app.wait_for_log("marks tools server, workers 2");
    let made = app.heroku(&["run", "--no-tty", "cat made; which mark || echo only while building"]);
    drop(made.says("exported in app, world").says("only while building"));
    // An export is for the build that made it: the folder on the machine is as it was.
    assert!(!folder.path().join("tools/export").exists());
}
