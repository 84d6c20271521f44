//! The shim's life after the start: one loop over everything that can happen to a dyno or be asked of it.
//!
//! Nothing here waits for anything but the loop's poll. The command's end is the dyno's and is told at once; what is
//! left of its container goes a moment later. The supervisor stays until control has recorded the exit and the output is
//! stored, so that neither is lost when their readers are away.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dozen_api::{
    clock,
    shim::{Command, Event, Lost, Spec},
};
use dozen_domain::{dyno::Exit, ids::AppId, name::DynoName};
use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, c_short, pollfd};

use super::{
    EXIT, HOLD_OUTPUT, RECORD,
    attendance::{Attendance, Due},
    cleanup::Leavings,
    connection::{Connection, Incoming, Source},
    memory,
    ring::Ring,
    watch::{Listens, Watch},
    write_atomically,
};
use crate::{cgroup::MemoryWatch, sandbox::Container};

/// How often the shim looks whether its directory is still there (a platform that was deleted has no dynos), and gives
/// back what serving events has taken since.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// The first time, to give back what the start has taken.
const SETTLE: Duration = Duration::from_secs(1);
/// Most bytes taken from the dyno in one go.
const READ: usize = 64 << 10;
/// Most connections at once; control, logs and a few clients need a handful.
const CONNECTIONS: usize = 64;
/// The kernel tells of an out-of-memory state a moment before it counts the kill.
const COUNT_AFTER: Duration = Duration::from_millis(20);

/// Bytes on their way to the dyno's standard input.
struct Input {
    descriptor: OwnedFd,
    waiting: Vec<u8>,
    ending: bool,
}

/// A dyno under supervision.
pub(super) struct Supervisor {
    directory: PathBuf,
    listener: UnixListener,
    connections: Vec<Connection>,
    events: Vec<Event>,
    ring: Ring,
    logged: bool,
    /// Stored output is held for later readers.
    holds: bool,
    hold: Duration,
    linger: Duration,
    leavings: Leavings,
    /// It has ended, and what it left is still to be removed.
    litters: bool,
    app: AppId,
    name: DynoName,

    pid: i32,
    /// To its init until that was reaped, and with it every process of the dyno.
    pidfd: Option<OwnedFd>,
    /// Tells the command's end, as long as that is awaited before the init's.
    status: Option<OwnedFd>,
    output: Option<OwnedFd>,
    input: Option<Input>,
    memory: Option<MemoryWatch>,
    kills: u64,
    out_of_memory: bool,

    watch: Option<Watch>,
    listens: Option<Listens>,
    look: Option<Instant>,
    /// When what is looked for may have begun.
    looks_since: Instant,
    attendance: Option<Attendance>,
    /// To the dyno's init, which takes processes in.
    entrance: Option<OwnedFd>,
    boot_until: Option<Instant>,
    stop_until: Option<Instant>,
    count: Option<Instant>,
    look_around: Instant,

    ended: Option<Instant>,
    output_ended: Option<clock::Micros>,
    stored_last: Instant,
    full_since: Option<Instant>, // when the backlog was full first since something of it was stored
    cleaner: Option<OwnedFd>,
    forgotten: bool,
}

