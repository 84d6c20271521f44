//! The platform's own lines about dynos, in the words that people search logs for.

use dozen_api::engine::Dyno;
use dozen_domain::{
    codes::Code,
    settings::{Signal, Stop},
};

use crate::cgroup::Memory;

/// A line for each thing that can happen.
pub(super) fn starting(command: &str) -> String {
    format!("Starting process with command `{command}`")
}

pub(super) fn changed(from: &str, to: &str) -> String {
    format!("State changed from {from} to {to}")
}

pub(super) fn exited(status: i32) -> String {
    format!("Process exited with status {status}")
}

pub(super) const RESTARTING: &str = "Restarting";
pub(super) const CYCLING: &str = "Cycling";
pub(super) const KILLING: &str = "Stopping process with SIGKILL";
pub(super) const HANGING_UP: &str = "Client connection closed. Sending SIGHUP to all processes";
pub(super) const AWAITING: &str = "Awaiting client";

pub(super) fn stopping(signal: Signal) -> String {
    format!("Stopping all processes with {signal}")
}

pub(super) fn boot_timeout(seconds: u64) -> String {
    error(Code::R10, &format!("Web process failed to bind to $PORT within {seconds} seconds of launch"))
}

pub(super) fn unhealthy(path: &str, seconds: u64) -> String {
    error(Code::R10, &format!("Web process failed to answer {path} within {seconds} seconds of launch"))
}

pub(super) fn exit_timeout(stop: Stop) -> String {
    let Stop { signal, grace } = stop;
    error(Code::R12, &format!("Process failed to exit within {} seconds of {signal}", grace.as_secs()))
}

/// It holds more memory than its size grants, and goes on.
pub(super) fn over_quota(held: u64, quota: u64) -> [String; 2] {
    [running(held, quota), error_alone(Code::R14)]
}

/// It wanted far more memory than its size grants, and is killed.
pub(super) fn far_over_quota(held: u64, quota: u64) -> [String; 3] {
    [running(held, quota), error_alone(Code::R15), KILLING.to_owned()]
}

fn running(held: u64, quota: u64) -> String {
    let percent = held as f64 * 100.0 / quota.max(1) as f64;
    format!("Process running mem={}MB({percent:.1}%)", held >> 20)
}

/// Whose figures a line has.
fn sample_of(dyno: &Dyno) -> String {
    format!("source={} dyno=heroku.{}.{}", dyno.name, dyno.app, dyno.id)
}

/// Threads that run, on average over 1, 5 and 15 minutes.
pub(super) fn load(dyno: &Dyno, [one, five, fifteen]: [f64; 3]) -> String {
    format!(
        "{} sample#load_avg_1m={one:.2} sample#load_avg_5m={five:.2} sample#load_avg_15m={fifteen:.2}",
        sample_of(dyno)
    )
}

/// What it has in memory.
pub(super) fn memory_sample(dyno: &Dyno, memory: &Memory, quota: u64) -> String {
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let pages = memory.pages.map_or_else(String::new, |(came, went)| {
        format!(" sample#memory_pgpgin={came}pages sample#memory_pgpgout={went}pages")
    });
    format!(
        "{} sample#memory_total={:.2}MB sample#memory_rss={:.2}MB sample#memory_cache={:.2}MB sample#memory_swap={:.2}MB{pages} sample#memory_quota={:.2}MB",
        sample_of(dyno),
        mb(memory.total()),
        mb(memory.rss),
        mb(memory.cache),
        mb(memory.swap),
        mb(quota)
    )
}

pub(super) fn not_attached() -> String {
    error(Code::R13, "Failed to attach to process")
}

pub(super) fn detached() -> String {
    error(Code::R16, "An attached process is not responding to SIGHUP after its external connection was closed")
}

pub(super) fn checksum(expected: &str, actual: &str) -> String {
    let what = format!("Checksum does not match expected value. Expected: SHA256:{expected} Actual: SHA256:{actual}");
    error(Code::R17, &what)
}

pub(super) fn damaged() -> String {
    error(Code::R17, "The app's image is missing or damaged; deploy it again")
}

pub(super) fn platform() -> String {
    error(Code::R99, "The dyno could not be started; the platform's own log says why")
}

/// Its shim was killed, or the machine it ran on went down.
pub(super) fn lost() -> String {
    error(Code::R99, "The process that supervised the dyno is gone, and the dyno with it")
}

fn error(code: Code, what: &str) -> String {
    format!("{} -> {what}", error_alone(code))
}

fn error_alone(code: Code) -> String {
    format!("Error {code} ({})", code.description())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_people_know_them() {
        assert_eq!(
            boot_timeout(60),
            "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch"
        );
        let stop = Stop::usual(&dozen_domain::limits::Limits::default());
        assert_eq!(
            exit_timeout(stop),
            "Error R12 (Exit timeout) -> Process failed to exit within 30 seconds of SIGTERM"
        );
        let quota = 512 << 20;
        let over = over_quota(529 << 20, quota);
        assert_eq!(over, ["Process running mem=529MB(103.3%)", "Error R14 (Memory quota exceeded)"]);
        let lines = far_over_quota(1024 << 20, quota);
        assert_eq!(lines[..2], ["Process running mem=1024MB(200.0%)", "Error R15 (Memory quota vastly exceeded)"]);
    }
}
