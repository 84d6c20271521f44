//! Parts of a build that come from elsewhere: a submodule and a buildpack's tarball, from a host of the test's own.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

/// An address for documentation (RFC 5737), so that it is nobody's.
const ADDRESS: &str = "203.0.113.82";
const GATEWAY: &str = "203.0.113.81";

/// A host in a network namespace, behind a cable to this machine. Builds reach it as they reach the internet.
struct Elsewhere {
    name: String,
    server: Option<Child>,
}

impl Elsewhere {
    fn new() -> Self {
        let name = format!("dozen-test-{}", std::process::id());
        let elsewhere = Self { name, server: None };
        let (name, cable) = (&elsewhere.name, format!("dt{}", std::process::id()));
        for line in [
            format!("netns add {name}"),
            format!("link add {cable} type veth peer name eth0 netns {name}"),
            format!("address add {GATEWAY}/30 dev {cable}"),
            format!("link set {cable} up"),
            format!("-n {name} address add {ADDRESS}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().expect("ip, which ./test installs");
            assert!(status.success(), "ip {line}");
        }
        elsewhere
    }

    /// Serves the files of a folder.
    fn serve(&mut self, folder: &Path) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "python3", "-m", "http.server", "8000"]).current_dir(folder);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.server = Some(child.expect("ip"));
        wait_until("the other host to answer", LONG, || TcpStream::connect((ADDRESS, 8000)).is_ok());
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        // The cable goes with its end in there.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn buildpack(folder: &Path) {
    for (name, script) in [
        ("detect", "echo Joined"),
        ("compile", "echo '-----> Joining'; cat \"$1/part/word\" > \"$1/joined\"; ls \"$1\" > \"$1/seen\""),
    ] {
        let path = folder.join("heroku-buildpack-joined/bin").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of our own");
    }
    let tar = Command::new("tar").args(["-czf", "joined.tgz", "heroku-buildpack-joined"]).current_dir(folder).status();
    assert!(tar.expect("tar").success());
}

#[test]
fn a_submodule_and_a_buildpacks_tarball_are_fetched_and_ignored_files_stay_out() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: no network of one's own can be made");
        return;
    }
    let platform = platform().variable("NO_PROXY", ADDRESS).start();
    let folder = platform.scratch("elsewhere");
    buildpack(&folder);
    let part = platform.scratch("elsewhere/part");
    fs::write(part.join("word"), "from a submodule").expect("a file");
    for words in
        [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "a part"], &["update-server-info"]]
    {
        drop(platform.git(&part, words).success());
    }
    let mut elsewhere = Elsewhere::new();
    elsewhere.serve(&folder);

    let app = App::plain(&platform, "joined");
    drop(app.heroku(&["buildpacks:set", &format!("http://{ADDRESS}:8000/joined.tgz")]));
    app.git(&["submodule", "add", "-q", &format!("http://{ADDRESS}:8000/part/.git"), "part"]);
    app.write(".slugignore", "*.psd\n/drafts\n");
    app.write("picture.psd", "large");
    app.write("drafts/one", "secret");
    app.commit("a part from elsewhere");
    drop(app.push().says("Fetching submodules").says("Joined app detected").says("Joining"));
    assert_eq!(app.get("/file/app/joined").body, "from a submodule");
    let seen = app.get("/file/app/seen").body;
    assert!(seen.contains("part") && seen.contains("server.py"), "{seen}");
    assert!(!seen.contains("picture.psd") && !seen.contains("drafts"), "{seen}");

    // What is not there any more is told, and the former release goes on.
    fs::remove_file(folder.join("joined.tgz")).expect("a file");
    app.write("note", "another");
    app.commit("again");
    drop(app.try_push().failure().says("its server answered 404.").says("pre-receive hook declined"));
    assert_eq!(app.get("/").status, 200);
}
