//! Who a dyno is: an unprivileged user in a user namespace that knows no other, without capabilities or a way to any.

use std::{fs, io, time::Duration};

use dozen_api::shim::Sandbox;
use rustix::{
    process::{Resource, Rlimit},
    thread::{CapabilitySet, CapabilitySets, Gid, Uid},
};

use super::etc::DYNO;

/// The turn that a dyno's processes ask for; the kernel's own choice is 3 ms. Chosen with `bench/neighbours`.
const TURN: Duration = Duration::from_micros(300);

/// Outside: maps the one user and group of the namespace of `pid` to `host_uid`, or to the caller.
pub(super) fn map(pid: i32, host_uid: Option<u32>) -> io::Result<()> {
    let uid = host_uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let gid = host_uid.unwrap_or_else(|| rustix::process::getegid().as_raw());
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/gid_map"), format!("{DYNO} {gid} 1\n"))?;
    fs::write(format!("/proc/{pid}/uid_map"), format!("{DYNO} {uid} 1\n"))
}

/// Inside, while still privileged: the limits that are counted by process and not by control group.
pub(super) fn limit(sandbox: &Sandbox, bound_processes: bool) -> io::Result<()> {
    let set = |resource: Resource, value: u64| {
        // Only root may raise a limit that it was given.
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let raised = Rlimit { current: Some(value), maximum: Some(value) };
        rustix::process::setrlimit(resource, raised).or_else(|_| {
            let value = Some(value.min(most));
            rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })
        })
    };
    set(Resource::Core, 0)?;
    set(Resource::Nofile, sandbox.open_files)?;
    if bound_processes {
        set(Resource::Nproc, sandbox.pids)?;
    }
    Ok(())
}

/// Inside: asks the kernel for short turns on the processor, for this process and what it starts. What is busy all the time
/// loses little by a few more switches; who was woken up for a request waits so much less until whoever is at it has had
/// its turn. Kernels before 6.12 know no turns of a process's own, and some refuse to be asked.
pub(super) fn take_short_turns() {
    /// `struct sched_attr` in its first form.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice: rustix::process::getpriority_process(None).unwrap_or(0),
        priority: 0,
        runtime: TURN.as_nanos() as u64,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the structure is of the size that it says.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// Inside, while still root of the machine: forgets root's supplementary groups.
pub(super) fn leave_groups() -> io::Result<()> {
    Ok(rustix::thread::set_thread_groups(&[])?)
}

/// Inside the mapped user namespace: becomes the dyno's user and gives up every capability for good.
pub(super) fn become_dyno() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: the call takes numbers alone.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                break; // past the last one that this kernel has
            }
            return Err(error);
        }
    }
    let (uid, gid) = (Uid::from_raw(DYNO), Gid::from_raw(DYNO));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Ties the calling process's life to its parent's, and hides its memory from other processes of the dyno. Must come
/// after the last change of identity, which undoes the first.
pub(super) fn tie_to_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
