//! `dozen doctor`: looks at this machine and this configuration and says what holds and what does not.
//!
//! It changes nothing and starts nothing. Three grades: what holds, what is missing but lets the platform run (weaker
//! protections, a tool), and what keeps it from running; the last makes the exit code 1.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dozen_cli::Printer;
use serde_json::json;

use crate::{config::Config, data_dir, roles, server::listeners};

/// The oldest kernel with everything that containers are made with (`mount_setattr`).
const KERNEL: (u32, u32) = (5, 12);
/// A clock before this is not set: 2025-01-01.
const LONG_AGO: Duration = Duration::from_secs(1_735_689_600);
/// Files from further in the future than this were written under another clock.
const TOLERANCE: Duration = Duration::from_secs(60);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    /// It holds.
    Good,
    /// The platform runs, with less.
    Weak,
    /// The platform does not run, or no dyno does.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    topic: &'static str,
    text: String,
}

fn finding(grade: Grade, topic: &'static str, text: impl Into<String>) -> Finding {
    Finding { grade, topic, text: text.into() }
}

/// Looks and prints; fails when something is bad.
///
/// # Errors
/// When the terminal is gone.
pub(crate) fn run(config: &Config, printer: &mut Printer<'_>) -> Result<ExitCode, dozen_cli::Error> {
    let mut findings = vec![version(), kernel(&rustix::system::uname().release().to_string_lossy())];
    findings.extend(protections());
    findings.extend(control_groups());
    findings.extend(tools(config));
    findings.push(clock(&config.data_dir, SystemTime::now()));
    findings.extend(disk(config));
    findings.extend(ports(config));
    let mark = |finding: &Finding| match finding.grade {
        Grade::Good => "ok",
        Grade::Weak => "weak",
        Grade::Bad => "BAD",
    };
    if printer.is_json() {
        let shown = findings.iter().map(|one| json!({ "grade": mark(one), "topic": one.topic, "text": one.text }));
        printer.json(&shown.collect::<Vec<_>>())?;
    } else {
        let row = |one: &Finding| vec![mark(one).to_owned(), one.topic.to_owned(), one.text.clone()];
        printer.table(&findings.iter().map(row).collect::<Vec<_>>())?;
    }
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    match (count(Grade::Bad), count(Grade::Weak)) {
        (0, 0) => printer.note("Everything is there."),
        (0, weak) => printer.note(&format!("The platform runs here; {weak} things are weaker than they could be.")),
        (bad, _) => printer.note(&format!("{bad} things keep the platform from running here.")),
    }
    Ok(if count(Grade::Bad) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn version() -> Finding {
    finding(Grade::Good, "version", format!("dozen {} on {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH))
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL {
        finding(Grade::Good, "kernel", format!("Linux {release}"))
    } else {
        let (major, minor) = KERNEL;
        finding(Grade::Bad, "kernel", format!("Linux {release} is too old for containers: {major}.{minor} is needed"))
    }
}

fn protections() -> Vec<Finding> {
    let missing = roles::protections();
    if missing.is_empty() {
        return vec![finding(Grade::Good, "protections", "dynos get every protection")];
    }
    let grade = |prevents| if prevents { Grade::Bad } else { Grade::Weak };
    missing.into_iter().map(|(text, prevents)| finding(grade(prevents), "protections", text)).collect()
}

fn control_groups() -> Vec<Finding> {
    let found = roles::control_groups();
    if found.is_empty() {
        return vec![finding(Grade::Weak, "control groups", "none are mounted: dynos are bounded by rlimits alone")];
    }
    vec![finding(Grade::Good, "control groups", found.join(", "))]
}

/// What the platform calls: git must be there, the others have a use.
fn tools(config: &Config) -> Vec<Finding> {
    let root = rustix::process::geteuid().is_root();
    let mut wanted = vec![("git", Grade::Bad, "pushes need it: apt install git")];
    if root {
        wanted.push(("nft", Grade::Weak, "apps are kept apart by it: apt install nftables"));
    }
    let look = |(name, grade, hint): (&'static str, Grade, &str)| match config.tool(name) {
        Some(path) => {
            let version = Command::new(&path).arg("--version").output().ok();
            let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            finding(Grade::Good, "tools", version.filter(|text| !text.is_empty()).unwrap_or_else(|| name.to_owned()))
        }
        None => finding(grade, "tools", format!("{name} is not on PATH; {hint}")),
    };
    wanted.into_iter().map(look).collect()
}

/// A clock that stands before files which the platform has written makes certificates and releases look wrong.
fn clock(data_dir: &Path, now: SystemTime) -> Finding {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if since < LONG_AGO {
        return finding(Grade::Bad, "clock", "the machine's clock is not set: certificates would not be valid");
    }
    let written = |name: &str| data_dir.join(name).metadata().and_then(|file| file.modified()).ok();
    let newest = ["run/alive", "dozen.db-wal", "dozen.db"].into_iter().filter_map(written).max();
    match newest.and_then(|newest| newest.duration_since(now).ok()).filter(|ahead| *ahead > TOLERANCE) {
        Some(ahead) => finding(
            Grade::Weak,
            "clock",
            format!("the clock is {} s behind the platform's own files: it was set back", ahead.as_secs()),
        ),
        None => finding(Grade::Good, "clock", "it is set and does not lie behind the platform's files"),
    }
}

fn disk(config: &Config) -> Vec<Finding> {
    let data_dir = &config.data_dir;
    // What does not exist yet is made where its nearest ancestor is.
    let Some(place) = data_dir.ancestors().find(|path| path.exists()) else {
        return vec![finding(Grade::Bad, "data directory", format!("{} cannot be made", data_dir.display()))];
    };
    let writable = rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok();
    let mut findings = vec![if writable {
        finding(Grade::Good, "data directory", data_dir.display().to_string())
    } else {
        let why = format!("{} is not writable for this user: set DOZEN_DATA_DIR", place.display());
        finding(Grade::Bad, "data directory", why)
    }];
    if let Ok(disk) = rustix::fs::statvfs(place) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let (reserve, mb) = (config.limits.disk_reserve_bytes, free >> 20);
        findings.push(match free {
            free if free <= reserve => {
                finding(Grade::Bad, "disk", format!("{mb} MB free: nothing is written below {} MB", reserve >> 20))
            }
            free if free < config.limits.build_disk_bytes => {
                finding(Grade::Weak, "disk", format!("{mb} MB free: a large build may not fit"))
            }
            _ => finding(Grade::Good, "disk", format!("{mb} MB free")),
        });
    }
    findings
}

/// Whether the configured addresses are free, or ours already.
fn ports(config: &Config) -> Vec<Finding> {
    if let Some(pid) = data_dir::holder(&config.data_dir) {
        let listen = listeners::recorded(config);
        let pid = pid.as_raw_nonzero();
        let text = format!("the platform runs (process {pid}): API at {}, apps at {}", listen.api, listen.router);
        return vec![finding(Grade::Good, "ports", text)];
    }
    let wanted = [
        ("DOZEN_API_LISTEN", config.listen.api),
        ("DOZEN_TLS_LISTEN", config.listen.tls),
        ("DOZEN_ROUTER_LISTEN", config.listen.router),
        ("DOZEN_ROUTER_TLS_LISTEN", config.listen.router_tls),
    ];
    let look = |(variable, address)| match TcpListener::bind(address) {
        Ok(_free) => finding(Grade::Good, "ports", format!("{address} is free for {variable}")),
        Err(error) => finding(Grade::Bad, "ports", format!("{variable}: cannot listen on {address}: {error}")),
    };
    wanted.into_iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_judged_by_its_number() {
        for (release, grade) in [
            ("6.1.0-13-amd64", Grade::Good),
            ("5.12.0", Grade::Good),
            ("5.4.0-generic", Grade::Bad),
            ("4.19", Grade::Bad),
            ("", Grade::Bad),
        ] {
            assert_eq!(kernel(release).grade, grade, "{release}");
        }
    }

    #[test]
    fn a_clock_that_is_not_set_or_was_set_back_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = SystemTime::now();
        assert_eq!(clock(directory.path(), now).grade, Grade::Good);
        std::fs::write(directory.path().join("dozen.db"), "").expect("a file");
        assert_eq!(clock(directory.path(), now).grade, Grade::Good);
        assert_eq!(clock(directory.path(), now - Duration::from_secs(3_600)).grade, Grade::Weak);
        assert_eq!(clock(directory.path(), UNIX_EPOCH + Duration::from_secs(9)).grade, Grade::Bad);
    }
}
