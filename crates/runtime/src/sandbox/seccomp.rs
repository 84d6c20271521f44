//! Which system calls a dyno may make: a list of those allowed, everything else refused with "operation not permitted".
//!
//! The list is in the spirit of the default profile of Docker: what ordinary programs need, nothing that makes
//! namespaces, mounts, traces other processes, loads code into the kernel or reaches rarely used parts of it. The BPF
//! program is a binary search over the ranges of allowed numbers, so it is about a fifth of a chain of comparisons,
//! which is what loading it costs and what each system call pays.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use libc::{c_long, sock_filter};

/// What the filter does with one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Allow,
    /// Refused with this error.
    Refuse(i32),
    /// `clone`: unless a new namespace is asked for.
    NoNamespace,
    /// `socket` and `socketpair`: local, internet, and netlink's routing family alone.
    Families,
    /// `personality`: only what changes nothing that matters.
    Personality,
    /// `ioctl`: unless it types into a terminal.
    NoTyping,
    /// Allowed once the shim has heard of it.
    Tell,
}

/// New namespaces of any kind, the time namespace apart (its flag is a signal number in `clone`).
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Allowed personalities: Linux, with short inode numbers, with the old version number, both, and "which is it".
const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

macro_rules! calls {
    ($($name:ident)*) => { [$(libc::$name),*] };
}

/// Allowed on every architecture.
const ALLOWED: &[c_long] = &calls! {
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range
    SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve
    SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir
    SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock
    SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_getcpu
    SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername
    SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrusage
    SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_get_mempolicy
    SYS_get_robust_list SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy
    SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioprio_get SYS_ioprio_set SYS_kill SYS_landlock_add_rule
    SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr
    SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_mbind SYS_membarrier SYS_memfd_create
    SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr
    SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_mseal SYS_msgctl
    SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at
    SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc
    SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64
    SYS_process_madvise SYS_process_mrelease SYS_pselect6 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat2
    SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo
    SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_getaffinity
    SYS_sched_getattr SYS_sched_getparam SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getscheduler
    SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setparam SYS_sched_setscheduler
    SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg
    SYS_sendto SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_set_mempolicy SYS_setpgid
    SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_set_robust_list SYS_setsid
    SYS_setsockopt SYS_set_tid_address SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown
    SYS_sigaltstack SYS_signalfd4 SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range
    SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime
    SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate
    SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
};

/// Calls that only this architecture has, or only here a name in `libc`.
#[cfg(target_arch = "x86_64")]
const OWN: &[c_long] = &calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fchmodat2 SYS_fork SYS_futimesat SYS_get_thread_area
    SYS_getdents SYS_getpgrp SYS_getrlimit SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_open
    SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_renameat SYS_rmdir SYS_select SYS_set_thread_area
    SYS_setrlimit SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(target_arch = "aarch64")]
const OWN: &[c_long] = &[
    libc::SYS_getrlimit,
    libc::SYS_renameat,
    libc::SYS_setrlimit,
    452, // fchmodat2 has this number on every architecture, and no name in `libc` here
];

/// Calls that depend on their arguments, or are refused in another way than the rest.
const SPECIAL: &[(c_long, Rule)] = &[
    (libc::SYS_clone, Rule::NoNamespace),
    // Its flags are behind a pointer, where a filter cannot look; told that it does not exist, libc uses clone.
    (libc::SYS_clone3, Rule::Refuse(libc::ENOSYS)),
    (libc::SYS_socket, Rule::Families),
    (libc::SYS_socketpair, Rule::Families),
    (libc::SYS_personality, Rule::Personality),
    (libc::SYS_ioctl, Rule::NoTyping),
    // Event loops try these and do without when they are told so.
    (libc::SYS_io_uring_setup, Rule::Refuse(libc::ENOSYS)),
    (libc::SYS_io_uring_enter, Rule::Refuse(libc::ENOSYS)),
    (libc::SYS_io_uring_register, Rule::Refuse(libc::ENOSYS)),
];

/// Calls from this number on are newer than this list: programs must hear that they do not exist.
const NEWER: c_long = 463;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// The rule of every number up to [`NEWER`], which stands for all from there on.
fn rules(tells: bool) -> Vec<Rule> {
    let mut rules = vec![Rule::Refuse(libc::EPERM); NEWER as usize];
    for call in ALLOWED.iter().chain(OWN) {
        rules[*call as usize] = Rule::Allow;
    }
    for (call, rule) in SPECIAL {
        rules[*call as usize] = *rule;
    }
    if tells {
        rules[libc::SYS_listen as usize] = Rule::Tell;
    }
    rules.push(Rule::Refuse(libc::ENOSYS));
    rules
}

// linux/bpf_common.h, linux/seccomp.h
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TELL: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF
const RET_KILL: u32 = 0x8000_0000;

fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Offset of the low half of an argument in `seccomp_data` (little-endian).
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

fn leaf(rule: Rule) -> Vec<sock_filter> {
    let allow = op(RETURN, RET_ALLOW, 0, 0);
    let refuse = |error: i32| op(RETURN, RET_ERRNO | error as u32, 0, 0);
    match rule {
        Rule::Allow => vec![allow],
        Rule::Tell => vec![op(RETURN, RET_TELL, 0, 0)],
        Rule::Refuse(error) => vec![refuse(error)],
        Rule::NoNamespace => {
            vec![op(LOAD, argument(0), 0, 0), op(ANY_BIT, NAMESPACES, 0, 1), refuse(libc::EPERM), allow]
        }
        Rule::Families => vec![
            op(LOAD, argument(0), 0, 0),
            op(EQUAL, libc::AF_UNIX as u32, 6, 0),
            op(EQUAL, libc::AF_INET as u32, 5, 0),
            op(EQUAL, libc::AF_INET6 as u32, 4, 0),
            op(EQUAL, libc::AF_NETLINK as u32, 0, 2),
            op(LOAD, argument(2), 0, 0),
            op(EQUAL, libc::NETLINK_ROUTE as u32, 1, 0),
            refuse(libc::EAFNOSUPPORT),
            allow,
        ],
        Rule::Personality => {
            let mut ops = vec![op(LOAD, argument(0), 0, 0)];
            let count = PERSONALITIES.len() as u8;
            ops.extend((0..).zip(PERSONALITIES).map(|(n, value)| op(EQUAL, value, count - n, 0)));
            ops.extend([refuse(libc::EPERM), allow]);
            ops
        }
        Rule::NoTyping => vec![
            op(LOAD, argument(1), 0, 0),
            op(EQUAL, libc::TIOCSTI as u32, 1, 0),
            op(EQUAL, libc::TIOCLINUX as u32, 0, 1),
            refuse(libc::EPERM),
            allow,
        ],
    }
}

/// Ranges of numbers with one rule, as (first number, rule), ascending from 0.
fn ranges(tells: bool) -> Vec<(u32, Rule)> {
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    for (call, rule) in (0..).zip(rules(tells)) {
        if ranges.last().is_none_or(|last| last.1 != rule) {
            ranges.push((call, rule));
        }
    }
    ranges
}

fn search(ranges: &[(u32, Rule)]) -> Vec<sock_filter> {
    let [one] = ranges else {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let (left, right) = (search(low), search(high));
        let mut ops = match u8::try_from(left.len()) {
            Ok(length) => vec![op(AT_LEAST, high[0].0, length, 0)],
            Err(_) => vec![op(AT_LEAST, high[0].0, 0, 1), op(JUMP, left.len() as u32, 0, 0)],
        };
        ops.extend(left);
        ops.extend(right);
        return ops;
    };
    leaf(one.1)
}

/// The filter's program; `tells` of `listen`.
fn program(tells: bool) -> Vec<sock_filter> {
    let mut ops = vec![
        op(LOAD, 4, 0, 0), // architecture
        op(EQUAL, ARCHITECTURE, 1, 0),
        op(RETURN, RET_KILL, 0, 0),
        op(LOAD, 0, 0, 0), // number
    ];
    // Numbers of the x32 ABI have bit 30 set: they are beyond the last range and do not exist here.
    ops.extend(search(&ranges(tells)));
    ops
}

/// Puts the calling process and all its descendants under the filter. `no_new_privs` must be set.
pub(super) fn install() -> io::Result<()> {
    set_filter(&mut program(false), 0).map(drop)
}

