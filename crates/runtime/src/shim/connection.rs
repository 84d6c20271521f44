//! One connection to a shim: bytes in and out without ever waiting, in bounded memory.
//!
//! What is sent is made from the shim's own state (its events, its backlog) only when what was made before has gone,
//! so a slow reader costs one buffer and nothing more.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use dozen_api::{
    clock::Micros,
    frame,
    shim::{Command, Event, Hello, Output},
};
use serde::de::DeserializeOwned;

use super::ring::Ring;

/// Longest frame that a shim is sent; commands are tiny.
const FRAME: usize = 64 << 10;
/// Most bytes of output that are made ready at once.
const BATCH: usize = 64 << 10;
/// Most bytes that are read at once.
const READ: usize = 4 << 10;
/// The same of a client's input, which comes in bulk.
const READ_INPUT: usize = 64 << 10;

/// What a connection is for.
enum Role {
    /// The first frame has not come yet.
    New,
    /// Commands and events.
    Control,
    /// Output in frames.
    Output { at: u64, ack: bool, ended: bool },
    /// Output and standard input as they are.
    Attach { at: u64, ended: bool },
}

/// What came in on a connection.
pub(super) enum Incoming {
    /// A command.
    Command(Command),
    /// Output is stored up to here.
    Stored(u64),
    /// A client wants to attach; [`Connection::answer`] is owed.
    Attach,
    /// What follows is for a process inside, which is to be given the connection.
    Enter,
    /// Bytes for the standard input.
    Input(Vec<u8>),
    /// The other side will send no more input.
    InputEnd,
}

/// A connection.
pub(super) struct Connection {
    stream: UnixStream,
    role: Role,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    events_sent: usize,
    reads: bool,
    open: bool,
}

/// What connections send from.
pub(super) struct Source<'a> {
    /// The backlog.
    pub(super) ring: &'a Ring,
    /// Everything that happened.
    pub(super) events: &'a [Event],
    /// No more output will come; since when.
    pub(super) ended: Option<Micros>,
}

impl Connection {
    /// Takes an accepted connection.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            role: Role::New,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            events_sent: 0,
            reads: true,
            open: true,
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether the other side is still there.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether there is something that did not fit into the socket.
    pub(super) fn wants_to_write(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Whether it may send something.
    pub(super) fn wants_to_read(&self, input_has_room: bool) -> bool {
        self.reads && (input_has_room || !matches!(self.role, Role::Attach { .. }))
    }

    /// Says whether this is the reader that stores output.
    pub(super) fn stores(&self) -> bool {
        self.open && matches!(self.role, Role::Output { ack: true, .. })
    }

    /// Up to where this reader has taken output; `None` if it is none.
    pub(super) fn position(&self) -> Option<u64> {
        match self.role {
            Role::Output { at, .. } | Role::Attach { at, .. } if self.open => Some(at),
            _ => None,
        }
    }

    /// Whether this reader has not had everything up to `end` yet.
    pub(super) fn is_behind(&self, end: u64) -> bool {
        let ended = matches!(self.role, Role::Output { ended: true, .. } | Role::Attach { ended: true, .. });
        self.position().is_some_and(|at| at < end || !ended || self.wants_to_write())
    }

    /// Whether a client is attached by it.
    pub(super) fn is_client(&self) -> bool {
        self.open && matches!(self.role, Role::Attach { .. })
    }

    /// Says whether a client may attach; if not, that is all it is told.
    pub(super) fn answer(&mut self, admitted: bool) {
        let answer = frame::encode(&admitted).unwrap_or_default();
        // The first bytes on a connection always fit.
        let sent = self.stream.write_all(&answer);
        if sent.is_err() || !admitted {
            self.close();
        }
    }

    /// Gives up.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Reads what is there and hands it over piece by piece; `gone` says that the other side is not there any more.
    pub(super) fn receive(&mut self, gone: bool, mut take: impl FnMut(Incoming)) {
        let mut buffer = vec![0; if matches!(self.role, Role::Attach { .. }) { READ_INPUT } else { READ }];
        let length = match self.stream.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => return self.close(),
        };
        if length == 0 {
            self.reads = false;
            match self.role {
                // An attached client that has no more input may still read. One that is gone may come back.
                Role::Attach { .. } if !gone => take(Incoming::InputEnd),
                _ => self.close(),
            }
            return;
        }
        buffer.truncate(length);
        if self.incoming.is_empty() {
            self.incoming = buffer;
        } else {
            self.incoming.append(&mut buffer);
        }
        while self.open && self.next(&mut take) {}
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
    }

