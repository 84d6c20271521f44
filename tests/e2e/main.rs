//! The stories of the platform, driven from outside: the built executable, the official heroku CLI, real git.
//!
//! One binary for all of them (each further one would link everything again); one file a theme. Every test has a
//! platform of its own. What a single crate can prove is proved there.

mod access;
mod accounting;
mod accounts;
mod apps;
mod builds;
mod certificates;
mod config;
mod domains;
mod drains;
mod elastic;
mod elsewhere;
mod examples;
mod exec;
mod faults;
mod formation;
mod limits;
mod lives;
mod logins;
mod logs;
mod one_offs;
mod pushes;
mod receivers;
mod releases;
mod rootless;
mod schedule;
mod sources;
mod start;
mod survival;
mod usage;

use dozen_testkit::{Builder, TestPlatform};

/// A platform to be, from the executable that cargo has built for this test run.
fn platform() -> Builder {
    TestPlatform::builder(env!("CARGO_BIN_EXE_dozen"))
        .limit("stop_seconds", 5)
        .limit("git_requests_per_hour", 10_000)
        .limit("api_calls_per_hour", 100_000)
}

/// Text with what differs from run to run made equal: ports, times, commits, sizes.
fn normalised(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut words = Vec::new();
        for word in line.trim_end().split(' ') {
            let inner = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let hex = inner.len() >= 7 && inner.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
            let is_commit = hex && inner.bytes().any(|b| b.is_ascii_digit());
            words.push(if is_commit { word.replace(inner, "COMMIT") } else { without_port(word) });
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

fn without_port(word: &str) -> String {
    let Some((before, after)) = word.split_once("localhost:") else { return word.to_owned() };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}localhost:PORT{rest}")
}
