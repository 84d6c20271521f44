//! Apps with nothing to build, and what is the same for all.

use std::{fs, process::Command};

use crate::workbench::Workbench;

#[test]
fn a_procfile_alone_is_an_app() {
    let mut bench = Workbench::new(&[("Procfile", "web: ./serve\nworker: sleep 1\n"), ("serve", "#!/bin/sh\n")]);
    let built = bench.build();
    assert_eq!(
        built.output,
        "-----> Building on the heroku-24 stack\n\
         -----> Determining which buildpack to use for this app\n\
         -----> Procfile app detected\n       Nothing to build: processes run the source as it is.\n\
         -----> Discovering process types\n       Procfile declares types -> web, worker\n"
    );
    assert_eq!(built.types(), [("web", "./serve"), ("worker", "sleep 1")]);
    assert_eq!((built.result().language.as_str(), built.result().detected.as_ref()), ("Procfile", None));
    assert_eq!(built.foreign_ms, 0);
}

#[test]
fn a_wrong_procfile_fails_in_the_first_phase_with_its_lines() {
    let built = Workbench::new(&[("Procfile", "web\nworker:\n")]).build();
    assert_eq!(built.status, 1);
    assert!(built.analysis.is_none());
    assert!(built.output.contains(" !     The Procfile is not valid.\n !     Procfile, line 1: "), "{}", built.output);
    assert!(
        built.output.contains(" !     Procfile, line 2: process type \"worker\" has no command"),
        "{}",
        built.output
    );
}

#[test]
fn a_source_that_nobody_takes_is_explained() {
    let built = Workbench::new(&[("readme.md", "hello")]).build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains(" !     No default language could be detected for this app.\n"), "{}", built.output);
}

#[test]
fn a_buildpack_that_does_not_fit_is_refused_in_the_first_phase() {
    let mut bench = Workbench::new(&[("Procfile", "web: x")]);
    bench.buildpacks(&["heroku/python"]);
    let built = bench.build();
    assert_eq!((built.status, built.analysis.is_none()), (1, true));
    assert!(built.output.contains("-----> Using buildpack: heroku/python\n"), "{}", built.output);
    assert!(built.output.contains(" !     App not compatible with buildpack: Python\n"), "{}", built.output);
}

#[test]
fn a_missing_request_is_our_fault_and_says_so() {
    let bench = Workbench::new(&[]);
    let status = dozen_builder::phases::run(
        dozen_builder::phases::Phase::Analyze,
        &bench.roots,
        bench.environment.clone(),
        Box::new(std::io::sink()),
    );
    assert_eq!(status, 2);
}

#[test]
fn submodules_are_fetched_at_their_commit_and_lose_their_repository() {
    let mut bench = Workbench::new(&[("Procfile", "web: cat lib/hello")]);
    let upstream = bench.beside("upstream");
    fs::create_dir(&upstream).expect("created");
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(&upstream)
            .args(["-c", "user.name=A", "-c", "user.email=a@example.com"])
            .args(arguments)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    fs::write(upstream.join("hello"), "first").expect("written");
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "first"]);
    let commit = git(&["rev-parse", "HEAD"]);
    fs::write(upstream.join("hello"), "second").expect("written");
    git(&["commit", "--quiet", "--all", "--message", "second"]);
    let url = upstream.to_string_lossy().into_owned();
    bench.submodule("lib", &url, &commit);
    let built = bench.build();
    assert_eq!(built.status, 0, "{}", built.output);
    assert!(built.output.contains("-----> Fetching submodules\n       Submodule 'lib'"), "{}", built.output);
    assert_eq!(fs::read_to_string(bench.app().join("lib/hello")).expect("fetched"), "first");
    assert!(!bench.app().join("lib/.git").exists());

    bench.spec.submodules.clear();
    bench.submodule("lib", &url, &"0".repeat(40));
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains("push the submodule first"), "{}", built.output);
}

#[test]
fn the_health_check_of_app_json_is_a_part_of_the_result_and_what_is_not_used_is_told() {
    let checks =
        r#"{"healthchecks": {"web": [{"type": "startup", "path": "/up"}, {"type": "liveness", "path": "/alive"}]}}"#;
    let built = Workbench::new(&[("Procfile", "web: x"), ("app.json", checks)]).build();
    assert_eq!(built.result().health_check.as_deref(), Some("/up"));
    assert_eq!(built.output.matches("Warning: not used of app.json: the liveness check of web.").count(), 1);
    let wrong = r#"{"healthchecks": {"web": [{"type": "startup", "path": "up"}]}}"#;
    let built = Workbench::new(&[("Procfile", "web: x"), ("app.json", wrong)]).build();
    assert_eq!(built.status, 1);
    assert!(
        built.output.contains(" !     The health checks of app.json cannot be used: the path \"up\""),
        "{}",
        built.output
    );
}