    /// Handles one frame, or an attached client's bytes; says whether there may be more.
    fn next(&mut self, take: &mut impl FnMut(Incoming)) -> bool {
        if let Role::Attach { .. } = self.role {
            if !self.incoming.is_empty() {
                take(Incoming::Input(std::mem::take(&mut self.incoming)));
            }
            return false;
        }
        let Some(length) = self.incoming.first_chunk().map(|head| u32::from_le_bytes(*head) as usize) else {
            return false;
        };
        if length > FRAME {
            self.close();
            return false;
        }
        if self.incoming.len() < 4 + length {
            return false;
        }
        let rest = self.incoming.split_off(4 + length);
        let frame = std::mem::replace(&mut self.incoming, rest);
        let understood = match self.role {
            Role::New => parse(&frame[4..]).map(|hello| {
                self.role = match hello {
                    Hello::Control => Role::Control,
                    Hello::Output { from, ack } => Role::Output { at: from, ack, ended: false },
                    Hello::Attach => {
                        take(Incoming::Attach);
                        Role::Attach { at: 0, ended: false }
                    }
                    Hello::Enter => {
                        take(Incoming::Enter);
                        Role::New
                    }
                };
            }),
            Role::Control => parse(&frame[4..]).map(|command| take(Incoming::Command(command))),
            Role::Output { ack: true, .. } => parse(&frame[4..]).map(|offset| take(Incoming::Stored(offset))),
            Role::Output { .. } | Role::Attach { .. } => None,
        };
        if understood.is_none() {
            self.close();
        }
        understood.is_some()
    }

    /// Sends as much as the socket takes; says whether that was anything.
    pub(super) fn send(&mut self, source: &Source<'_>) -> bool {
        let mut any = false;
        while self.open {
            if !self.wants_to_write() {
                self.outgoing.clear();
                self.sent = 0;
                self.fill(source);
                if self.outgoing.is_empty() {
                    self.outgoing = Vec::new();
                    if matches!(self.role, Role::Attach { ended: true, .. }) {
                        self.close();
                    }
                    return any;
                }
            }
            match self.stream.write(&self.outgoing[self.sent..]) {
                Ok(0) => self.close(),
                Ok(length) => {
                    self.sent += length;
                    any = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.close(),
            }
        }
        any
    }

    /// Makes the next bytes to send, if there are any.
    fn fill(&mut self, source: &Source<'_>) {
        match &mut self.role {
            Role::New => {}
            Role::Control => {
                for event in source.events.get(self.events_sent..).unwrap_or_default() {
                    match frame::encode(event) {
                        Ok(bytes) => self.outgoing.extend_from_slice(&bytes),
                        Err(_) => self.open = false,
                    }
                }
                self.events_sent = source.events.len();
            }
            Role::Output { at, ended, .. } => {
                while let Some(piece) = source.ring.piece(*at, BATCH)
                    && self.outgoing.len() < BATCH
                {
                    *at = piece.offset + piece.bytes.len() as u64;
                    Output::append(&mut self.outgoing, (piece.offset, piece.at, piece.dropped, piece.bytes));
                }
                if let Some(since) = source.ended
                    && self.outgoing.is_empty()
                    && !*ended
                {
                    *ended = true;
                    Output::append(&mut self.outgoing, (source.ring.end(), since, 0, &[]));
                }
            }
            Role::Attach { at, ended } => {
                while let Some(piece) = source.ring.piece(*at, BATCH)
                    && self.outgoing.len() < BATCH
                {
                    *at = piece.offset + piece.bytes.len() as u64;
                    self.outgoing.extend_from_slice(piece.bytes);
                }
                *ended = source.ended.is_some() && self.outgoing.is_empty();
            }
        }
    }
}

fn parse<T: DeserializeOwned>(frame: &[u8]) -> Option<T> {
    serde_json::from_slice(frame).ok()
}
