//! The platform's processes as the kernel has them.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Ends a process without asking.
///
/// # Panics
/// When there is none.
pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(process(pid), signal).expect("a process to signal");
}

/// Whether it exists and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    test_kill_process(process(pid)).is_ok() && !matches!(state, None | Some('Z'))
}

fn process(pid: i32) -> Pid {
    Pid::from_raw(pid).expect("a process id is not 0")
}

/// Processes with `argv` that begins with these words after the executable.
pub(crate) fn with_arguments(words: &[&str]) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.split('\0').skip(1).take(words.len()).eq(words.iter().copied())
    })
    .collect()
}

/// A process's parent; none for the first process and for what is gone.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok().filter(|parent| *parent > 0)
}

/// Children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Bytes that a process has handed to the kernel by writing; 0 for what is gone.
pub(crate) fn written(pid: i32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
