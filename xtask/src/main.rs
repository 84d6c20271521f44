//! Chores of the repository: `cargo run -p xtask -- tidy` checks what no compiler knows.

mod tidy;

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy::run(&root),
        _ => {
            report("usage: xtask tidy");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a chore talks to the person who runs it")]
fn report(text: &str) {
    eprintln!("{text}");
}
