//! What a dyno uses of memory and processor, as its control group counts it.

use std::{fs, path::Path};

use super::{Cgroup, Controller, Layout};

/// Memory in use, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of the processes themselves.
    pub rss: u64,
    /// Of files that the kernel keeps in memory, and of shared memory.
    pub cache: u64,
    /// The part of `cache` that the kernel cannot give back: shared memory and files on a tmpfs.
    pub shared: u64,
    /// On swap.
    pub swap: u64,
    /// Pages that came in and went out since the start, where the kernel counts them (the old layout).
    pub pages: Option<(u64, u64)>,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.rss + self.cache + self.swap
    }

    /// What counts against the quota: what would not go away if the kernel had to make room. On Heroku that is the same
    /// number, for there the cache is held within the quota.
    pub fn held(&self) -> u64 {
        self.rss + self.shared + self.swap
    }
}

impl Cgroup {
    /// What the group's processes have in memory; `None` without a memory controller.
    pub fn memory_usage(&self) -> Option<Memory> {
        let (layout, directory) = self.memory()?;
        let text = fs::read_to_string(directory.join("memory.stat")).ok()?;
        let swap = || fs::read_to_string(directory.join("memory.swap.current")).ok()?.trim().parse().ok();
        Some(match layout {
            Layout::PerController => per_controller(&text),
            Layout::Unified => unified(&text, swap().unwrap_or(0)),
        })
    }

    /// How many of its threads run or wait for the processor or a disk right now.
    pub fn running(&self) -> usize {
        let Some((_, layout, directory)) = self.members.iter().find(|member| member.0 == Controller::Pids) else {
            return 0;
        };
        let list = match layout {
            Layout::PerController => "tasks",
            Layout::Unified => "cgroup.threads",
        };
        let threads = fs::read_to_string(directory.join(list)).unwrap_or_default();
        threads.lines().filter(|thread| is_running(Path::new("/proc").join(thread))).count()
    }
}

fn is_running(thread: impl AsRef<Path>) -> bool {
    let stat = fs::read_to_string(thread.as_ref().join("stat")).unwrap_or_default();
    // The name before may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['R', 'D']))
}

fn number(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    rest.trim().parse().ok()
}

fn per_controller(text: &str) -> Memory {
    let get = |key| number(text, key);
    Memory {
        rss: get("total_rss").unwrap_or(0),
        cache: get("total_cache").unwrap_or(0),
        shared: get("total_shmem").unwrap_or(0),
        swap: get("total_swap").unwrap_or(0),
        pages: get("total_pgpgin").zip(get("total_pgpgout")),
    }
}

fn unified(text: &str, swap: u64) -> Memory {
    let get = |key| number(text, key).unwrap_or(0);
    Memory { rss: get("anon"), cache: get("file"), shared: get("shmem"), swap, pages: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_read() {
        let old = "cache 1\nrss 2\ntotal_cache 300\ntotal_rss 1000\ntotal_rss_huge 5\ntotal_shmem 100\n\
                   total_pgpgin 7\ntotal_pgpgout 6\ntotal_swap 50\n";
        let memory = per_controller(old);
        assert_eq!(memory, Memory { rss: 1000, cache: 300, shared: 100, swap: 50, pages: Some((7, 6)) });
        assert_eq!((memory.total(), memory.held()), (1350, 1150));
        let new = "anon 1000\nfile 300\nkernel 9\nshmem 100\nanon_thp 0\n";
        assert_eq!(unified(new, 50), Memory { pages: None, ..memory });
    }

    #[test]
    fn this_thread_runs() {
        assert!(is_running("/proc/thread-self"));
        assert!(!is_running("/proc/1/nothing"));
    }
}
