//! Go apps, compiled with the machine's toolchain. Modules come from a proxy that is a folder, as `GOPROXY` allows.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::workbench::Workbench;

const GREET: &str = "package greet\n\n// Word is what it says.\nconst Word = \"hello from a module\"\n";
const MAIN: &str = "package main\n\nimport \"example.com/greet\"\n\nfunc main() { println(greet.Word) }\n";
const PLAIN: &str = "package main\n\nvar word = \"plain\"\n\nfunc main() { println(word) }\n";

/// Publishes `example.com/greet` v1.0.0 in a folder that the go command takes as a proxy; answers the lines of `go.sum`.
fn publish(folder: &Path) -> String {
    let versions = folder.join("example.com/greet/@v");
    fs::create_dir_all(&versions).expect("a folder");
    fs::write(versions.join("list"), "v1.0.0\n").expect("a file");
    fs::write(versions.join("v1.0.0.info"), "{\"Version\":\"v1.0.0\",\"Time\":\"2024-01-01T00:00:00Z\"}")
        .expect("a file");
    fs::write(versions.join("v1.0.0.mod"), "module example.com/greet\n\ngo 1.13\n").expect("a file");
    let zip = "import sys, zipfile\n\
               z = zipfile.ZipFile(sys.argv[1], 'w')\n\
               z.writestr('example.com/greet@v1.0.0/go.mod', 'module example.com/greet\\n\\ngo 1.13\\n')\n\
               z.writestr('example.com/greet@v1.0.0/greet.go', sys.argv[2])\n\
               z.close()\n";
    let made = Command::new("python3").args(["-c", zip]).arg(versions.join("v1.0.0.zip")).arg(GREET).status();
    assert!(made.expect("python3").success());
    // What a developer's own machine writes into go.sum.
    let home = folder.join("developer");
    fs::create_dir_all(&home).expect("a folder");
    fs::write(home.join("go.mod"), "module x\n\ngo 1.13\n\nrequire example.com/greet v1.0.0\n").expect("a file");
    fs::write(home.join("main.go"), MAIN).expect("a file");
    let tidy = Command::new("go")
        .args(["mod", "tidy"])
        .current_dir(&home)
        .envs([("GOPROXY", format!("file://{}", folder.display())), ("GONOSUMDB", "example.com".to_owned())])
        .envs([("GOFLAGS", "-modcacherw"), ("HOME", &home.display().to_string())])
        .output()
        .expect("go, which ./test installs");
    assert!(tidy.status.success(), "{}", String::from_utf8_lossy(&tidy.stderr));
    fs::read_to_string(home.join("go.sum")).expect("sums")
}

fn bench(files: &[(&str, &str)]) -> Workbench {
    let mut bench = Workbench::new(files);
    let proxy = bench.beside("proxy");
    bench.config.insert("GOPROXY".to_owned(), format!("file://{}", proxy.display()));
    bench.config.insert("GONOSUMDB".to_owned(), "example.com".to_owned());
    bench
}

