//! What runs inside a dyno under test: each probe tries one thing and says how it went.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::FromRawFd,
    ptr::null,
};

/// Runs a probe: exit code 0 when it could do it, 1 with the error's name on standard output when not.
#[expect(clippy::print_stdout, reason = "the result is its output")]
pub(crate) fn run(what: &str, arguments: &[String]) -> i32 {
    match attempt(what, arguments) {
        Ok(()) => {
            println!("{what}: done");
            0
        }
        Err(error) => {
            println!("{what}: {error}");
            1
        }
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(clippy::print_stdout, reason = "the result is its output")]
fn attempt(what: &str, arguments: &[String]) -> io::Result<()> {
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    // SAFETY: plain system calls with numbers, NULL where that is allowed, and literals.
    unsafe {
        match what {
            "mount" => {
                check(libc::syscall(libc::SYS_mount, c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0))
            }
            "unshare-user" => check(libc::unshare(libc::CLONE_NEWUSER).into()),
            "clone-user" => {
                let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
                check(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0))
            }
            "clone3" => check(libc::syscall(libc::SYS_clone3, 0, 0)),
            "setns" => check(libc::setns(0, 0).into()),
            "ptrace" => check(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)),
            "keyctl" => check(libc::syscall(libc::SYS_keyctl, 0, 0)),
            "bpf" => check(libc::syscall(libc::SYS_bpf, 0, 0, 0)),
            "io-uring" => check(libc::syscall(libc::SYS_io_uring_setup, 1, null::<u8>())),
            "chroot" => check(libc::chroot(c"/tmp".as_ptr()).into()),
            "setuid-root" => check(libc::setuid(0).into()),
            "mknod" => check(libc::mknod(c"/tmp/disk".as_ptr(), libc::S_IFBLK | 0o666, libc::makedev(8, 0)).into()),
            "packet-socket" => check(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).into()),
            "raw-socket" => check(libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).into()),
            "alg-socket" => check(libc::socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0).into()),
            "route-socket" => check(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).into()),
            "thread" => std::thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::ErrorKind::Other.into()),
            "write" => std::fs::write(&arguments[0], "x"),
            "allocate" => {
                let memory = vec![1_u8; usize::try_from(number(0)).unwrap_or(0)];
                std::hint::black_box(&memory);
                Ok(())
            }
            "hold" => {
                let memory = vec![1_u8; usize::try_from(number(0)).unwrap_or(0)];
                std::hint::black_box(&memory);
                println!("holding");
                loop {
                    libc::pause();
                }
            }
            "hoard" => hoard(),
            "call" => check(libc::syscall(number(0), 0, 0, 0, 0, 0, 0)),
            "forks" => forks(),
            "health" => health(&arguments[0], number(1) as u16, number(2)),
            "listen" => listen(&arguments[0], number(1) as u16, number(2) == 1),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// Opens files until it may not, and says how often it could.
#[expect(clippy::print_stdout, reason = "the result is its output")]
fn hoard() -> io::Result<()> {
    let mut open = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        open.push(file);
    }
    println!("stopped at {}", open.len());
    Ok(())
}

/// Forks until it may not, and says how often it could.
#[expect(clippy::print_stdout, reason = "the result is its output")]
fn forks() -> io::Result<()> {
    for n in 0..100_000 {
        // SAFETY: the child only waits to be killed.
        match unsafe { libc::fork() } {
            -1 => {
                println!("stopped at {n}");
                return Ok(());
            }
            0 => loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            },
            _ => {}
        }
    }
    Err(io::ErrorKind::Other.into())
}

/// Answers this many HTTP requests with 503 and all later ones with 204; never ends.
fn health(address: &str, port: u16, sick: i64) -> io::Result<()> {
    let listener = TcpListener::bind((address, port))?;
    for n in 0_i64.. {
        let (mut stream, _) = listener.accept()?;
        let _ = io::Read::read(&mut stream, &mut [0; 1024]);
        let status = if n < sick { "503 Service Unavailable" } else { "204 No Content" };
        let _ = io::Write::write_all(&mut stream, format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
    }
    Ok(())
}

/// Listens on an address, IPv6 alone if so asked, says since when, greets whoever connects, and never ends.
#[expect(clippy::print_stdout, reason = "the result is its output")]
fn listen(address: &str, port: u16, only_v6: bool) -> io::Result<()> {
    let listener = if only_v6 {
        // SAFETY: a fresh socket, options and address of the right sizes.
        unsafe {
            let socket = libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0);
            check(socket.into())?;
            let one = 1_i32;
            let size = size_of::<i32>() as u32;
            check(
                libc::setsockopt(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, (&raw const one).cast(), size).into(),
            )?;
            let mut place: libc::sockaddr_in6 = std::mem::zeroed();
            place.sin6_family = libc::AF_INET6 as u16;
            place.sin6_port = port.to_be();
            check(libc::bind(socket, (&raw const place).cast(), size_of_val(&place) as u32).into())?;
            check(libc::listen(socket, 16).into())?;
            TcpListener::from_raw_fd(socket)
        }
    } else {
        TcpListener::bind((address.parse().unwrap_or(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port))?
    };
    println!("listening since {}", dozen_api::clock::now());
    loop {
        let (mut stream, _) = listener.accept()?;
        let _ = io::Write::write_all(&mut stream, b"hello from inside\n");
    }
}
