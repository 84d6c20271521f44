//! Node.js apps, installed from the npm registry.

use crate::workbench::{Workbench, assert_equal_trees};

const LOCK: &str = r#"{
  "name": "app", "lockfileVersion": 3, "requires": true,
  "packages": {
    "": {"name": "app", "dependencies": {"ms": "2.1.3"}, "devDependencies": {"isarray": "2.0.5"}},
    "node_modules/ms": {"version": "2.1.3", "license": "MIT"},
    "node_modules/isarray": {"version": "2.0.5", "dev": true, "license": "MIT"}
  }
}"#;

fn app(more: &str) -> Workbench {
    let manifest = format!(
        r#"{{"name": "app", "dependencies": {{"ms": "2.1.3"}}, "devDependencies": {{"isarray": "2.0.5"}}, {more}}}"#
    );
    Workbench::new(&[("package.json", &manifest), ("package-lock.json", LOCK), ("index.js", "require('ms')")])
}

#[test]
fn modules_are_a_layer_of_their_own_without_development_dependencies() {
    let mut bench = app(r#""scripts": {"start": "node index.js"}"#);
    let first = bench.build();
    assert_eq!(first.types(), [("web", "npm start")]);
    assert_eq!(first.result().layers.len(), 1);
    assert!(bench.app().join("node_modules/ms/index.js").exists());
    assert!(!bench.app().join("node_modules/isarray").exists());
    let tree = bench.tree();
    bench.purge();
    assert_eq!(bench.build().status, 0);
    assert_equal_trees(&tree, &bench.tree());
    bench.write("index.js", "require('ms')('1d')");
    let again = bench.build();
    assert_eq!(
        (again.restored.as_slice(), again.foreign_ms),
        (&["node_modules".to_owned()][..], 0),
        "{}",
        again.output
    );
}

#[test]
fn a_build_script_sees_development_dependencies_which_are_then_pruned() {
    let script = "node -e \\\"require('isarray'); require('fs').mkdirSync('dist'); require('fs').writeFileSync('dist/index.html', process.env.GREETING)\\\"";
    let mut bench = app(&format!(r#""scripts": {{"build": "{script}"}}"#));
    bench.config.insert("GREETING".to_owned(), "hello".to_owned());
    let built = bench.build();
    assert!(built.result().layers.is_empty());
    assert_eq!(built.types(), [("web", "/opt/dozen/bin/dozen static-server --root dist")]);
    assert_eq!(std::fs::read_to_string(bench.app().join("dist/index.html")).expect("built"), "hello");
    assert!(bench.app().join("node_modules/ms").exists() && !bench.app().join("node_modules/isarray").exists());
}

#[test]
fn another_version_of_node_is_fetched_when_the_machines_does_not_fit() {
    let mut bench = app(r#""engines": {"node": "18.20.4"}, "scripts": {"start": "node index.js"}"#);
    let built = bench.build();
    let node = bench.app().join(".heroku/node/bin/node");
    assert_eq!(built.status, 0, "{}", built.output);
    let version = std::process::Command::new(node).arg("--version").output().expect("node runs");
    assert_eq!(version.stdout, b"v18.20.4\n");
    assert!(built.result().launch_env["PATH"].starts_with("/app/.heroku/node/bin:"));
    let names: Vec<_> = built.result().layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["node", "node_modules"]);
    assert_eq!(bench.build().restored, ["node", "node_modules"]);
}

#[test]
fn a_manifest_that_is_no_json_fails_in_the_first_phase() {
    let built = Workbench::new(&[("package.json", "{,}")]).build();
    assert_eq!((built.status, built.analysis.is_none()), (1, true));
    assert!(built.output.contains(" !     Unable to parse package.json: "), "{}", built.output);
}

#[test]
fn a_lock_file_that_does_not_match_is_explained() {
    let mut bench = app(r#""scripts": {}"#);
    bench.write("package.json", r#"{"name": "app", "dependencies": {"ms": "1.0.0"}}"#);
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains(" !     Unable to install dependencies using npm"), "{}", built.output);
}
