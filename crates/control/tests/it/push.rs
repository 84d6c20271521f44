//! Pushes by a real git: taken, refused, cut off.

use dozen_control::{ops, store};
use dozen_domain::{dyno::Exit, release::Status};

use crate::server::{Repository, Server, TOKEN, until};

fn leftovers(server: &Server, app: &str) -> Vec<String> {
    let names = |path: std::path::PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let mut left = names(server.data("tmp"));
    let objects = names(server.data(&format!("apps/{app}/repo.git/objects")));
    left.extend(objects.into_iter().filter(|name| name.contains("incoming")));
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_built_and_released_with_its_output_shown() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    let (succeeded, said) = repository.push().await;
    assert!(succeeded, "{said}");
    for line in [
        "remote: Building source:",
        "remote: -----> Scripted app detected",
        "remote: -----> Compressing...",
        "remote:        Done: 10.4M",
        "remote: -----> Launching...",
        "remote:        Released v3",
        "remote:        http://shop.localhost:8080/ deployed to Dozen",
        "remote: Verifying deploy... done.",
        "main -> main",
    ] {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
    let head = repository.head().await;
    let releases = server.releases(&app).await;
    let last = releases.last().expect("a release");
    assert!(last.current && last.description == format!("Deploy {}", &head[..8]), "{last:?}");
    let builds = server.builds_of(&app).await;
    assert_eq!(builds.len(), 1);
    assert_eq!(builds[0].status, store::builds::Status::Succeeded);
    assert_eq!((builds[0].release, builds[0].source_version.as_deref()), (Some(last.id), Some(head.as_str())));
    assert_eq!(server.builds.seen.lock().expect("not poisoned")[0].0, ["Procfile"]);
    let wanted = until("wanted state", || async { server.engine.wanted(app.id) }).await;
    assert_eq!(wanted.version, last.version);
    assert_eq!(wanted.env.get("FROM_IMAGE").map(|value| value.expose()), Some("1"));
    assert_eq!(wanted.env.get("HEROKU_SLUG_COMMIT").map(|value| value.expose()), Some(head.as_str()));
    assert!(leftovers(&server, &app.id.to_string()).is_empty());

    let (succeeded, said) = repository.push().await;
    assert!(succeeded && said.contains("Everything up-to-date"), "{said}");
    repository.git(&["commit", "--quiet", "--amend", "-m", "Other"]).await;
    let (succeeded, said) = repository.push().await;
    assert!(!succeeded && said.contains("[rejected]"), "{said}");
    let said = repository.git(&["push", "--force", "dozen", "main"]).await;
    assert!(said.contains("Released v4") && said.contains("forced update"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_runs_is_not_built_again_under_another_name() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    assert!(repository.push().await.0);
    let first = repository.head().await;
    let said = repository.git(&["push", "dozen", "main:master"]).await;
    assert!(said.contains(&format!("Commit {} is built already and what v3 runs", &first[..8])), "{said}");
    assert!(said.contains("main -> master"), "{said}");
    assert_eq!((server.builds_of(&app).await.len(), server.releases(&app).await.len()), (1, 3));
    // After another commit the first one is something to build, under any name.
    repository.commit("Procfile", "web: ./serve --new\n", "Second").await;
    assert!(repository.push().await.0);
    let said = repository.git(&["push", "--force", "dozen", &format!("{first}:main")]).await;
    assert!(said.contains("Released v5"), "{said}");
    // What was rolled away from is as well.
    ops::releases::create(&server.context, app.id, &server.admin().await, {
        let four = ops::releases::find(&server.context, app.id, "v4").await.expect("a release");
        ops::releases::Change::Rollback(four.id)
    })
    .await
    .expect("a rollback");
    let said = repository.git(&["push", "--force", "dozen", &format!("{first}:master")]).await;
    assert!(said.contains("Everything up-to-date"), "{said}");
    repository.git(&["push", "--force", "dozen", "main:master"]).await;
    let said = repository.git(&["push", "--force", "dozen", &format!("{first}:master")]).await;
    assert!(said.contains("Released v8"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_broke_off_in_its_release_phase_is_not_released_twice() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    *server.builds.types.lock().expect("not poisoned") = vec![("web", "./serve"), ("release", "./migrate")];
    server.engine.hold_one_offs(true);
    let repository = server.repository("shop").await;
    let mut pushing = repository.command().args(["push", "dozen", "main"]).spawn().expect("git");
    let one_off = until("a one-off", || async { server.engine.one_offs().first().cloned() }).await;
    kill(&mut pushing).await;
    until("nothing left of the push", || async { leftovers(&server, &app.id.to_string()).is_empty().then_some(()) })
        .await;
    // While the command still runs the second push waits for its end.
    let second = tokio::spawn(repository.command().args(["push", "dozen", "main"]).output());
    server.engine.finish(one_off.dyno, Exit::Code(0));
    let second = second.await.expect("a push").expect("git");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.success() && said.contains("is built already and what v3 runs"), "{said}");
    let releases = server.releases(&app).await;
    assert_eq!((releases.len(), releases[2].status, releases[2].current), (3, Status::Succeeded, true));
    assert_eq!((server.engine.one_offs().len(), server.builds_of(&app).await.len()), (1, 1));
    assert!(repository.git(&["push", "dozen", "main"]).await.contains("Everything up-to-date"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_main_and_master_are_built() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    let said = repository.git(&["push", "dozen", "main:topic"]).await;
    assert!(said.contains("remote: Pushed to non-main branch, skipping build."), "{said}");
    repository.git(&["tag", "-a", "v1", "-m", "One"]).await;
    repository.git(&["push", "dozen", "v1"]).await;
    assert!(server.builds_of(&app).await.is_empty());
    let said = repository.git(&["push", "dozen", "main:master"]).await;
    assert!(said.contains("Released v3"), "{said}");
    let (succeeded, said) = repository.try_git(&["push", "dozen", ":master"]).await;
    assert!(!succeeded && said.contains("cannot be deleted"), "{said}");
    repository.git(&["push", "dozen", ":topic"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_is_rejected_and_the_former_release_stays() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    assert!(repository.push().await.0);
    server.builds.fail.send_replace(true);
    repository.commit("broken", "x", "Second").await;
    let (succeeded, said) = repository.push().await;
    assert!(!succeeded, "{said}");
    assert!(said.contains("remote:  !     Push rejected, failed to compile Scripted app."), "{said}");
    assert!(said.contains("pre-receive hook declined"), "{said}");
    let releases = server.releases(&app).await;
    assert!(releases.len() == 3 && releases[2].current);
    let builds = server.builds_of(&app).await;
    assert_eq!(builds[1].status, store::builds::Status::Failed);
    let output = std::fs::read_to_string(ops::builds::output_path(&server.context, app.id, builds[1].id));
    assert!(output.expect("an output").contains("failed to compile"));
    server.builds.fail.send_replace(false);
    let (succeeded, said) = repository.push().await;
    assert!(succeeded && said.contains("Released v4"), "{said}");
    assert!(leftovers(&server, &app.id.to_string()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_push_at_once_is_refused() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let first = server.repository("shop").await;
    server.builds.hold.send_replace(true);
    let pushing = first.command().args(["push", "dozen", "main"]).output();
    let pushing = tokio::spawn(pushing);
    server.builds.running.subscribe().wait_for(|running| *running == 1).await.expect("a build");
    let second = server.repository("shop").await;
    second.commit("other", "x", "Second").await;
    let (succeeded, said) = second.try_git(&["push", "--force", "dozen", "main"]).await;
    assert!(!succeeded && said.contains("Another build is in progress"), "{said}");
    server.builds.hold.send_replace(false);
    let output = pushing.await.expect("a task").expect("git");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(server.builds_of(&app).await.len(), 1);
}

/// Ends a push as the end of the client's machine does: its transport is a process of its own.
async fn kill(pushing: &mut tokio::process::Child) {
    let transports = children(pushing.id().expect("a process"));
    pushing.kill().await.expect("a kill");
    for transport in transports {
        let pid = rustix::process::Pid::from_raw(transport).expect("a process id");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_killed_during_its_build_ends_the_build_and_leaves_nothing() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    server.builds.hold.send_replace(true);
    let mut pushing = repository.command().args(["push", "dozen", "main"]).spawn().expect("git");
    let mut running = server.builds.running.subscribe();
    running.wait_for(|running| *running == 1).await.expect("a build");
    kill(&mut pushing).await;
    running.wait_for(|running| *running == 0).await.expect("no build");
    until("failed build", || async {
        let builds = server.builds_of(&app).await;
        (builds[0].status == store::builds::Status::Failed).then_some(())
    })
    .await;
    let id = app.id.to_string();
    until("clean directories", || async { leftovers(&server, &id).is_empty().then_some(()) }).await;
    assert!(!server.data(&format!("apps/{id}/repo.git/refs/heads/main")).exists());
    assert_eq!(server.releases(&app).await.len(), 2);
    server.builds.hold.send_replace(false);
    let (succeeded, said) = repository.push().await;
    assert!(succeeded, "{said}");
}

fn children(of: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut parents = vec![of.to_string()];
    while let Some(parent) = parents.pop() {
        let listed = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        for child in listed.split_whitespace() {
            parents.push(child.to_owned());
            found.extend(child.parse::<i32>());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_named_to_the_build() {
    let server = Server::start().await;
    server.app("shop").await;
    let library = server.repository("shop").await;
    let commit = library.head().await;
    let repository = server.repository("shop").await;
    let path = library.directory.path().display().to_string();
    repository.git(&["submodule", "--quiet", "add", &path, "vendor/library"]).await;
    repository.git(&["commit", "--quiet", "-m", "Add the library"]).await;
    let (succeeded, said) = repository.push().await;
    assert!(succeeded, "{said}");
    let seen = server.builds.seen.lock().expect("not poisoned");
    let [submodule] = seen[0].1.as_slice() else { panic!("one submodule: {:?}", seen[0].1) };
    assert_eq!((submodule.path.as_str(), submodule.commit.as_str()), ("vendor/library", commit.as_str()));
    assert_eq!(submodule.url, path);
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_git_cannot_parse_are_told_and_refused() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    repository.commit(".gitmodules", "[submodule \"x\"\n\tpath = x\n", "Broken").await;
    let (succeeded, said) = repository.push().await;
    assert!(!succeeded && said.contains("git cannot parse .gitmodules: bad config line"), "{said}");
    assert!(server.builds_of(&app).await.is_empty());
    assert!(leftovers(&server, &app.id.to_string()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_that_is_listed_nowhere_reaches_the_build_without_an_address() {
    let server = Server::start().await;
    server.app("shop").await;
    let library = server.repository("library").await;
    let repository = server.repository("shop").await;
    let (commit, path) = (library.head().await, library.directory.path().display().to_string());
    repository.git(&["clone", "--quiet", &path, "vendor"]).await;
    // Without any `.gitmodules` a clone within a repository is what people commit by mistake: left out, as on Heroku.
    repository.git(&["-c", "advice.addEmbeddedRepo=false", "add", "vendor"]).await;
    repository.git(&["commit", "--quiet", "-m", "By mistake"]).await;
    assert!(repository.push().await.0);
    repository.commit(".gitmodules", "[submodule \"other\"]\n\tpath = other\n\turl = x\n", "Another").await;
    assert!(repository.push().await.0);
    let seen = server.builds.seen.lock().expect("not poisoned");
    assert!(seen[0].1.is_empty(), "{:?}", seen[0].1);
    let [submodule] = seen[1].1.as_slice() else { panic!("one submodule: {:?}", seen[1].1) };
    assert_eq!((submodule.path.as_str(), submodule.commit.as_str()), ("vendor", commit.as_str()));
    assert_eq!(submodule.url, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_loses_a_process_type_with_dynos_says_so_and_scales_it_down() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    let types = |types: &[(&'static str, &'static str)]| {
        *server.builds.types.lock().expect("not poisoned") = types.to_vec();
    };
    let repository = server.repository("shop").await;
    types(&[("web", "./serve"), ("worker", "./work"), ("clock", "./tick")]);
    let (succeeded, said) = repository.push().await;
    assert!(succeeded && !said.contains("Warning"), "{said}");
    let two = serde_json::json!({"updates": [{"type": "web", "quantity": 2}]});
    assert_eq!(server.api("PATCH", "/apps/shop/formation", &two).await.0, 200);
    types(&[("worker", "./work")]);
    repository.commit("more", "x", "Without web").await;
    let (succeeded, said) = repository.push().await;
    assert!(succeeded, "{said}");
    let warning = "Warning: the Procfile has no web any more, so this release ends its 2 running dynos.";
    assert!(said.contains(warning) && said.contains("heroku ps:scale web=2"), "{said}");
    // Nothing ran of this one.
    assert!(!said.contains("clock"), "{said}");
    let wanted = until("a wanted state without web", || async {
        server.engine.wanted(app.id).filter(|wanted| wanted.version.0 == 4)
    })
    .await;
    assert!(wanted.processes.iter().all(|process| !process.process_type.is_web()), "{wanted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_would_leave_out_of_an_archive_is_built_all_the_same() {
    let server = Server::start().await;
    server.app("shop").await;
    let repository = server.repository("shop").await;
    repository.commit(".gitattributes", "tests export-ignore\n", "Attributes").await;
    repository.commit("tests", "x", "Tests").await;
    assert!(repository.push().await.0);
    let seen = server.builds.seen.lock().expect("not poisoned");
    assert!(seen[0].0.contains(&"tests".to_owned()), "{:?}", seen[0].0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_a_hundred_megabytes_is_taken() {
    let server = Server::start().await;
    server.app("shop").await;
    let repository = server.repository("shop").await;
    let mut noise = vec![0_u8; 100 << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in noise.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    std::fs::write(repository.directory.path().join("noise"), noise).expect("a file");
    repository.git(&["add", "noise"]).await;
    repository.git(&["commit", "--quiet", "-m", "Noise"]).await;
    let (succeeded, said) = repository.push().await;
    assert!(succeeded && said.contains("Released v3"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_over_the_limit_is_refused() {
    let server = Server::with(|limits| limits.push_bytes = 100).await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    let (succeeded, said) = repository.push().await;
    assert!(!succeeded, "{said}");
    assert!(server.builds_of(&app).await.is_empty());
    assert!(leftovers(&server, &app.id.to_string()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_reaches_a_repository() {
    let server = Server::start().await;
    server.app("shop").await;
    let repository = server.repository("shop").await;
    let (_, token) = ops::accounts::create(&server.context, "other@example.com", None).await.expect("an account");
    let (succeeded, said) = repository.try_git(&["push", &server.url("shop", token.expose()), "main"]).await;
    assert!(!succeeded && said.contains("You do not have access to the app shop"), "{said}");
    let (succeeded, said) = repository.try_git(&["push", &server.url("nothing", TOKEN), "main"]).await;
    assert!(!succeeded && said.contains("No such app as nothing"), "{said}");
    let (succeeded, _) = repository.try_git(&["push", &server.url("shop", "wrong"), "main"]).await;
    assert!(!succeeded);
    let (status, _) = server.http("GET", "/shop.git/info/refs?service=git-receive-pack", "", b"").await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_cloned_over_tls_under_our_own_authority() {
    let server = Server::start().await;
    server.app("shop").await;
    let repository = server.repository("shop").await;
    assert!(repository.push().await.0);
    let url = format!("https://x:{TOKEN}@localhost:{}/shop.git", server.tls.port());
    let clone = |into: &'static str, ca: std::path::PathBuf| {
        let mut command = repository.command();
        command.env("GIT_SSL_CAINFO", ca).args(["clone", "--quiet", &url, into]);
        async move { command.output().await.expect("git").status.success() }
    };
    assert!(clone("copy", server.data("tls/ca.pem")).await);
    assert!(repository.directory.path().join("copy/Procfile").exists());
    assert!(!clone("other", server.data("tls/api.key")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_command_is_shown_and_its_failure_keeps_the_former_release() {
    let server = Server::start().await;
    let app = server.app("shop").await;
    *server.builds.types.lock().expect("not poisoned") = vec![("web", "./serve"), ("release", "./migrate")];
    let repository: Repository = server.repository("shop").await;
    server.engine.answer("./migrate", dozen_domain::dyno::Exit::Code(0), "migrated\n");
    let (succeeded, said) = repository.push().await;
    assert!(succeeded, "{said}");
    for line in ["Release command declared", "remote: Running release command...", "remote: migrated", "failed"] {
        assert_eq!(said.contains(line), line != "failed", "{line}: {said}");
    }
    server.engine.answer("./migrate", dozen_domain::dyno::Exit::Code(7), "no such table\n");
    repository.commit("more", "x", "Second").await;
    let (succeeded, said) = repository.push().await;
    assert!(succeeded && said.contains("no such table") && said.contains("release.... failed"), "{said}");
    let releases = server.releases(&app).await;
    assert_eq!(releases[3].status, Status::Failed);
    assert!(releases[2].current);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_far_larger_than_what_was_pushed_is_refused_before_it_fills_the_disk() {
    let server = Server::with(|limits| limits.source_bytes = 1_000_000).await;
    let app = server.app("shop").await;
    let repository = server.repository("shop").await;
    // One blob, then each folder twice the one before: 1 KB pushed, 4 GB unpacked.
    let script = r#"alias.bomb=!f() {
        tree="100644 blob $(head -c 1000000 /dev/zero | git hash-object -w --stdin)\tx"
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
            id=$(printf "$tree\n" | git mktree)
            tree="040000 tree $id\ta\n040000 tree $id\tb"
        done
        git update-ref HEAD $(git commit-tree -m Bomb -p HEAD $id)
    }; f"#;
    repository.git(&["-c", script, "bomb"]).await;
    let (succeeded, said) = repository.push().await;
    assert!(!succeeded && said.contains("larger than 2 MB"), "{said}");
    until("nothing left", || async { leftovers(&server, &app.id.to_string()).is_empty().then_some(()) }).await;
    assert!(server.builds_of(&app).await.is_empty());
}