impl Supervisor {
    /// Takes a dyno over.
    pub(super) fn new(
        directory: &Path,
        spec: &Spec,
        container: Container,
        ring: Ring,
        listener: UnixListener,
    ) -> io::Result<Self> {
        let Container { pid, pidfd, status, output, input, entrance, diagnostics, listens, disk, cgroup } = container;
        let now = Instant::now();
        let input = match (input, spec.terminal) {
            (None, Some(_)) if spec.client.is_some() => Some(output.try_clone()?),
            (input, _) => input,
        };
        for descriptor in [Some(&output), Some(&status), input.as_ref()].into_iter().flatten() {
            rustix::io::ioctl_fionbio(descriptor, true)?;
        }
        let watch = spec.port.map(|port| Watch::new(port, pid, &spec.sandbox, diagnostics));
        let listens = listens.map(Listens::new);
        let boot = Duration::from_millis(spec.boot_ms);
        let leavings = Leavings::new(spec, cgroup, disk);
        Ok(Self {
            directory: directory.to_owned(),
            listener,
            connections: Vec::new(),
            events: vec![Event::Started { at: clock::now(), pid }],
            ring,
            logged: spec.record.logged,
            holds: spec.record.engine.contains_key(HOLD_OUTPUT),
            hold: Duration::from_millis(spec.hold_ms),
            linger: Duration::from_millis(spec.linger_ms),
            app: spec.record.app,
            name: spec.record.name.clone(),
            memory: leavings.cgroup().and_then(|cgroup| cgroup.watch_memory().ok().flatten()),
            leavings,
            litters: false,
            pid,
            pidfd: Some(pidfd),
            status: Some(status),
            output: Some(output),
            input: input.map(|descriptor| Input { descriptor, waiting: Vec::new(), ending: false }),
            kills: 0,
            out_of_memory: false,
            // Who is told needs not look before.
            look: watch.as_ref().filter(|_| listens.is_none()).map(|_| now),
            listens,
            looks_since: now,
            attendance: spec.client.map(|client| Attendance::new(client, now)),
            entrance: Some(entrance),
            boot_until: watch.as_ref().filter(|_| spec.boot_ms > 0).and_then(|_| now.checked_add(boot)),
            watch,
            stop_until: None,
            count: None,
            look_around: now + SETTLE,
            ended: None,
            output_ended: None,
            stored_last: now,
            full_since: None,
            cleaner: None,
            forgotten: false,
        })
    }

    /// The first event.
    pub(super) fn started(&self) -> Event {
        self.events[0].clone()
    }

    /// Supervises to the end and removes the dyno's directory.
    pub(super) fn run(mut self) {
        let mut polled = Vec::new();
        while !self.is_finished() {
            self.step(&mut polled);
        }
        self.leave_word();
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// Leaves word of output that was never stored, for the logs role to tell. Where that fails the platform's directory
    /// is gone, and with it everyone who could be told.
    fn leave_word(&self) {
        let (stored, end) = (self.ring.stored(), self.ring.end());
        let path = self.directory.with_extension(Lost::EXTENSION);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return;
        };
        if self.logged && stored < end {
            let since = self.ring.piece(stored, 1).map_or_else(clock::now, |first| first.at);
            let lost = Lost { app: self.app, name: self.name.clone(), bytes: end - stored, since };
            if let Ok(text) = serde_json::to_vec(&lost) {
                let _ = write_atomically(parent, name, &text);
            }
        }
    }

    fn is_finished(&self) -> bool {
        let Some(ended) = self.ended else { return false };
        if self.pidfd.is_some() || !self.forgotten || self.litters || self.cleaner.is_some() {
            return false;
        }
        let end = self.ring.end();
        let waited = self.stored_last.max(ended).elapsed() >= self.linger;
        if self.logged && (self.ring.stored() < end || self.output_ended.is_none()) {
            return waited && !self.connections.iter().any(Connection::stores);
        }
        waited || !self.connections.iter().any(|reader| reader.is_behind(end))
    }

