//! Python apps, installed from the package index.

use std::fs;

use crate::workbench::{Workbench, assert_equal_trees};

const APP: &[(&str, &str)] = &[
    ("requirements.txt", "itsdangerous==2.2.0\n"),
    ("Procfile", "web: python app.py\n"),
    ("app.py", "import itsdangerous\n"),
];

#[test]
fn requirements_are_installed_and_reused_until_they_change() {
    let mut bench = Workbench::new(APP);
    let first = bench.build();
    assert_eq!(first.types(), [("web", "python app.py")]);
    assert!(
        first.output.contains("-----> Installing dependencies using 'pip install -r requirements.txt'\n"),
        "{}",
        first.output
    );
    let [layer] = first.result().layers.as_slice() else { panic!("one layer") };
    assert_eq!((layer.name.as_str(), layer.path.as_str()), ("python", ".heroku/python"));
    assert_eq!(first.result().detected.as_deref(), Some("python"));
    // Two processors and 512 MB at least: as many workers as fit, and what is set stays.
    let workers = |memory: &str, set: &str| {
        let script = bench.app().join(".profile.d/WEB_CONCURRENCY.sh");
        let shell = std::process::Command::new("bash")
            .args(["-c", ". \"$1\"; echo $WEB_CONCURRENCY", "bash"])
            .arg(script)
            .envs([("MEMORY_AVAILABLE", memory), ("WEB_CONCURRENCY", set)])
            .output();
        String::from_utf8(shell.expect("bash").stdout).expect("text").trim().to_owned()
    };
    assert_eq!((workers("512", ""), workers("128", ""), workers("512", "7")), ("2".into(), "1".into(), "7".into()));
    let most: u32 = workers("1000000", "").parse().expect("a number");
    assert!(most % 2 == 1 && most >= 3, "twice the processors and one: {most}");
    let env = &first.result().launch_env;
    assert!(env["PATH"].starts_with("/app/.heroku/python/bin:"), "{env:?}");
    assert_eq!(env["PYTHONUNBUFFERED"], "1");
    let python = bench.app().join(".heroku/python/bin/python");
    let run = std::process::Command::new(&python)
        .args(["-c", "import itsdangerous, sys; print(sys.prefix != sys.base_prefix)"])
        .output();
    assert_eq!(run.expect("python runs").stdout, b"True\n");

    bench.write("app.py", "import itsdangerous as changed\n");
    let second = bench.build();
    assert_eq!(second.restored, ["python"]);
    assert_eq!((second.foreign_ms, second.status), (0, 0), "{}", second.output);
    assert_eq!(second.result().layers, first.result().layers);

    bench.write("requirements.txt", "itsdangerous==2.1.2\n");
    let third = bench.build();
    assert!(third.restored.is_empty() && third.status == 0, "{}", third.output);
    assert_ne!(third.result().layers, first.result().layers);
}

#[test]
fn equal_sources_make_equal_trees() {
    let mut bench = Workbench::new(APP);
    assert_eq!(bench.build().status, 0);
    let first = bench.tree();
    bench.purge();
    assert_eq!(bench.build().status, 0);
    assert_equal_trees(&first, &bench.tree());
}

#[test]
fn a_version_that_is_not_there_is_refused_with_those_that_are() {
    let mut bench = Workbench::new(APP);
    bench.write(".python-version", "3.1\n");
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(
        built.output.contains(" !     Python 3.1, which .python-version asks for, is not available.\n"),
        "{}",
        built.output
    );
    assert!(built.output.contains(" !     Available are: 3."), "{}", built.output);
    assert!(built.output.ends_with(" !     Push rejected, failed to compile Python app.\n"), "{}", built.output);
}

#[test]
fn a_project_without_a_lock_file_is_told_what_to_add() {
    let built = Workbench::new(&[("pyproject.toml", "[project]\nname = \"x\"\n")]).build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains("Couldn't find any supported Python package manager files."), "{}", built.output);
}

#[test]
fn a_package_that_does_not_exist_fails_with_the_installers_output() {
    let mut bench = Workbench::new(APP);
    bench.write("requirements.txt", "itsdangerous==0.0.0.404\n");
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(
        built.output.contains(" !     Unable to install dependencies using pip (exit status 1).\n"),
        "{}",
        built.output
    );
}

#[test]
fn hooks_see_config_vars_and_the_log_does_not() {
    let mut bench = Workbench::new(&[("requirements.txt", ""), ("Procfile", "web: x")]);
    bench.write(
        "bin/post_compile",
        "#!/bin/sh\nprintf %s \"$SECRET\" > seen\npython -c 'import sys; print(sys.prefix)'\n",
    );
    bench.config.insert("SECRET".to_owned(), "hunter2".to_owned());
    let built = bench.build();
    assert_eq!(built.status, 0, "{}", built.output);
    assert!(built.output.contains("-----> Running bin/post_compile hook\n"), "{}", built.output);
    assert!(!built.output.contains("hunter2"), "{}", built.output);
    assert_eq!(fs::read_to_string(bench.app().join("seen")).expect("written"), "hunter2");
    bench.write("bin/post_compile", "#!/bin/sh\nexit 4\n");
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains(" !     bin/post_compile failed with exit status 4.\n"), "{}", built.output);
}