/// The same, and returns what tells of each `listen`, which waits for an answer ([`crate::shim`]'s watch gives it).
///
/// # Errors
/// On kernels before 5.5, or when something outside listens to this process already; then nothing was installed.
pub(super) fn install_telling() -> io::Result<OwnedFd> {
    const NEW_LISTENER: u32 = 8; // SECCOMP_FILTER_FLAG_NEW_LISTENER
    let listener = set_filter(&mut program(true), NEW_LISTENER)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn set_filter(ops: &mut [sock_filter], flags: u32) -> io::Result<i32> {
    let program = libc::sock_fprog { len: ops.len() as u16, filter: ops.as_mut_ptr() };
    let set_mode_filter = 1; // SECCOMP_SET_MODE_FILTER
    // SAFETY: the program and what it points to live until the call returns, and the kernel copies them.
    match unsafe { libc::syscall(libc::SYS_seccomp, set_mode_filter, flags, &raw const program) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ops: &[sock_filter], architecture: u32, call: u32, arguments: [u32; 3]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let op = ops[at];
            at += 1;
            match op.code {
                LOAD if op.k == 0 => value = call,
                LOAD if op.k == 4 => value = architecture,
                LOAD => value = arguments[((op.k - 16) / 8) as usize],
                JUMP => at += op.k as usize,
                RETURN => return op.k,
                _ => {
                    let met = match op.code {
                        EQUAL => value == op.k,
                        AT_LEAST => value >= op.k,
                        ANY_BIT => value & op.k != 0,
                        other => panic!("unknown instruction {other:#x}"),
                    };
                    at += usize::from(if met { op.jt } else { op.jf });
                }
            }
        }
    }

    fn verdict(call: c_long, arguments: [u32; 3]) -> u32 {
        run(&program(false), ARCHITECTURE, u32::try_from(call).expect("a small number"), arguments)
    }

    const REFUSED: u32 = RET_ERRNO | libc::EPERM as u32;

    #[test]
    fn every_number_meets_its_rule() {
        let ops = program(false);
        let rules = rules(false);
        for call in 0..600 {
            let expected = match rules[call.min(NEWER) as usize] {
                Rule::Refuse(error) => RET_ERRNO | error as u32,
                _ => RET_ALLOW,
            };
            // Arguments that every conditional rule lets pass: family AF_UNIX, no flags, personality 0x8.
            let arguments = if call == libc::SYS_personality { [8, 0, 0] } else { [1, 0, 0] };
            assert_eq!(run(&ops, ARCHITECTURE, call as u32, arguments), expected, "system call {call}");
        }
        assert_eq!(run(&ops, ARCHITECTURE, 0x4000_0000 | 59, [0; 3]), RET_ERRNO | libc::ENOSYS as u32);
    }

    #[test]
    fn of_listening_alone_the_shim_is_told() {
        let told = |call: c_long| run(&program(true), ARCHITECTURE, call as u32, [1, 0, 0]) == RET_TELL;
        assert_eq!((0..600).filter(|call| told(*call)).collect::<Vec<_>>(), [libc::SYS_listen]);
    }

    #[test]
    fn another_architecture_is_killed() {
        assert_eq!(run(&program(false), 0x4000_0003, 1, [0; 3]), RET_KILL);
    }

    #[test]
    fn what_leads_out_of_a_container_is_refused() {
        let calls = calls! {
            SYS_mount SYS_umount2 SYS_unshare SYS_setns SYS_ptrace SYS_keyctl SYS_add_key SYS_request_key SYS_bpf
            SYS_perf_event_open SYS_userfaultfd SYS_open_by_handle_at SYS_kexec_load SYS_init_module SYS_finit_module
            SYS_delete_module SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_pivot_root SYS_chroot
            SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_mount_setattr SYS_reboot SYS_swapon
            SYS_settimeofday SYS_clock_settime SYS_syslog SYS_acct SYS_quotactl SYS_sethostname SYS_kcmp
            SYS_lookup_dcookie SYS_fanotify_init SYS_vhangup
        };
        for call in calls {
            assert_eq!(verdict(call, [0; 3]), REFUSED, "system call {call}");
        }
    }

    #[test]
    fn clone_may_make_threads_but_not_namespaces() {
        assert_eq!(verdict(libc::SYS_clone, [libc::CLONE_VM as u32 | libc::CLONE_THREAD as u32, 0, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_clone, [libc::CLONE_NEWUSER as u32 | libc::SIGCHLD as u32, 0, 0]), REFUSED);
        assert_eq!(verdict(libc::SYS_clone3, [0; 3]), RET_ERRNO | libc::ENOSYS as u32);
    }

    #[test]
    fn sockets_are_local_or_internet_or_routing() {
        let socket = |family: i32, protocol: i32| verdict(libc::SYS_socket, [family as u32, 0, protocol as u32]);
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(socket(family, 6), RET_ALLOW);
        }
        assert_eq!(socket(libc::AF_NETLINK, libc::NETLINK_ROUTE), RET_ALLOW);
        for (family, protocol) in [(libc::AF_NETLINK, 9), (libc::AF_ALG, 0), (libc::AF_PACKET, 0), (libc::AF_VSOCK, 0)]
        {
            assert_eq!(socket(family, protocol), RET_ERRNO | libc::EAFNOSUPPORT as u32, "family {family}");
        }
    }

    #[test]
    fn nothing_types_into_a_terminal() {
        assert_eq!(verdict(libc::SYS_ioctl, [0, libc::TIOCSTI as u32, 0]), REFUSED);
        assert_eq!(verdict(libc::SYS_ioctl, [0, libc::TIOCGWINSZ as u32, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_personality, [0x0004_0000, 0, 0]), REFUSED); // without address randomisation
    }

    #[test]
    fn the_program_is_short() {
        assert!(program(true).len() < 400, "{} instructions", program(true).len());
    }
}
