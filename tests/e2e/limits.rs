//! What a build may use, and a machine that has no room left: refused clearly, with what runs left alone.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use dozen_testkit::{App, LONG, TestPlatform, wait_until};

use crate::platform;

/// A buildpack that does what the app's file `mode` says.
fn moody(folder: &Path) -> String {
    fs::create_dir_all(folder.join("bin")).expect("a folder");
    for (name, script) in [
        ("detect", "echo Moody"),
        (
            "compile",
            "case $(cat \"$1/mode\") in\n\
             large) head -c 8000000 /dev/urandom > \"$1/large\" ;;\n\
             loud) yes 'a line of no use' ;;\n\
             slow) echo waiting; exec sleep 1000 ;;\n\
             greedy) while :; do head -c 20000000 /dev/zero >> \"$1/greedy\"; done ;;\n\
             esac",
        ),
    ] {
        let path = folder.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of our own");
    }
    format!("file://{}", folder.canonicalize().expect("a folder").display())
}

#[test]
fn a_build_that_uses_too_much_is_ended_and_says_which_limit_it_was() {
    let buildpacks = tempfile::tempdir().expect("a folder");
    let listed = buildpacks.path().canonicalize().expect("a folder").display().to_string();
    let platform = platform()
        .variable("DOZEN_BUILDPACK_DIRS", &listed)
        .limit("slug_bytes", 2_000_000)
        .limit("build_log_bytes", 50_000)
        .limit("build_seconds", 10)
        .limit("build_disk_bytes", 60_000_000)
        .start();
    let app = App::plain(&platform, "greedy");
    let buildpack = moody(&buildpacks.path().join("moody"));
    drop(app.heroku(&["buildpacks:set", &buildpack]));
    app.write("mode", "well");
    app.commit("small");
    let _pushed = app.push();
    let releases = || platform.api("GET", "/apps/greedy/releases", None).1;
    let before = releases();
    for (mode, limit) in [
        ("large", "DOZEN_LIMIT_SLUG_BYTES"),
        ("loud", "DOZEN_LIMIT_BUILD_LOG_BYTES"),
        ("greedy", "DOZEN_LIMIT_BUILD_DISK_BYTES"),
        ("slow", "DOZEN_LIMIT_BUILD_SECONDS"),
    ] {
        app.write("mode", mode);
        app.commit(mode);
        drop(app.try_push().failure().says(limit).says("pre-receive hook declined"));
        assert_eq!(releases(), before, "{mode}");
        assert_eq!(app.get("/").status, 200, "{mode}");
    }
    app.write("mode", "well");
    app.commit("small again");
    drop(app.push().says("Released v"));
}

/// A small file system in memory.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(megabytes: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("dozen-small-").tempdir().expect("a folder");
        let size = format!("size={megabytes}m,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).status();
        assert!(mounted.expect("mount").success());
        Self(folder)
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.path().join("ballast")).expect("a file");
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            if ballast.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("ballast")).expect("a file of our own");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: what still ends in it holds nothing up.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn start_in(small: &Small) -> TestPlatform {
    let platform = platform().limit("disk_reserve_bytes", 16_000_000).prepare();
    symlink(small.0.path(), platform.data_dir()).expect("a link");
    platform.start_server();
    platform
}

#[test]
fn a_full_disk_refuses_pushes_and_leaves_what_runs_alone() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a file system of one's own cannot be mounted");
        return;
    }
    let small = Small::mount(128);
    let platform = start_in(&small);
    let app = App::plain(&platform, "full");
    let _pushed = app.push();
    let (_, before) = platform.api("GET", "/apps/full/releases", None);
    small.fill();
    app.write("large.txt", &"a line that takes room\n".repeat(100_000));
    app.commit("another");
    drop(app.try_push().failure().says("The platform's disk is full").says("DOZEN_LIMIT_DISK_RESERVE_BYTES"));
    let (status, refused) = platform.api("PATCH", "/apps/full/config-vars", Some(&serde_json::json!({ "A": "b" })));
    assert_eq!(status, 503, "{refused}");
    assert!(refused["message"].as_str().is_some_and(|message| message.contains("disk is full")), "{refused}");
    assert_eq!(app.get("/").status, 200);
    let (_, after) = platform.api("GET", "/apps/full/releases", None);
    assert_eq!(after, before);
    small.free();
    // The size of a commit that failed is given back when the next one is written.
    wait_until("the push to go through", LONG, || app.try_push().code == Some(0));
    let _answer = app.wait_for_answer();
    drop(platform.dozen(&["ledger:verify"]).success().says_not("FAULT"));
}
