//! The example apps deploy without a change.

use std::io::{Read, Write};

use dozen_testkit::App;

use crate::platform;

#[test]
fn the_python_example_answers_and_an_unchanged_dependency_set_is_reused() {
    let platform = platform().start();
    let app = App::of_example(&platform, "python", "python");
    let pushed = app.push();
    drop(pushed.says("Python app detected").says("Released v"));
    drop(app.heroku(&["buildpacks"]).says("heroku/python"));
    drop(app.heroku(&["ps:scale", "worker=1"]));
    app.write("note.txt", "a change that no dependency sees");
    app.commit("a note");
    drop(app.push().says("Released v").says_not("Collecting "));
}

#[test]
fn the_node_example_answers_and_speaks_websocket_through_the_router() {
    let platform = platform().start();
    let app = App::of_example(&platform, "node", "node-websocket");
    drop(app.push().says("Node.js app detected"));
    let headers = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (head, mut stream) = platform.upgrade("node.localhost", "/echo", headers);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // One masked text frame "hi", the mask being zero; the echo, or a second's "alive", is unmasked.
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).expect("sent");
    let mut echoed = Vec::new();
    while !echoed.ends_with(&[0x81, 2, b'h', b'i']) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an echo");
        echoed.push(byte[0]);
    }
}

#[test]
fn the_static_example_answers() {
    let platform = platform().start();
    let app = App::of_example(&platform, "static", "static");
    let _pushed = app.push();
    assert!(app.get("/").body.contains("<html"));
}

#[test]
fn the_rust_example_answers() {
    let platform = platform().start();
    let app = App::of_example(&platform, "rust", "rust");
    drop(app.push().says("Rust app detected"));
}

#[test]
fn the_go_example_answers_and_is_asked_to_stop() {
    let platform = platform().start();
    let app = App::of_example(&platform, "golang", "go");
    drop(app.push().says("Go app detected").says("       bin/hello").says("Default types for buildpack -> web"));
    assert!(app.get("/").body.starts_with("Hello from Go on web.1"));
    drop(app.heroku(&["ps:restart"]));
    app.wait_for_log("Process exited with status 0");
    // A version that this machine cannot have is refused, and what runs goes on.
    app.write("go.mod", "module example.com/hello\n\ngo 1.999\n");
    app.commit("from the future");
    drop(app.try_push().failure().says("asks for Go 1.999, but this machine has Go 1.").says("DOZEN_GO_ROOT"));
    let _answer = app.wait_for_answer();
}

#[test]
fn the_release_phase_example_runs_its_release_command_first() {
    let platform = platform().start();
    let app = App::of_example(&platform, "phases", "release-phase");
    let _pushed = app.push();
    drop(app.heroku(&["releases:output"]));
}

#[test]
fn the_classic_buildpack_example_is_built_by_its_own_buildpack() {
    let buildpack = dozen_testkit::example("classic-buildpack/buildpack");
    let buildpack = buildpack.canonicalize().expect("a folder");
    let listed = buildpack.parent().expect("a folder").display().to_string();
    let platform = platform().variable("DOZEN_BUILDPACK_DIRS", &listed).start();
    let app = App::of_example(&platform, "classic", "classic-buildpack/app");
    drop(app.try_heroku(&["buildpacks:set", "file:///etc"]).failure().says("DOZEN_BUILDPACK_DIRS"));
    drop(app.heroku(&["buildpacks:set", &format!("file://{}", buildpack.display())]));
    let _pushed = app.push();
}