    fn step(&mut self, polled: &mut Vec<pollfd>) {
        const FIXED: usize = 8;
        self.prepare(polled);
        let timeout = self.timeout();
        // SAFETY: the array is that long; the descriptors in it are open or -1.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
        if ready < 0 {
            polled.iter_mut().for_each(|entry| entry.revents = 0);
        }
        let happened = |n: usize| polled[n].revents;
        if happened(1) != 0 {
            self.read_output();
        }
        if happened(7) != 0 {
            self.command_ended();
        }
        if happened(2) != 0 {
            self.container_ended();
        }
        if happened(3) != 0 {
            self.write_input();
        }
        if happened(4) != 0 {
            self.memory_ran_out();
        }
        if happened(5) != 0 {
            self.cleaned();
        }
        if happened(6) != 0 {
            self.listening(happened(6));
        }
        for (n, entry) in polled[FIXED..].iter().enumerate() {
            self.serve(n, entry.revents);
        }
        self.note_end_of_output();
        self.keep_time();
        let source = Source { ring: &self.ring, events: &self.events, ended: self.output_ended };
        let mut heard = false;
        for connection in &mut self.connections {
            heard |= connection.send(&source) && connection.is_client();
        }
        // After everybody was told of the end.
        if std::mem::take(&mut self.litters) {
            self.cleaner = self.leavings.remove().ok();
        }
        let stores = self.connections.iter().any(Connection::stores);
        self.connections.retain(Connection::is_open);
        self.note_client(heard);
        if stores {
            self.stored_last = Instant::now();
        }
        if self.logged && self.ring.free() == 0 {
            self.full_since.get_or_insert_with(Instant::now);
        }
        if happened(0) != 0 {
            self.accept();
        }
    }

    fn prepare(&self, polled: &mut Vec<pollfd>) {
        let entry = |descriptor: Option<&OwnedFd>, events: c_short| pollfd {
            fd: descriptor.map_or(-1, AsRawFd::as_raw_fd),
            events,
            revents: 0,
        };
        let reads = self.output.as_ref().filter(|_| self.ring.free() > 0 || self.keep_from() > self.ring.start());
        let writes = self.input.as_ref().filter(|input| !input.waiting.is_empty() || input.ending);
        let input_has_room = self.input.as_ref().is_none_or(|input| input.waiting.is_empty());
        // Who is to find what the dyno leaves behind is told when nothing of it can write any more.
        let early = self.status.as_ref().filter(|_| !self.leavings.keeps_scratch());
        let exceptional = self.memory.as_ref().is_some_and(|watch| watch.exceptional);
        let memory_events = if exceptional { POLLPRI } else { POLLIN };
        polled.clear();
        polled.extend([
            pollfd { fd: self.listener.as_raw_fd(), events: POLLIN, revents: 0 },
            entry(reads, POLLIN),
            entry(self.pidfd.as_ref(), POLLIN),
            entry(writes.map(|input| &input.descriptor), POLLOUT),
            entry(self.memory.as_ref().map(|watch| &watch.descriptor), memory_events),
            entry(self.cleaner.as_ref(), POLLIN),
            entry(self.listens.as_ref().map(Listens::descriptor), POLLIN),
            entry(early, POLLIN),
        ]);
        polled.extend(self.connections.iter().map(|connection| {
            let reads = if connection.wants_to_read(input_has_room) { POLLIN } else { 0 };
            let writes = if connection.wants_to_write() { POLLOUT } else { 0 };
            pollfd { fd: connection.descriptor().as_raw_fd(), events: reads | writes, revents: 0 }
        }));
    }

