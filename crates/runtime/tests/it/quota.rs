//! What becomes of dynos that use more memory than their size grants, and what is written about all of them.

use dozen_api::engine::Engine;
use dozen_domain::limits::Limits;

use crate::platform::Platform;

fn often() -> Limits {
    Limits { dyno_metrics_ms: 400, ..Limits::default() }
}

fn hold(megabytes: u64) -> String {
    format!("exec /opt/dozen/bin/dozen probe hold {}", megabytes << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_over_its_memory_goes_on_and_is_told_of_again_and_again() {
    let p = Platform::start(often()).await;
    p.engine.apply(p.wanted(1, &[("worker", &hold(600), 1)])).await.expect("applied");
    let full = |lines: &[String]| {
        let last = lines.iter().rev().find_map(|line| figures(line));
        let told = lines.iter().filter(|line| *line == "Error R14 (Memory quota exceeded)").count();
        told >= 2 && last.is_some_and(|(megabytes, _)| megabytes >= 600.0)
    };
    let lines = p.until("worker.1", full).await;
    let (megabytes, percent) = lines.iter().rev().find_map(|line| figures(line)).expect("how much");
    assert!((600.0..=612.0).contains(&megabytes) && (117.0..=120.0).contains(&percent), "{lines:?}");
    assert_eq!(p.states(), ["worker.1 up"]);
    assert!(!lines.iter().any(|line| line.contains("sample#")), "nobody asked for figures: {lines:?}");
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_far_over_its_memory_is_killed() {
    let p = Platform::start(Limits { dyno_memory_percent: 120, ..Limits::default() }).await;
    p.engine.apply(p.wanted(1, &[("worker", &hold(700), 1)])).await.expect("applied");
    let lines = p.until("worker.1", |lines| lines.iter().any(|line| line.contains("exited"))).await;
    let at = lines.iter().position(|line| line == "Process running mem=614MB(120.0%)").expect("how much");
    assert_eq!(
        lines[at + 1..at + 4],
        ["Error R15 (Memory quota vastly exceeded)", "Stopping process with SIGKILL", "Process exited with status 137",]
    );
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_read_and_written_do_not_count_against_the_memory() {
    let p = Platform::start(often()).await;
    let script = "head -c 600M /dev/zero > /tmp/file; cat /tmp/file > /dev/null; sleep 600";
    let mut wanted = p.wanted(1, &[("worker", script, 1)]);
    wanted.runtime_metrics = true;
    p.engine.apply(wanted).await.expect("applied");
    let cached = |line: &String| sample(line, "memory_cache").is_some_and(|megabytes| megabytes > 550.0);
    let lines = p.until("worker.1", |lines| lines.iter().any(cached)).await;
    assert!(!lines.iter().any(|line| line.contains("R14")), "{lines:?}");
    p.end().await;
}

/// Megabytes and percent of `Process running mem=528MB(103.3%)`.
fn figures(line: &str) -> Option<(f64, f64)> {
    let (megabytes, percent) = line.strip_prefix("Process running mem=")?.strip_suffix("%)")?.split_once("MB(")?;
    Some((megabytes.parse().ok()?, percent.parse().ok()?))
}

fn sample(line: &str, name: &str) -> Option<f64> {
    let rest = line.split_once(&format!("sample#{name}="))?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_written_for_apps_that_want_them() {
    let p = Platform::start(often()).await;
    let mut wanted = p.wanted(1, &[("worker", "while :; do :; done", 1)]);
    wanted.runtime_metrics = true;
    p.engine.apply(wanted).await.expect("applied");
    let full = |lines: &[String]| lines.iter().filter(|line| line.contains("sample#memory_total")).count() >= 2;
    let lines = p.until("worker.1", full).await;
    let dyno = p.dyno("worker.1");
    let whose = format!("source=worker.1 dyno=heroku.{}.{} sample#", dyno.app, dyno.id);
    let figures: Vec<&String> = lines.iter().filter(|line| line.starts_with(&whose)).collect();
    let load = figures.iter().rev().find(|line| line.contains("load_avg_1m")).expect("the load");
    assert!(sample(load, "load_avg_1m").is_some_and(|load| load >= 0.0), "{load}");
    assert!(load.contains(" sample#load_avg_5m=") && load.contains(" sample#load_avg_15m="), "{load}");
    let memory = figures.iter().rev().find(|line| line.contains("memory_total")).expect("the memory");
    let get = |name| sample(memory, name).expect("a figure");
    assert_eq!(get("memory_quota"), 512.0);
    assert!((get("memory_total") - get("memory_rss") - get("memory_cache") - get("memory_swap")).abs() < 0.05);
    assert!(get("memory_rss") > 0.0 && get("memory_rss") < 100.0, "{memory}");
    p.end().await;
}
