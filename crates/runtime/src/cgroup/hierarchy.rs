//! Which control group hierarchy holds which controller on this machine.

use std::{fs, path::PathBuf};

/// A controller that dynos are bounded or counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Bounds memory.
    Memory,
    /// Bounds the number of processes and threads.
    Pids,
    /// Shares out processor time.
    Cpu,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// How a hierarchy is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Control groups of 2008: a hierarchy for each controller or pair of controllers.
    PerController,
    /// Control groups of 2016: one hierarchy for all.
    Unified,
}

/// Where a controller's groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which controller.
    pub controller: Controller,
    /// In which layout.
    pub layout: Layout,
    /// The hierarchy's root.
    pub root: PathBuf,
}

/// Finds the controllers of this machine.
pub fn places() -> Vec<Place> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse(&mounts, |root| fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default())
}

fn parse(mounts: &str, controllers: impl Fn(&PathBuf) -> String) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for line in mounts.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let Some(root) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut filesystem = filesystem.split(' ');
        let (layout, names) = match filesystem.next() {
            Some("cgroup") => (Layout::PerController, filesystem.nth(1).unwrap_or_default().replace(',', " ")),
            Some("cgroup2") => (Layout::Unified, controllers(&root)),
            _ => continue,
        };
        for controller in Controller::ALL {
            let known = places.iter().any(|place| place.controller == controller);
            if !known && names.split_whitespace().any(|name| name == controller.name()) {
                places.push(Place { controller, layout, root: root.clone() });
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "31 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                       32 24 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n";
    const NEW: &str = "33 24 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn on_a_machine_with_both_layouts_each_controller_is_found_where_it_is() {
        let places = parse(&format!("{NEW}{OLD}"), |_| "hugetlb pids\n".to_owned());
        let place = |controller, layout, root: &str| Place { controller, layout, root: root.into() };
        assert_eq!(
            places,
            [
                place(Controller::Pids, Layout::Unified, "/sys/fs/cgroup/unified"),
                place(Controller::Cpu, Layout::PerController, "/sys/fs/cgroup/cpu,cpuacct"),
                place(Controller::Memory, Layout::PerController, "/sys/fs/cgroup/memory"),
            ]
        );
    }

    #[test]
    fn a_machine_without_control_groups_has_none() {
        assert!(parse("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", |_| String::new()).is_empty());
    }
}