fn run(bench: &Workbench, program: &str) -> String {
    let output = Command::new(bench.app().join(program)).output().expect("it runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn modules_are_fetched_once_and_the_only_binary_is_the_web_process() {
    let mut bench = bench(&[
        ("go.mod", "module example.com/shop/v2\n\ngo 1.13\n\nrequire example.com/greet v1.0.0\n"),
        ("main.go", MAIN),
    ]);
    let sums = publish(&bench.beside("proxy"));
    let incomplete = bench.build();
    assert_eq!(incomplete.status, 1);
    assert!(incomplete.output.contains("run \"go mod tidy\""), "{}", incomplete.output);
    bench.write("go.sum", &sums);
    let first = bench.build();
    assert_eq!(first.types(), [("web", "bin/shop")], "{}", first.output);
    assert_eq!(run(&bench, "bin/shop"), "hello from a module\n");
    fs::remove_dir_all(bench.beside("proxy")).expect("a folder");
    let second = bench.build();
    assert_eq!(second.types(), [("web", "bin/shop")], "the module was kept: {}", second.output);
    bench.write("go.sum", &sums.replace("h1:", "h1:AAAA"));
    assert_eq!(bench.build().status, 1, "a module that is not what go.sum says is not used");
}

#[test]
fn a_vendored_module_needs_no_proxy() {
    let mut bench = bench(&[
        ("go.mod", "module example.com/shop\n\ngo 1.13\n\nrequire example.com/greet v1.0.0\n"),
        ("main.go", MAIN),
        ("vendor/modules.txt", "# example.com/greet v1.0.0\nexample.com/greet\n"),
        ("vendor/example.com/greet/greet.go", GREET),
    ]);
    let built = bench.build();
    assert_eq!(built.types(), [("web", "bin/shop")], "{}", built.output);
    assert_eq!(run(&bench, "bin/shop"), "hello from a module\n");
}

#[test]
fn the_packages_asked_for_are_built_and_scripts_run_around_it() {
    let mut bench = bench(&[
        ("go.mod", "// +heroku install ./cmd/...\nmodule example.com/shop\n\ngo 1.13\n"),
        ("main.go", "package main\n\nfunc main() { this does not compile }\n"),
        ("cmd/server/main.go", PLAIN),
        ("cmd/worker/main.go", PLAIN),
        ("bin/go-pre-compile", "#!/bin/sh\ngo version > before\n"),
        ("bin/go-post-compile", "#!/bin/sh\nbin/worker 2> after\n"),
        // A binary that somebody committed is built anew.
        ("bin/server", "old"),
    ]);
    bench.config.insert("GO_LINKER_SYMBOL".to_owned(), "main.word".to_owned());
    bench.config.insert("GO_LINKER_VALUE".to_owned(), "linked".to_owned());
    let built = bench.build();
    assert_eq!(built.types(), [], "{}", built.output);
    assert!(built.output.contains("       bin/server\n       bin/worker\n"), "{}", built.output);
    assert_eq!(run(&bench, "bin/server"), "linked\n");
    assert_eq!(fs::read_to_string(bench.app().join("after")).expect("the last script ran"), "linked\n");
    assert!(fs::read_to_string(bench.app().join("before")).expect("the first script ran").starts_with("go version"));
    bench.config.insert("GO_INSTALL_PACKAGE_SPEC".to_owned(), "./cmd/worker".to_owned());
    assert_eq!(bench.build().types(), [("web", "bin/worker")]);
}

#[test]
fn a_newer_go_than_the_machine_has_is_refused_before_anything_is_compiled() {
    for text in ["module x\n\ngo 1.999\n", "// +heroku goVersion go1.999.1\nmodule x\n\ngo 1.13\n"] {
        let built = bench(&[("go.mod", text), ("main.go", PLAIN)]).build();
        assert_eq!((built.status, built.analysis.is_none()), (1, true), "{}", built.output);
        assert!(built.output.contains(" asks for Go 1.999"), "{}", built.output);
        assert!(built.output.contains("DOZEN_GO_ROOT"), "{}", built.output);
    }
}

#[test]
fn without_a_toolchain_the_push_is_refused_with_what_to_install() {
    let mut bench = bench(&[("go.mod", "module x\n\ngo 1.13\n"), ("main.go", PLAIN)]);
    let empty = bench.beside("empty");
    fs::create_dir_all(&empty).expect("a folder");
    bench.environment.insert("PATH".into(), empty.into());
    let built = bench.build();
    assert_eq!((built.status, built.analysis.is_none()), (1, true), "{}", built.output);
    assert!(built.output.contains(" !     There is no Go toolchain on this machine.\n"), "{}", built.output);
    assert!(built.output.contains("apt-get install golang-go"), "{}", built.output);
}

#[test]
fn the_operators_toolchain_comes_before_the_systems() {
    let mut bench = bench(&[("go.mod", "module x\n\ngo 1.13\n"), ("main.go", PLAIN)]);
    let program = bench.roots.toolchains.join("go/bin/go");
    fs::create_dir_all(program.parent().expect("a folder")).expect("a folder");
    fs::write(
        &program,
        "#!/bin/sh\ntest \"$1\" = version && echo go version go1.998 linux/any && exit 0\necho own; exit 3\n",
    )
    .expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("made executable");
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains("-----> Using Go 1.998\n"), "{}", built.output);
    assert!(built.output.contains("       own\n") && built.output.contains("go build failed"), "{}", built.output);
}

#[test]
fn a_module_without_a_program_is_refused() {
    let built = bench(&[("go.mod", "module x\n\ngo 1.13\n"), ("x.go", "package x\n")]).build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains("GO_INSTALL_PACKAGE_SPEC"), "{}", built.output);
}
