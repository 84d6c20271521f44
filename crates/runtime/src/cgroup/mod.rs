//! One dyno's control group: what it may use of memory, processes and processor, and how it is counted and killed.
//!
//! Works on the old layout (one hierarchy a controller), the new one (all in one) and machines with both: for each
//! controller the hierarchy that holds it is taken, see [`hierarchy`]. A controller that is not there, or may not be
//! written, is told as missing and the dyno starts without it; whether that is acceptable is the caller's decision.

pub mod hierarchy;
mod usage;

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use hierarchy::{Controller, Layout, Place};
pub use usage::Memory;

/// What a control group grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of memory at which its processes are killed, page cache included; swap does not come on top.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// CPU shares in the old layout's units (1024 is one whole dyno).
    pub cpu_shares: u64,
}

/// What failed on a control group.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct Error {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error { operation, path, source }
}

/// A dyno's control group in all the hierarchies that have a part of it.
#[derive(Debug)]
pub struct Cgroup {
    members: Vec<(Controller, Layout, PathBuf)>,
}

/// Hears of a group's memory running out.
#[derive(Debug)]
pub struct MemoryWatch {
    /// What to poll.
    pub descriptor: OwnedFd,
    /// Whether it polls as exceptional (new layout) and not as readable (old layout).
    pub exceptional: bool,
}

impl MemoryWatch {
    /// After each time it was heard of.
    pub fn rearm(&self) {
        let _ = match self.exceptional {
            true => rustix::io::pread(&self.descriptor, &mut [0; 512], 0),
            false => rustix::io::read(&self.descriptor, &mut [0; 8]),
        };
    }
}

