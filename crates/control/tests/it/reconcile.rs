//! What runs follows what is wanted, whatever is killed in between.

use std::sync::Arc;

use dozen_api::{
    clock,
    engine::{Engine as _, Gate as _},
    frame,
    routes::{Ack, App, DynoState, Message, Mode},
    socket,
};
use dozen_control::{
    ops::{self, releases::Change},
    reconcile::{
        apps::Apps,
        driver::{Scope, Task as _},
    },
    store,
};
use dozen_domain::{config::Secret, dyno::Exit, ids::DynoId, limits::Limits, release::Status};
use tokio::net::UnixStream;

use crate::server::{Server, until};

async fn deployed(server: &Server, types: &[(&'static str, &'static str)]) -> store::apps::App {
    let app = server.app("shop").await;
    *server.builds.types.lock().expect("not poisoned") = types.to_vec();
    let (succeeded, said) = server.repository("shop").await.push().await;
    assert!(succeeded, "{said}");
    app
}

async fn config(server: &Server, app: &store::apps::App, key: &str, value: &str) -> store::releases::Release {
    let change = Change::Config(vec![(key.parse().expect("a key"), Some(Secret::new(value)))]);
    ops::releases::create(&server.context, app.id, &server.admin().await, change).await.expect("a release")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_is_applied_once_however_often_it_is_looked_at() {
    let server = Server::start().await;
    let app = deployed(&server, &[("web", "./serve"), ("worker", "./work")]).await;
    let wanted = until("wanted state", || async { server.engine.wanted(app.id) }).await;
    let quantities: Vec<(&str, u32)> =
        wanted.processes.iter().map(|process| (process.process_type.as_str(), process.quantity)).collect();
    assert_eq!(quantities, [("web", 1), ("worker", 0)]);
    let applied = server.engine.applied();
    for _ in 0..20 {
        server.context.nudge.nudge(app.id);
    }
    config(&server, &app, "A", "1").await;
    until("new release", || async { server.engine.wanted(app.id).filter(|wanted| wanted.env.contains_key("A")) }).await;
    assert_eq!(server.engine.applied(), applied + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_role_applies_what_is_wanted_again() {
    let mut server = Server::start().await;
    let app = deployed(&server, &[("web", "./serve")]).await;
    until("wanted state", || async { server.engine.wanted(app.id) }).await;
    let before = server.engine.wanted(app.id);
    server.stop().await;
    let engine = Arc::new(dozen_api::engine::memory::Memory::new());
    let server = Server::on(server.directory.clone(), Limits::default(), engine).await;
    let after = until("wanted state", || async { server.engine.wanted(app.id) }).await;
    assert_eq!(before.as_ref(), Some(&after));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_destroyed_app() {
    let server = Server::start().await;
    let app = deployed(&server, &[("web", "./serve")]).await;
    until("a dyno", || async { (!server.engine.dynos(app.id).is_empty()).then_some(()) }).await;
    ops::apps::destroy(&server.context, &server.admin().await, "shop").await.expect("a destruction");
    until("no dynos", || async { server.engine.dynos(app.id).is_empty().then_some(()) }).await;
    let directory = server.data(&format!("apps/{}", app.id));
    until("no directory", || async { (!directory.exists()).then_some(()) }).await;
    until("no record", || async {
        let mut db = server.context.store.read().await.expect("a database");
        store::removals::all(&mut db).await.expect("removals").is_empty().then_some(())
    })
    .await;
    let kept = server.builds.kept.lock().expect("not poisoned").clone();
    assert_eq!(kept.last(), Some(&(app.id, Vec::new())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_app_is_cleared_up_after_only_when_its_build_has_ended() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    server.builds.hold.send_replace(true);
    let repository = server.repository("shop").await;
    let pushing = tokio::spawn(repository.command().args(["push", "dozen", "main"]).output());
    server.builds.running.subscribe().wait_for(|running| *running == 1).await.expect("a build");
    ops::apps::destroy(&server.context, &server.admin().await, "shop").await.expect("a destruction");
    let directory = server.data(&format!("apps/{}", app.id));
    Apps::new(server.context.clone()).run(&Scope::All).await.expect_err("something is left undone");
    assert!(directory.exists() && server.builds.kept.lock().expect("not poisoned").is_empty());
    server.builds.hold.send_replace(false);
    until("no directory", || async { (!directory.exists()).then_some(()) }).await;
    assert!(!pushing.await.expect("a push").expect("git").status.success());
    assert!(!directory.exists(), "the build has put nothing back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_has_not_succeeded_when_its_release_cannot_be_written() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let mut db = server.context.store.write().await.expect("a database");
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON releases WHEN NEW.description LIKE 'Deploy%' \
                  BEGIN SELECT raise(ABORT, 'the test says so'); END";
    sqlx::query(refuse).execute(&mut *db).await.expect("a trigger");
    db.commit().await.expect("a commit");
    let repository = server.repository("shop").await;
    assert!(!repository.command().args(["push", "dozen", "main"]).output().await.expect("git").status.success());
    let build = &server.builds_of(&app).await[0];
    assert_eq!((build.status, build.slug, build.release), (store::builds::Status::Failed, None, None));
    let mut db = server.context.store.read().await.expect("a database");
    assert!(store::slugs::kept(&mut db, app.id).await.expect("slugs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_the_role_did_not_survive_has_failed() {
    let mut server = Server::start().await;
    let app = server.app("shop").await;
    server.builds.hold.send_replace(true);
    let repository = server.repository("shop").await;
    let pushing = tokio::spawn(repository.command().args(["push", "dozen", "main"]).output());
    server.builds.running.subscribe().wait_for(|running| *running == 1).await.expect("a build");
    let scratch = server.data("tmp");
    assert_eq!(std::fs::read_dir(&scratch).expect("a directory").count(), 1);
    server.kill().await;
    let next = Server::on(server.directory.clone(), Limits::default(), server.engine.clone()).await;
    until("a failed build", || async {
        let builds = next.builds_of(&app).await;
        (builds[0].status == store::builds::Status::Failed).then_some(())
    })
    .await;
    assert_eq!(std::fs::read_dir(&scratch).expect("a directory").count(), 0);
    let build = &next.builds_of(&app).await[0];
    let output = std::fs::read_to_string(ops::builds::output_path(&next.context, app.id, build.id)).expect("an output");
    assert!(output.contains("restarted during this build"), "{output}");
    pushing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_phase_decides_what_is_in_force() {
    let server = Server::start().await;
    server.engine.answer("./migrate", Exit::Code(0), "");
    let app = deployed(&server, &[("web", "./serve"), ("release", "./migrate")]).await;
    server.engine.answer("./migrate", Exit::Code(1), "it broke\n");
    let release = config(&server, &app, "A", "1").await;
    assert_eq!(release.status, Status::Pending);
    let ended = ops::release_phase::wait(&server.context, release.id).await.expect("an end");
    assert_eq!(ended.status, Status::Failed);
    let path = ops::release_phase::output_path(&server.context, app.id, release.id);
    let output = std::fs::read_to_string(path).expect("an output");
    assert!(output.starts_with("it broke\n") && output.contains("exit status 1"), "{output}");
    let wanted = server.engine.wanted(app.id).expect("wanted state");
    assert!(!wanted.env.contains_key("A"));
    let (status, body) = {
        let (_, releases) = server.api("GET", "/apps/shop/releases", &serde_json::Value::Null).await;
        let url = releases[3]["output_stream_url"].as_str().expect("an address").to_owned();
        let path = url.split_once(&server.api.to_string()).expect("our address").1.to_owned();
        server.http("GET", &path, "", b"").await
    };
    assert!(status == 200 && body.starts_with("it broke"), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_command_that_takes_too_long_is_stopped_and_failed() {
    let server = Server::with(|limits| limits.release_phase_seconds = 1).await;
    let app = deployed(&server, &[("web", "./serve"), ("release", "./migrate")]).await;
    server.engine.hold_one_offs(true);
    let release = config(&server, &app, "A", "1").await;
    let ended = ops::release_phase::wait(&server.context, release.id).await.expect("an end");
    assert_eq!(ended.status, Status::Failed);
    let path = ops::release_phase::output_path(&server.context, app.id, release.id);
    assert!(std::fs::read_to_string(path).expect("an output").contains("timed out after 1 seconds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_command_goes_on_while_the_role_is_dead_and_is_not_run_twice() {
    let mut server = Server::start().await;
    let app = deployed(&server, &[("web", "./serve"), ("release", "./migrate")]).await;
    let before = server.engine.one_offs().len();
    server.engine.hold_one_offs(true);
    let release = config(&server, &app, "A", "1").await;
    let one_off = until("a one-off", || async { server.engine.one_offs().get(before).cloned() }).await;
    assert_eq!(one_off.name.process_type().as_str(), "release");
    server.engine.print(one_off.dyno, "begun\n");
    let path = ops::release_phase::output_path(&server.context, app.id, release.id);
    until("output", || async { (std::fs::read(&path).ok()? == b"begun\n").then_some(()) }).await;
    server.stop().await;
    let next = Server::on(server.directory.clone(), Limits::default(), server.engine.clone()).await;
    next.engine.print(one_off.dyno, "still here\n");
    next.engine.finish(one_off.dyno, Exit::Code(0));
    let ended = ops::release_phase::wait(&next.context, release.id).await.expect("an end");
    assert_eq!(ended.status, Status::Succeeded);
    assert_eq!(next.engine.one_offs().len(), before + 1);
    assert_eq!(std::fs::read_to_string(path).expect("an output"), "begun\nstill here\n");
}

/// A release whose command the next engine does not know, with what its record says of it.
async fn forgotten(boot: &str, begun: bool) -> (Server, store::releases::Release) {
    let mut server = Server::start().await;
    let app = deployed(&server, &[("web", "./serve"), ("release", "./migrate")]).await;
    let before = server.engine.one_offs().len();
    server.engine.hold_one_offs(true);
    let release = config(&server, &app, "A", "1").await;
    until("a one-off", || async { server.engine.one_offs().get(before).cloned() }).await;
    // Its start is followed by its output, and that is read only once the start is on record.
    server.engine.print(DynoId(release.id.0), "begun\n");
    let path = ops::release_phase::output_path(&server.context, app.id, release.id);
    until("output", || async { (std::fs::read(&path).ok()? == b"begun\n").then_some(()) }).await;
    let mut db = server.context.store.write().await.expect("the database");
    sqlx::query("UPDATE release_commands SET boot = ?1, begun = ?2")
        .bind(boot)
        .bind(begun)
        .execute(&mut *db)
        .await
        .expect("a record");
    db.commit().await.expect("written");
    server.stop().await;
    let engine = Arc::new(dozen_api::engine::memory::Memory::new());
    let next = Server::on(server.directory.clone(), Limits::default(), engine).await;
    let ended = ops::release_phase::wait(&next.context, release.id).await.expect("an end");
    (next, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_command_that_may_have_begun_and_nobody_knows_any_more_has_failed() {
    for (boot, begun) in [(clock::boot().as_str(), true), ("another boot", false), ("another boot", true)] {
        let (next, ended) = forgotten(boot, begun).await;
        assert_eq!(ended.status, Status::Failed, "{boot} {begun}");
        assert!(next.engine.one_offs().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_command_whose_role_was_killed_before_its_start_is_started_by_the_next() {
    let (next, ended) = forgotten(&clock::boot(), false).await;
    assert_eq!(ended.status, Status::Succeeded);
    assert_eq!(next.engine.one_offs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_release_command_ended_is_known_without_its_output() {
    let server = Server::start().await;
    let app = deployed(&server, &[("web", "./serve"), ("release", "./migrate")]).await;
    server.engine.lose_output(true);
    for (exit, status) in [(Exit::Code(0), Status::Succeeded), (Exit::Code(3), Status::Failed)] {
        server.engine.answer("./migrate", exit, "unread\n");
        let release = config(&server, &app, "A", &format!("{exit:?}")).await;
        let ended = ops::release_phase::wait(&server.context, release.id).await.expect("an end");
        assert_eq!(ended.status, status);
        let path = ops::release_phase::output_path(&server.context, app.id, release.id);
        let output = std::fs::read_to_string(path).expect("an output");
        assert!(output.contains("The end of this output was lost. `heroku logs --dyno-name release."), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_command_that_ended_while_the_role_was_dead_ends_as_it_did() {
    for (exit, status) in [(Exit::Code(0), Status::Succeeded), (Exit::Code(3), Status::Failed)] {
        let mut server = Server::start().await;
        let app = deployed(&server, &[("web", "./serve"), ("release", "./migrate")]).await;
        let before = server.engine.one_offs().len();
        server.engine.hold_one_offs(true);
        let release = config(&server, &app, "A", "1").await;
        let one_off = until("a one-off", || async { server.engine.one_offs().get(before).cloned() }).await;
        server.engine.print(one_off.dyno, "begun\n");
        let path = ops::release_phase::output_path(&server.context, app.id, release.id);
        until("output", || async { (std::fs::read(&path).ok()? == b"begun\n").then_some(()) }).await;
        server.stop().await;
        // Its shim is gone before the next role comes; the engine has its last word.
        server.engine.lose_output(true);
        server.engine.finish(one_off.dyno, exit);
        let next = Server::on(server.directory.clone(), Limits::default(), server.engine.clone()).await;
        let ended = ops::release_phase::wait(&next.context, release.id).await.expect("an end");
        assert_eq!(ended.status, status);
        assert!(std::fs::read_to_string(path).expect("an output").starts_with("begun\n"));
    }
}

/// A router that keeps the table and acknowledges when the test says so.
struct Router {
    stream: UnixStream,
}

impl Router {
    async fn connect(server: &Server) -> Self {
        let path = server.data("run/routes.sock");
        let stream = until("a socket", || async { socket::connect(&path).await.ok() }).await;
        Self { stream }
    }

    async fn next(&mut self) -> Message {
        frame::read(&mut self.stream).await.expect("a frame").expect("a message")
    }

    async fn acknowledge(&mut self, generation: u64) {
        frame::write(&mut self.stream, &Ack { generation, busy: Vec::new() }).await.expect("an answer");
    }

    /// Acknowledges everything until an app's entry is as wanted.
    async fn until(&mut self, what: impl Fn(&App) -> bool) -> App {
        loop {
            let (generation, apps) = match self.next().await {
                Message::Snapshot { generation, apps } => (generation, apps),
                Message::Upsert { generation, app } => (generation, vec![*app]),
                Message::Remove { generation, .. } => (generation, Vec::new()),
                Message::Part { .. } => panic!("a table of a few apps comes in parts"),
            };
            self.acknowledge(generation).await;
            if let Some(app) = apps.into_iter().find(|app| what(app)) {
                return app;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_follows_apps_and_their_dynos() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let mut router = Router::connect(&server).await;
    let entry = router.until(|entry| entry.id == app.id).await;
    assert_eq!((entry.mode, entry.hosts.as_slice()), (Mode::Blank, ["shop.localhost".to_owned()].as_slice()));
    let (succeeded, said) = server.repository("shop").await.push().await;
    assert!(succeeded, "{said}");
    let entry = router.until(|entry| entry.dynos.iter().any(|dyno| dyno.state == DynoState::Up)).await;
    assert_eq!((entry.mode, entry.web_quantity, entry.dynos.len()), (Mode::Serving, 1, 1));
    config(&server, &app, "ERROR_PAGE_URL", "https://example.com/sorry").await;
    router.until(|entry| entry.error_page_url.is_some()).await;
    // The table tells of the page before the new release's dyno is in place of the one that would crash unseen.
    let replaced = || async { server.engine.wanted(app.id).filter(|wanted| wanted.env.contains_key("ERROR_PAGE_URL")) };
    until("the new release's dyno", replaced).await;
    server.engine.crash(app.id, "web.1");
    router.until(|entry| entry.dynos.iter().any(|dyno| dyno.state == DynoState::Crashed)).await;
    let (status, _) = server.api("PATCH", "/apps/shop", &serde_json::json!({"maintenance": true})).await;
    assert_eq!(status, 200);
    router.until(|entry| entry.mode == Mode::Maintenance).await;
    let mut second = Router::connect(&server).await;
    let entry = second.until(|entry| entry.id == app.id).await;
    assert_eq!(entry.mode, Mode::Maintenance);
    ops::apps::destroy(&server.context, &server.admin().await, "shop").await.expect("a destruction");
    loop {
        if let Message::Remove { app: gone, .. } = second.next().await {
            assert_eq!(gone, app.id);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_blob_is_uploaded_built_and_its_output_followed() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let (status, source) = server.api("POST", "/sources", &serde_json::json!({})).await;
    assert_eq!(status, 201);
    let url = |name: &str| source["source_blob"][name].as_str().expect("an address").to_owned();
    let path = |url: &str| url.split_once(&server.api.to_string()).expect("our address").1.to_owned();
    let tar = tarball();
    let (status, body) = server.http("PUT", &path(&url("put_url")), "", &tar).await;
    assert_eq!(status, 200, "{body}");
    let (status, _) = server.http("PUT", &path(&url("get_url")), "", &tar).await;
    assert_eq!(status, 404);
    let asked = serde_json::json!({"source_blob": {"url": url("get_url"), "version": "abc"}});
    let (status, build) = server.api("POST", "/apps/shop/builds", &asked).await;
    assert_eq!((status, build["status"].as_str()), (201, Some("pending")));
    let stream = path(build["output_stream_url"].as_str().expect("an address"));
    let (status, output) = server.http("GET", &stream, "", b"").await;
    assert!(status == 200 && output.contains("Released v3"), "{output}");
    let info = format!("/apps/shop/builds/{}", build["id"].as_str().expect("an id"));
    let build = until("a finished build", || async {
        let (_, build) = server.api("GET", &info, &serde_json::Value::Null).await;
        (build["status"] == "succeeded" && !build["release"].is_null()).then_some(build)
    })
    .await;
    let slug = format!("/apps/shop/slugs/{}", build["slug"]["id"].as_str().expect("a slug"));
    let (status, slug) = server.api("GET", &slug, &serde_json::Value::Null).await;
    assert_eq!((status, slug["process_types"]["web"].as_str()), (200, Some("./serve")));
    assert_eq!(server.releases(&app).await.len(), 3);
    assert_eq!(server.builds.seen.lock().expect("not poisoned")[0].0, ["Procfile"]);

    let wrong =
        serde_json::json!({"source_blob": {"url": url("get_url"), "checksum": format!("SHA256:{}", "0".repeat(64))}});
    let (_, build) = server.api("POST", "/apps/shop/builds", &wrong).await;
    let (_, output) =
        server.http("GET", &path(build["output_stream_url"].as_str().expect("an address")), "", b"").await;
    assert!(output.contains("does not have the checksum"), "{output}");
    let other = serde_json::json!({"source_blob": {"url": url("get_url")}});
    let (status, _) = server.http("POST", "/apps/shop/builds", "", other.to_string().as_bytes()).await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_builds_wait() {
    let server = Server::with(|limits| (limits.builds_queued_per_app, limits.builds_queued) = (2, 3)).await;
    for name in ["shop", "blog"] {
        server.app(name).await;
    }
    let (_, source) = server.api("POST", "/sources", &serde_json::json!({})).await;
    let url = |name: &str| source["source_blob"][name].as_str().expect("an address").to_owned();
    let put = url("put_url").split_once(&server.api.to_string()).expect("our address").1.to_owned();
    assert_eq!(server.http("PUT", &put, "", &tarball()).await.0, 200);
    let asked = serde_json::json!({"source_blob": {"url": url("get_url")}});
    let build = async |app: &str| server.api("POST", &format!("/apps/{app}/builds"), &asked).await;
    server.builds.hold.send_replace(true);
    assert_eq!(build("shop").await.0, 201);
    server.builds.running.subscribe().wait_for(|running| *running == 1).await.expect("a build that runs");
    assert_eq!((build("shop").await.0, build("shop").await.0), (201, 201));
    let (status, refused) = build("shop").await;
    assert_eq!((status, refused["id"].as_str()), (409, Some("conflict")));
    assert_eq!(refused["message"], "2 builds of shop wait already. Try again when one has ended.");
    // That of the other app has its turn at once, and waits no more, when it runs.
    assert_eq!(build("blog").await.0, 201);
    server.builds.running.subscribe().wait_for(|running| *running == 2).await.expect("both run");
    assert_eq!(build("blog").await.0, 201);
    let (status, refused) = build("blog").await;
    assert_eq!((status, refused["id"].as_str()), (409, Some("conflict")));
    assert_eq!(refused["message"], "3 builds wait on this platform already. Try again when some have ended.");
    server.builds.hold.send_replace(false);
    until("all built", || async { (server.builds.seen.lock().expect("not poisoned").len() == 5).then_some(()) }).await;
    until("a place", || async { (build("shop").await.0 == 201).then_some(()) }).await;
}

fn tarball() -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(13);
    header.set_mode(0o644);
    archive.append_data(&mut header, "Procfile", &b"web: ./serve\n"[..]).expect("an entry");
    archive.into_inner().expect("a tar").finish().expect("gzip")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detected_buildpack_stays_until_it_is_cleared() {
    let server = Server::start().await;
    server.app("shop").await;
    let repository = server.repository("shop").await;
    let detect = |name: &str| *server.builds.detected.lock().expect("not poisoned") = Some(name.to_owned());
    let listed = || async {
        let (_, list) = server.api("GET", "/apps/shop/buildpack-installations", &serde_json::Value::Null).await;
        list[0]["buildpack"]["name"].as_str().map(str::to_owned)
    };
    let changed = |text: &'static str| async {
        repository.commit("change", text, text).await;
        let (succeeded, said) = repository.push().await;
        assert!(succeeded, "{said}");
    };
    detect("go");
    changed("one").await;
    assert_eq!(listed().await.as_deref(), Some("heroku/go"));
    detect("nodejs");
    changed("two").await;
    assert_eq!(listed().await.as_deref(), Some("heroku/go"));
    let cleared = serde_json::json!({"updates": []});
    assert_eq!(server.api("PUT", "/apps/shop/buildpack-installations", &cleared).await.0, 200);
    changed("three").await;
    assert_eq!(listed().await.as_deref(), Some("heroku/nodejs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_stops_only_once_the_router_has_taken_up_the_table() {
    let server = Server::start().await;
    let app = deployed(&server, &[("web", "./serve")]).await;
    let dyno = until("a dyno", || async { server.engine.dynos(app.id).pop() }).await;
    let feed = dozen_control::routes_feed::Feed::new(server.context.clone());
    let path = server.data("run/second.sock");
    let serving = tokio::spawn({
        let (feed, path) = (feed.clone(), path.clone());
        async move { feed.run(&path).await }
    });
    let stream = until("a socket", || async { socket::connect(&path).await.ok() }).await;
    let mut router = Router { stream };
    let Message::Snapshot { generation, .. } = router.next().await else { panic!("the first message is the table") };

    let mut stop = std::pin::pin!(feed.before_stop(&dyno));
    assert!(futures_util::poll!(stop.as_mut()).is_pending(), "the router has not answered yet");
    let generation = feed.generation().max(generation);
    let busy = Ack { generation, busy: vec![dyno.id] };
    frame::write(&mut router.stream, &busy).await.expect("an answer");
    feed.published(generation).await;
    assert!(futures_util::poll!(stop.as_mut()).is_pending(), "the dyno has a request from before");
    router.acknowledge(generation).await;
    tokio::time::timeout(std::time::Duration::from_secs(1), stop).await.expect("no wait once it has answered");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Server::start().await;
    // Once it answers, what a former role left has been swept: from here on every part is this test's.
    let (status, _) = server.api("GET", "/account", &serde_json::Value::Null).await;
    assert_eq!(status, 200);
    let addresses = ops::sources::create(&server.context, &server.admin().await).await.expect("a source");
    let (_, ticket) = addresses.put_url.split_once("?ticket=").expect("a ticket");
    let directory = server.data("sources");
    let parts = || std::fs::read_dir(&directory).into_iter().flatten().count();
    let body = axum::body::Body::from_stream(futures_util::stream::pending::<std::io::Result<axum::body::Bytes>>());
    tokio::select! {
        put = ops::sources::put(&server.context, ticket, body.into_data_stream()) => panic!("{put:?}"),
        () = until("a part", || async { (parts() == 1).then_some(()) }) => {}
    }
    assert_eq!(parts(), 0);
    // Of a role that was killed.
    std::fs::write(directory.join("a.00000000.part"), "").expect("a file");
    ops::builds::recover(&server.context).await.expect("recovered");
    assert_eq!(parts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_changes_of_an_app_at_once_are_both_kept() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let admin = server.admin().await;
    let mut db = server.context.store.write().await.expect("a database");
    let change = ops::apps::Change { maintenance: Some(true), ..Default::default() };
    let mut changing = std::pin::pin!(ops::apps::update(&server.context, &admin, "shop", change));
    // It waits for the transaction that is open here.
    let waits = tokio::time::timeout(std::time::Duration::from_millis(300), &mut changing).await;
    assert!(waits.is_err());
    store::apps::update(&mut db, &store::apps::App { name: "store".parse().expect("a name"), ..app })
        .await
        .expect("a change");
    db.commit().await.expect("a commit");
    let changed = changing.await.expect("a change");
    assert_eq!((changed.name.as_str(), changed.maintenance), ("store", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_does_not_wait_for_the_release_of_a_destroyed_app() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    server.engine.hold_one_offs(true);
    *server.builds.types.lock().expect("not poisoned") = vec![("web", "./serve"), ("release", "./migrate")];
    let repository = server.repository("shop").await;
    let pushing = tokio::spawn(repository.command().args(["push", "dozen", "main"]).output());
    until("a release command", || async { (!server.engine.one_offs().is_empty()).then_some(()) }).await;
    ops::apps::destroy(&server.context, &server.admin().await, "shop").await.expect("a destruction");
    let dyno = server.engine.one_offs()[0].dyno;
    server.engine.finish(dyno, Exit::Signal(15));
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), pushing).await;
    ended.expect("the push ends").expect("a push").expect("git");
    assert!(server.releases(&app).await.is_empty());
}
