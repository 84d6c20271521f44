//! Rust apps, compiled with the machine's toolchain.

use crate::workbench::Workbench;

#[test]
fn the_only_binary_is_the_web_process() {
    let mut bench = Workbench::new(&[
        ("Cargo.toml", "[package]\nname = \"hello-web\"\nedition = \"2024\"\n\n[workspace]\n"),
        ("Cargo.lock", "version = 4\n\n[[package]]\nname = \"hello-web\"\nversion = \"0.0.0\"\n"),
        ("src/main.rs", "fn main() {\n    println!(\"hello\");\n}\n"),
    ]);
    let path = std::env::var_os("PATH").expect("a PATH");
    bench.environment.insert("PATH".into(), path);
    let cargo = std::env::var_os("RUSTUP_HOME")
        .or_else(|| Some(std::path::Path::new(&std::env::var_os("HOME")?).join(".rustup").into()));
    bench.environment.insert("RUSTUP_HOME".into(), cargo.expect("a home"));
    let built = bench.build();
    assert_eq!(built.types(), [("web", "./target/release/hello-web")], "{}", built.output);
    let run = std::process::Command::new(bench.app().join("target/release/hello-web")).output().expect("it runs");
    assert_eq!(run.stdout, b"hello\n");
}

#[test]
fn a_missing_lock_file_is_told_before_anything_is_compiled() {
    let built = Workbench::new(&[("Cargo.toml", "[package]\nname = \"a\"\n"), ("src/main.rs", "")]).build();
    assert_eq!((built.status, built.analysis.is_none()), (1, true));
    assert!(built.output.contains(" !     There is no Cargo.lock.\n"), "{}", built.output);
}