/// How long processes that were killed may take to leave the group.
const LEAVE: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Makes the group `relative` (`dozen-1a2b3c/<dyno>`) below each hierarchy and sets its limits. Returns the
    /// controllers that could not be had too.
    pub fn create(relative: &str, quota: &Quota) -> (Self, Vec<Controller>) {
        Self::create_at(&hierarchy::places(), relative, quota)
    }

    /// The same by someone who knows the controllers' places.
    pub fn create_at(places: &[Place], relative: &str, quota: &Quota) -> (Self, Vec<Controller>) {
        let mut members = Vec::new();
        let mut missing = Vec::new();
        for controller in Controller::ALL {
            let made = places.iter().find(|place| place.controller == controller).and_then(|place| {
                let directory = make(place, relative).ok()?;
                limit(place, &directory, quota).ok()?;
                Some((controller, place.layout, directory))
            });
            match made {
                Some(member) => members.push(member),
                None => missing.push(controller),
            }
        }
        (Self { members }, missing)
    }

    /// Finds the group `relative` again, whichever parts of it exist.
    pub fn open(relative: &str) -> Self {
        Self::open_at(&hierarchy::places(), relative)
    }

    /// The same by someone who knows the controllers' places.
    pub fn open_at(places: &[Place], relative: &str) -> Self {
        let members = places
            .iter()
            .map(|place| (place.controller, place.layout, place.root.join(relative)))
            .filter(|(_, _, directory)| directory.is_dir())
            .collect();
        Self { members }
    }

    /// Says whether a controller takes part.
    pub fn has(&self, controller: Controller) -> bool {
        self.members.iter().any(|member| member.0 == controller)
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.parts().map(|(_, directory)| directory)
    }

    fn parts(&self) -> impl Iterator<Item = (Layout, &Path)> {
        // In the new layout several controllers share one directory.
        self.members
            .iter()
            .enumerate()
            .filter(|(n, member)| !self.members[..*n].iter().any(|earlier| earlier.2 == member.2))
            .map(|(_, member)| (member.1, member.2.as_path()))
    }

    fn memory(&self) -> Option<(Layout, &Path)> {
        let member = self.members.iter().find(|member| member.0 == Controller::Memory)?;
        Some((member.1, &member.2))
    }

    /// Its directory in the new layout, for a process to be born there (`CLONE_INTO_CGROUP`); `None` where no controller
    /// is in that layout, or the kernel does not let it be opened.
    pub fn birthplace(&self) -> Option<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let (_, directory) = self.parts().find(|(layout, _)| *layout == Layout::Unified)?;
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    /// Puts the calling process, which has one thread, into the group; its later children are born there. `born`: it
    /// was born in the [`Cgroup::birthplace`] already.
    ///
    /// Moving any other process, or one with several threads, has the kernel wait until no processor is in the middle
    /// of a fork or an exit: ten milliseconds on a busy machine. A thread that moves itself, or is born in its place,
    /// waits for nobody.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self, born: bool) -> Result<(), Error> {
        for (layout, directory) in self.parts() {
            let file = match layout {
                Layout::PerController => "tasks",
                Layout::Unified if born => continue,
                Layout::Unified => "cgroup.procs",
            };
            fs::write(directory.join(file), "0").map_err(failed("put a process into", directory))?;
        }
        Ok(())
    }

    /// How many processes of the group the kernel has killed for want of memory.
    pub fn out_of_memory_kills(&self) -> u64 {
        let Some((layout, directory)) = self.memory() else { return 0 };
        let file = match layout {
            Layout::PerController => "memory.oom_control",
            Layout::Unified => "memory.events",
        };
        let Ok(text) = fs::read_to_string(directory.join(file)) else { return 0 };
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Makes the kernel tell when memory ran out; `None` without a bound on memory.
    ///
    /// # Errors
    /// When the kernel does not offer it.
    pub fn watch_memory(&self) -> Result<Option<MemoryWatch>, Error> {
        let Some((layout, directory)) = self.memory() else { return Ok(None) };
        let watch = || -> io::Result<MemoryWatch> {
            match layout {
                Layout::Unified => {
                    let descriptor = fs::File::open(directory.join("memory.events"))?.into();
                    let watch = MemoryWatch { descriptor, exceptional: true };
                    watch.rearm(); // changes are told from the first reading on
                    Ok(watch)
                }
                Layout::PerController => {
                    let control = fs::File::open(directory.join("memory.oom_control"))?;
                    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
                    let event = rustix::event::eventfd(0, flags)?;
                    let line = format!("{} {}", event.as_raw_fd(), control.as_fd().as_raw_fd());
                    fs::write(directory.join("cgroup.event_control"), line)?;
                    Ok(MemoryWatch { descriptor: event, exceptional: false })
                }
            }
        };
        watch().map(Some).map_err(failed("watch the memory of", directory))
    }

    fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .directories()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process of the group, however fast it forks, and returns when none is left or after 5 s.
    pub fn kill(&self) {
        let until = Instant::now() + LEAVE;
        loop {
            let pids = self.pids();
            if pids.is_empty() || Instant::now() > until {
                return;
            }
            for directory in self.directories() {
                let _ = fs::write(directory.join("cgroup.kill"), "1"); // new layout only; the loop below does the rest
            }
            for pid in pids {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes the group; it must be empty, or become so within 5 s.
    ///
    /// # Errors
    /// When a process stays in it.
    pub fn remove(&self) -> Result<(), Error> {
        let until = Instant::now() + LEAVE;
        for directory in self.directories() {
            while let Err(error) = fs::remove_dir(directory) {
                match error.kind() {
                    io::ErrorKind::NotFound => break,
                    io::ErrorKind::ResourceBusy if Instant::now() < until => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    _ => return Err(failed("remove", directory)(error)),
                }
            }
        }
        Ok(())
    }
}

/// Removes a platform's own group (`dozen-1a2b3c`) from every hierarchy; one that still has dynos stays.
pub fn remove_parent(relative: &str) {
    for place in hierarchy::places() {
        let _ = fs::remove_dir(place.root.join(relative));
    }
}

fn make(place: &Place, relative: &str) -> Result<PathBuf, Error> {
    let mut directory = place.root.clone();
    for part in relative.split('/').filter(|part| !part.is_empty() && *part != "..") {
        if place.layout == Layout::Unified {
            let control = directory.join("cgroup.subtree_control");
            fs::write(&control, format!("+{}", place.controller.name()))
                .map_err(failed("delegate a controller by", &control))?;
        }
        directory.push(part);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create", &directory)(error));
            }
            _ => {}
        }
    }
    Ok(directory)
}

fn limit(place: &Place, directory: &Path, quota: &Quota) -> Result<(), Error> {
    let write = |file: &str, value: u64| {
        let path = directory.join(file);
        fs::write(&path, value.to_string()).map_err(failed("write", &path))
    };
    match (place.controller, place.layout) {
        (Controller::Memory, Layout::PerController) => {
            write("memory.limit_in_bytes", quota.memory_bytes)?;
            // Absent without swap accounting. Memory and swap together, so this much memory means no swap.
            let _ = write("memory.memsw.limit_in_bytes", quota.memory_bytes);
            Ok(())
        }
        (Controller::Memory, Layout::Unified) => {
            write("memory.max", quota.memory_bytes)?;
            let _ = write("memory.swap.max", 0); // absent without swap
            Ok(())
        }
        (Controller::Pids, _) => write("pids.max", quota.pids),
        (Controller::Cpu, Layout::PerController) => write("cpu.shares", quota.cpu_shares.clamp(2, 262_144)),
        (Controller::Cpu, Layout::Unified) => write("cpu.weight", weight(quota.cpu_shares)),
    }
}

/// The new layout's weight (1 to 10,000) for the old layout's shares (2 to 262,144): the mapping that OCI runtimes use.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_onto_the_whole_range_of_weights() {
        assert_eq!((weight(0), weight(2), weight(1024), weight(262_144)), (1, 1, 39, 10_000));
    }

    #[test]
    fn a_group_is_made_filled_emptied_and_removed() {
        let name = format!("dozen-test-{}", std::process::id());
        let quota = Quota { memory_bytes: 64 << 20, pids: 8, cpu_shares: 512 };
        let (group, missing) = Cgroup::create(&format!("{name}/one"), &quota);
        assert!(!missing.contains(&Controller::Pids), "run as root on a machine with control groups");
        let inside = Cgroup::open(&format!("{name}/one"));
        let mut sleep = std::process::Command::new("sleep");
        // SAFETY: the child has one thread, and its parent none that could hold the allocator's lock for long.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(sleep.arg("600"), move || {
                inside.join(false).map_err(io::Error::other)
            })
        };
        let mut child = sleep.spawn().expect("the child joins");
        assert_eq!(group.pids(), [i32::try_from(child.id()).expect("a pid")]);
        assert!(group.memory_usage().is_some());
        assert_eq!(group.out_of_memory_kills(), 0);
        let reaper = std::thread::spawn(move || child.wait());
        Cgroup::open(&format!("{name}/one")).kill();
        reaper.join().expect("no panic").expect("reaped");
        group.remove().expect("an empty group goes");
        remove_parent(&name);
        assert!(Cgroup::open(&name).members.is_empty());
    }
}