    /// Milliseconds until the next thing that is due.
    fn timeout(&self) -> i32 {
        // What has passed is waited for no more: from then on an event makes the difference.
        let ahead = |until: &Instant| *until > Instant::now();
        let lingers = self.ended.filter(|_| self.forgotten).map(|ended| self.stored_last.max(ended) + self.linger);
        let lingers = lingers.filter(ahead);
        let client = self.attendance.as_ref().and_then(Attendance::due);
        let held = self.full_since.and_then(|since| since.checked_add(self.hold)).filter(ahead);
        let look = Some(self.look_around);
        let due = [self.look, self.boot_until, self.stop_until, self.count, client, lingers, held, look];
        let next = due.into_iter().flatten().min().unwrap_or(self.look_around);
        let wait = next.saturating_duration_since(Instant::now());
        i32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX)
    }

    fn happened(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Acts on everything whose time has come.
    fn keep_time(&mut self) {
        let now = Instant::now();
        let due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if due(self.look)
            && let Some(watch) = &mut self.watch
        {
            match watch.look() {
                Some(addresses) => {
                    (self.watch, self.look, self.boot_until) = (None, None, None);
                    self.happened(Event::Bound { at: clock::now(), addresses });
                }
                None => self.look = Some(now + Watch::pause(now - self.looks_since, self.listens.is_some())),
            }
        }
        if due(self.boot_until) {
            (self.watch, self.look, self.boot_until) = (None, None, None);
            self.happened(Event::BootTimeout { at: clock::now() });
            self.signal(libc::SIGKILL);
        }
        if due(self.stop_until) {
            self.stop_until = None;
            self.happened(Event::StopTimeout { at: clock::now() });
            self.signal(libc::SIGKILL);
        }
        if due(self.count) {
            self.count = None;
            self.count_kills();
        }
        while let Some(due) = self.attendance.as_mut().and_then(|attendance| attendance.take(now)) {
            self.client_due(due);
        }
        if self.look_around <= now {
            self.look_around = now + LOOK_AROUND;
            memory::release();
            if matches!(self.directory.join(RECORD).try_exists(), Ok(false)) {
                self.forgotten = true;
                self.linger = Duration::ZERO;
                self.signal(libc::SIGKILL);
            }
        }
    }

    /// Notes whether the client is still there, and whether anything was said.
    fn note_client(&mut self, heard: bool) {
        let there = self.connections.iter().any(Connection::is_client);
        if let Some(attendance) = self.attendance.as_mut().filter(|attendance| attendance.is_attached()) {
            match (there, heard) {
                (false, _) if self.ended.is_none() => attendance.gone(Instant::now()),
                (true, true) => attendance.heard(Instant::now()),
                _ => {}
            }
        }
    }

    fn client_due(&mut self, due: Due) {
        let at = clock::now();
        match due {
            Due::NobodyCame => {
                self.happened(Event::NotAttached { at });
                let grace = self.attendance.as_ref().map_or(0, Attendance::grace_ms);
                self.stop(libc::SIGTERM, grace);
            }
            Due::Idle => self.connections.iter_mut().filter(|one| one.is_client()).for_each(Connection::close),
            Due::HangUp(attempt) => {
                self.happened(Event::HungUp { at, attempt });
                self.signal(libc::SIGHUP);
            }
            Due::Detached => self.happened(Event::Detached { at }),
        }
    }

    /// Signals every process of the dyno: its init passes the signal on, and its death is everyone's.
    fn signal(&self, signal: i32) {
        let Some(pidfd) = self.pidfd.as_ref().filter(|_| self.ended.is_none()) else { return };
        if !(1..=64).contains(&signal) || signal == libc::SIGCHLD || signal == libc::SIGSTOP {
            return;
        }
        let nothing: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: the descriptor is open and no information goes along.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, nothing, 0) };
    }

    /// Offset of the first byte that must not be dropped. A log that is being stored slows the dyno down to the speed at
    /// which that goes; one that is not, because the logs role is away or stuck, holds it up once, for as long as that
    /// role takes to come back when all is well. A client or a build reads everything or makes it wait.
    fn keep_from(&self) -> u64 {
        if self.logged {
            let goes_on = self.full_since.is_none_or(|since| since.elapsed() < self.hold);
            return if goes_on { self.ring.stored() } else { u64::MAX };
        }
        if self.attendance.as_ref().is_some_and(Attendance::is_awaited) {
            return 0;
        }
        self.connections.iter().filter_map(Connection::position).min().unwrap_or(u64::MAX)
    }

    /// Takes what the dyno has printed, as far as there is room; says whether anything came.
    fn read_output(&mut self) -> bool {
        let mut any = false;
        for _ in 0..8 {
            let Some(output) = &self.output else { return any };
            if self.ring.free() < READ.min(self.ring.capacity()) {
                let waiting = usize::try_from(rustix::io::ioctl_fionread(output).unwrap_or(0)).unwrap_or(READ);
                let keep_from = self.keep_from();
                self.ring.make_room(waiting, keep_from);
                if waiting > 0 && self.ring.free() == 0 {
                    return any;
                }
            }
            // With nothing waiting this is the end, or a byte that has come just now and needs room next time.
            let room = self.ring.room();
            if room.is_empty() {
                return any | self.read_one();
            }
            match rustix::io::read(output, room) {
                Ok(length) if length > 0 => {
                    self.ring.filled(length, clock::now());
                    any = true;
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return any,
                // The end; a terminal without a process behind it says EIO.
                Ok(_) | Err(_) => self.output = None,
            }
        }
        any
    }

    /// Reads when the backlog is full: one byte, for which room is made if there is one.
    fn read_one(&mut self) -> bool {
        let (Some(output), keep_from) = (&self.output, self.keep_from()) else { return false };
        if keep_from <= self.ring.start() {
            return false;
        }
        let mut byte = [0; 1];
        match rustix::io::read(output, &mut byte) {
            Ok(1) => {
                self.ring.make_room(1, keep_from);
                self.ring.room()[..1].copy_from_slice(&byte);
                self.ring.filled(1, clock::now());
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Ok(_) | Err(_) => {
                self.output = None;
                false
            }
        }
    }

    /// The command has ended, or the init without a word of it.
    fn command_ended(&mut self) {
        if let Some(status) = self.read_status() {
            self.dyno_ended(status);
        }
    }

    /// Nothing of the dyno runs any more.
    fn container_ended(&mut self) {
        let mut own = 0;
        // SAFETY: the status is a valid place; the child is ours.
        unsafe { libc::waitpid(self.pid, &raw mut own, 0) };
        self.pidfd = None;
        if self.ended.is_none() {
            let status = self.read_status().unwrap_or(own); // killed before it could tell
            self.dyno_ended(status);
        }
        self.litters = true;
    }

    /// The command's wait status, if the init has told it. There is no second time.
    fn read_status(&mut self) -> Option<i32> {
        let mut told = [0; 4];
        let length = rustix::io::read(self.status.take()?, &mut told);
        (length == Ok(told.len())).then(|| i32::from_ne_bytes(told))
    }

    fn dyno_ended(&mut self, status: i32) {
        let exit = match libc::WIFSIGNALED(status) {
            true => Exit::Signal(libc::WTERMSIG(status)),
            false => Exit::Code(libc::WEXITSTATUS(status)),
        };
        while self.read_output() {}
        self.count_kills();
        let event = Event::Exited { at: clock::now(), exit };
        if let Ok(text) = serde_json::to_vec(&event) {
            let _ = write_atomically(&self.directory, EXIT, &text);
        }
        self.happened(event);
        let now = Instant::now();
        self.ended = Some(now);
        self.stored_last = now;
        (self.watch, self.look, self.boot_until, self.stop_until) = (None, None, None, None);
        self.input = None;
        self.entrance = None;
        if let Some(attendance) = &mut self.attendance {
            attendance.ended();
        }
        self.memory = None;
        self.note_end_of_output();
    }

    fn note_end_of_output(&mut self) {
        if self.ended.is_some() && self.output.is_none() && self.output_ended.is_none() {
            self.output_ended = Some(clock::now());
        }
    }

    /// The dyno is about to listen, somewhere. It goes on at once; a moment later the kernel knows of its socket.
    fn listening(&mut self, happened: c_short) {
        match self.listens.as_ref().filter(|_| happened & POLLIN != 0) {
            Some(listens) => listens.answer(),
            None => self.listens = None, // no process is left that could listen
        }
        if self.watch.is_some() {
            self.looks_since = Instant::now();
            self.look = Some(self.looks_since);
        }
    }

    fn memory_ran_out(&mut self) {
        if let Some(watch) = &self.memory {
            watch.rearm();
        }
        self.count = Some(Instant::now() + COUNT_AFTER);
    }

    fn count_kills(&mut self) {
        let kills = self.leavings.cgroup().map_or(0, |cgroup| cgroup.out_of_memory_kills());
        if kills > self.kills && !self.out_of_memory {
            self.out_of_memory = true;
            self.happened(Event::OutOfMemory { at: clock::now() });
            // The kernel has killed one process, whichever; what is left of the dyno is not what was started.
            self.signal(libc::SIGKILL);
        }
        self.kills = kills;
    }

    fn cleaned(&mut self) {
        self.cleaner = None;
        let mut status = 0;
        // SAFETY: the status is a valid place. Only the cleaner can be waiting to be reaped.
        unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() < CONNECTIONS
                && let Ok(connection) = Connection::new(stream)
            {
                self.connections.push(connection);
            }
        }
    }

    fn serve(&mut self, n: usize, happened: c_short) {
        if happened == 0 {
            return;
        }
        let mut incoming = Vec::new();
        let input_has_room = self.input.as_ref().is_none_or(|input| input.waiting.is_empty());
        let Some(connection) = self.connections.get_mut(n) else { return };
        if connection.wants_to_read(input_has_room) {
            if happened & (POLLIN | POLLHUP | POLLERR) != 0 {
                connection.receive(happened & POLLHUP != 0, |item| incoming.push(item));
            }
        } else if happened & (POLLHUP | POLLERR) != 0 {
            connection.close();
        }
        for item in incoming {
            match item {
                Incoming::Command(Command::Stop { signal, grace_ms }) => self.stop(signal, grace_ms),
                Incoming::Command(Command::Signal(signal)) => self.signal(signal),
                Incoming::Command(Command::Forget) => self.forgotten = true,
                Incoming::Attach => {
                    let now = Instant::now();
                    let admitted = self.attendance.as_mut().is_some_and(|attendance| attendance.admit(now));
                    if let Some(connection) = self.connections.get_mut(n) {
                        connection.answer(admitted);
                    }
                }
                Incoming::Enter => return self.let_in(n),
                Incoming::Stored(offset) => {
                    self.full_since = None;
                    if self.holds { self.ring.store_and_hold(offset) } else { self.ring.store(offset) }
                }
                Incoming::Input(bytes) => {
                    self.note_client(true);
                    if let Some(input) = &mut self.input {
                        if input.waiting.is_empty() {
                            input.waiting = bytes;
                        } else {
                            input.waiting.extend_from_slice(&bytes);
                        }
                    }
                    self.write_input();
                }
                Incoming::InputEnd => {
                    if let Some(input) = &mut self.input {
                        input.ending = true;
                    }
                    self.write_input();
                }
            }
        }
    }

    /// Hands a connection over to the dyno's init; if that is gone, or has too many, the connection just ends. The
    /// others keep their places until the loop has seen to all of them.
    fn let_in(&mut self, n: usize) {
        if let (Some(connection), Some(entrance)) = (self.connections.get_mut(n), &self.entrance) {
            let _ = crate::sandbox::let_in(entrance, connection.descriptor());
            connection.close();
        }
    }

    fn stop(&mut self, signal: i32, grace_ms: u64) {
        if self.ended.is_some() {
            return;
        }
        self.signal(signal);
        let until = Instant::now().checked_add(Duration::from_millis(grace_ms));
        self.stop_until = [self.stop_until, until].into_iter().flatten().min();
        // A dyno on its way out is not one that failed to boot.
        (self.watch, self.look, self.boot_until) = (None, None, None);
        if !self.events.iter().any(|event| matches!(event, Event::Stopping { .. })) {
            self.happened(Event::Stopping { at: clock::now() });
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        let mut written = 0;
        while written < input.waiting.len() {
            match rustix::io::write(input.descriptor.as_fd(), &input.waiting[written..]) {
                Ok(length) => written += length,
                Err(rustix::io::Errno::AGAIN) => {
                    input.waiting.drain(..written);
                    return;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.input = None; // the dyno has closed it
                    return;
                }
            }
        }
        input.waiting = Vec::new();
        if input.ending {
            self.input = None;
        }
    }
}
