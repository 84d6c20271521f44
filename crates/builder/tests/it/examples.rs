//! The examples of this repository build as they are.

use crate::workbench::Workbench;

#[test]
fn the_python_example_has_web_and_worker() {
    let mut bench = Workbench::example("python");
    let built = bench.build();
    let types: Vec<_> = built.types().into_iter().map(|(name, _)| name).collect();
    assert_eq!(types, ["web", "worker"]);
    assert!(bench.app().join(".heroku/python/bin/gunicorn").exists());
    assert_eq!(bench.build().foreign_ms, 0);
}

#[test]
fn the_node_example_starts_with_npm() {
    let mut bench = Workbench::example("node-websocket");
    assert_eq!(bench.build().types(), [("web", "npm start")]);
    assert!(bench.app().join("node_modules/ws").is_dir());
}

#[test]
fn the_static_example_is_served() {
    let built = Workbench::example("static").build();
    assert_eq!(built.types(), [("web", "/opt/dozen/bin/dozen static-server --root public")]);
}

#[test]
fn the_release_phase_example_declares_its_command() {
    let built = Workbench::example("release-phase").build();
    assert_eq!(built.types(), [("release", "./release.sh"), ("web", "python3 web.py")]);
}

#[test]
fn the_classic_buildpack_example_builds_its_app() {
    let mut bench = Workbench::example("classic-buildpack/app");
    let buildpack = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/classic-buildpack/buildpack");
    bench.buildpacks(&[buildpack]);
    bench.config.insert("GREETED".to_owned(), "you".to_owned());
    let built = bench.build();
    assert!(built.output.contains("-----> Greetings app detected\n-----> Writing greetings\n"), "{}", built.output);
    let page = std::fs::read_to_string(bench.app().join("public/index.html")).expect("made");
    assert!(page.contains("<p>Hello, you</p>"), "{page}");
    assert_eq!(built.types().len(), 1);
    assert!(bench.build().output.contains("Build number 2"));
}
