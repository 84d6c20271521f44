//! Fields of requests and the shapes of answers (draft-ietf-secsh-filexfer-02, sections 3 to 7).

use std::{fs::Metadata, io, path::PathBuf};

use super::{attributes, path};

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRIBUTES: u8 = 105;
/// Size, owner, permissions and times are given.
const GIVEN: u32 = 0b1111;

/// What is left of a request.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub(super) fn required(&mut self) -> io::Result<u32> {
        self.number().ok_or_else(torn)
    }

    pub(super) fn long(&mut self) -> io::Result<u64> {
        let (number, rest) = self.0.split_first_chunk().ok_or_else(torn)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*number))
    }

    fn text(&mut self) -> io::Result<&'a [u8]> {
        let length = self.required()? as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(torn)?;
        self.0 = rest;
        Ok(text)
    }

    pub(super) fn path(&mut self) -> io::Result<PathBuf> {
        Ok(path(self.text()?))
    }

    pub(super) fn handle(&mut self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.text()?.try_into().map_err(|_| torn())?))
    }
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the request is torn")
}

/// Answers, with their lengths.
pub(super) struct Reply(Vec<u8>);

impl Reply {
    fn new(kind: u8) -> Self {
        Self(vec![0, 0, 0, 0, kind])
    }

    fn of(kind: u8, id: u32) -> Self {
        Self::new(kind).number(id)
    }

    fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn text(self, text: &[u8]) -> Self {
        let mut reply = self.number(text.len() as u32);
        reply.0.extend_from_slice(text);
        reply
    }

    fn all(self, metadata: &Metadata) -> Self {
        attributes(metadata).into_iter().fold(self.number(GIVEN), Self::number)
    }

    fn end(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }

    pub(super) fn version() -> Vec<u8> {
        Self::new(VERSION).number(3).end()
    }

    pub(super) fn status(id: u32, code: u32, message: &str) -> Vec<u8> {
        Self::of(STATUS, id).number(code).text(message.as_bytes()).text(b"en").end()
    }

    pub(super) fn handle(id: u32, handle: u32) -> Vec<u8> {
        Self::of(HANDLE, id).text(&handle.to_be_bytes()).end()
    }

    pub(super) fn data(id: u32, bytes: &[u8]) -> Vec<u8> {
        Self::of(DATA, id).text(bytes).end()
    }

    pub(super) fn attributes(id: u32, metadata: &Metadata) -> Vec<u8> {
        Self::of(ATTRIBUTES, id).all(metadata).end()
    }

    /// One name without attributes, as answers to questions for a path are.
    pub(super) fn name(id: u32, name: &[u8]) -> Vec<u8> {
        Self::of(NAME, id).number(1).text(name).text(name).number(0).end()
    }

    pub(super) fn names(id: u32, names: &[(Vec<u8>, Metadata)]) -> Vec<u8> {
        let reply = Self::of(NAME, id).number(names.len() as u32);
        names.iter().fold(reply, |reply, (name, metadata)| reply.text(name).text(name).all(metadata)).end()
    }
}
