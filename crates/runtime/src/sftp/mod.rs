//! `dozen sftp-server`: reads files for `ps:copy`, inside the dyno and as its user, over standard input and output.
//!
//! Version 3 of the SSH file transfer protocol (draft-ietf-secsh-filexfer-02), the reading half: what a dyno's files may
//! be read by is decided by the kernel alone, for this is one of the dyno's own processes. Changing files is refused;
//! they would be gone with the dyno.

mod wire;

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata, ReadDir},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use wire::{Fields, Reply};

/// Longest request that is read; a path and a few numbers fit many times.
const REQUEST: usize = 256 << 10;
/// Most bytes of one answer: what OpenSSH's server sends.
const PIECE: usize = 256 << 10;
/// Most files and directories that are open at once.
const HANDLES: usize = 256;
/// Names in one answer to a reading of a directory.
const NAMES: usize = 100;

// Requests (section 3).
const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
/// Bit of an opening's flags: for reading.
const FOR_READING: u32 = 1;
/// All bits that ask for more than reading.
const FOR_MORE: u32 = !FOR_READING;

// Codes of a status (section 7).
const OK: u32 = 0;
const END: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const UNSUPPORTED: u32 = 8;

/// Serves until the client's end; returns the process's exit code.
pub fn main() -> i32 {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    match serve(&mut from, &mut to) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

enum Handle {
    File(File),
    Directory(PathBuf, ReadDir),
}

#[derive(Default)]
struct Server {
    handles: BTreeMap<u32, Handle>,
    last: u32,
}

fn serve(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut server = Server::default();
    loop {
        let mut length = [0; 4];
        match from.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut request = vec![0; length];
        from.read_exact(&mut request)?;
        to.write_all(&server.answer(request[0], Fields::new(&request[1..])))?;
        to.flush()?;
    }
}

/// What went wrong, as a status.
fn code(error: &io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::NotFound => NO_SUCH_FILE,
        io::ErrorKind::PermissionDenied => DENIED,
        io::ErrorKind::UnexpectedEof => END,
        io::ErrorKind::InvalidData => BAD_MESSAGE,
        _ => FAILURE,
    }
}

impl Server {
    fn answer(&mut self, kind: u8, mut fields: Fields<'_>) -> Vec<u8> {
        if kind == INIT {
            return Reply::version();
        }
        let Some(id) = fields.number() else { return Reply::status(0, BAD_MESSAGE, "the request has no id") };
        self.serve(kind, id, &mut fields).unwrap_or_else(|error| Reply::status(id, code(&error), &error.to_string()))
    }

    fn serve(&mut self, kind: u8, id: u32, fields: &mut Fields<'_>) -> io::Result<Vec<u8>> {
        match kind {
            OPEN => {
                let (path, flags) = (fields.path()?, fields.required()?);
                if flags & FOR_MORE != 0 {
                    return Ok(refused(id));
                }
                let file = File::open(path)?;
                if file.metadata()?.is_dir() {
                    return Err(io::Error::other("it is a directory"));
                }
                self.handle(id, Handle::File(file))
            }
            OPENDIR => {
                let path = fields.path()?;
                let entries = fs::read_dir(&path)?;
                self.handle(id, Handle::Directory(path, entries))
            }
            CLOSE => {
                let handle = fields.handle()?;
                let known = self.handles.remove(&handle).is_some();
                Ok(Reply::status(id, if known { OK } else { FAILURE }, "no such handle"))
            }
            READ => {
                let (handle, offset, length) = (fields.handle()?, fields.long()?, fields.required()?);
                let Some(Handle::File(file)) = self.handles.get(&handle) else { return Ok(unknown(id)) };
                let mut bytes = vec![0; (length as usize).min(PIECE)];
                match file.read_at(&mut bytes, offset)? {
                    0 => Ok(Reply::status(id, END, "the end of the file")),
                    count => Ok(Reply::data(id, &bytes[..count])),
                }
            }
            READDIR => self.names(id, fields.handle()?),
            FSTAT => match self.handles.get(&fields.handle()?) {
                Some(Handle::File(file)) => Ok(Reply::attributes(id, &file.metadata()?)),
                Some(Handle::Directory(path, _)) => Ok(Reply::attributes(id, &fs::metadata(path)?)),
                None => Ok(unknown(id)),
            },
            STAT => Ok(Reply::attributes(id, &fs::metadata(fields.path()?)?)),
            LSTAT => Ok(Reply::attributes(id, &fs::symlink_metadata(fields.path()?)?)),
            REALPATH => {
                let path = fields.path()?;
                let path = fs::canonicalize(&path).or_else(|_| std::path::absolute(&path))?;
                Ok(Reply::name(id, path.as_os_str().as_bytes()))
            }
            READLINK => Ok(Reply::name(id, fs::read_link(fields.path()?)?.as_os_str().as_bytes())),
            WRITE | SETSTAT | FSETSTAT | REMOVE | MKDIR | RMDIR | RENAME | SYMLINK => Ok(refused(id)),
            _ => Ok(Reply::status(id, UNSUPPORTED, "there is no such request in version 3")),
        }
    }

    fn handle(&mut self, id: u32, handle: Handle) -> io::Result<Vec<u8>> {
        if self.handles.len() >= HANDLES {
            return Err(io::Error::other(format!("{HANDLES} files are open")));
        }
        self.last = self.last.wrapping_add(1);
        self.handles.insert(self.last, handle);
        Ok(Reply::handle(id, self.last))
    }

    fn names(&mut self, id: u32, handle: u32) -> io::Result<Vec<u8>> {
        let Some(Handle::Directory(_, entries)) = self.handles.get_mut(&handle) else { return Ok(unknown(id)) };
        let mut names: Vec<(Vec<u8>, Metadata)> = Vec::new();
        for entry in entries.by_ref().flatten().take(NAMES) {
            // One that has gone meanwhile is not listed.
            if let Ok(metadata) = entry.metadata() {
                names.push((entry.file_name().into_vec(), metadata));
            }
        }
        if names.is_empty() {
            return Ok(Reply::status(id, END, "the end of the directory"));
        }
        Ok(Reply::names(id, &names))
    }
}

fn refused(id: u32) -> Vec<u8> {
    Reply::status(id, DENIED, "files of a dyno can only be read: changes would be gone with it")
}

fn unknown(id: u32) -> Vec<u8> {
    Reply::status(id, FAILURE, "no such handle")
}

/// Kind, permissions, size and times of a file.
fn attributes(metadata: &Metadata) -> [u32; 7] {
    let size = metadata.size();
    let time = |seconds: i64| u32::try_from(seconds).unwrap_or_default();
    [
        (size >> 32) as u32,
        size as u32,
        metadata.uid(),
        metadata.gid(),
        metadata.mode(),
        time(metadata.atime()),
        time(metadata.mtime()),
    ]
}

/// The path that some bytes name, from the home directory on.
fn path(bytes: &[u8]) -> PathBuf {
    Path::new("/app").join(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as a client sends it.
    fn request(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![kind];
        body.extend_from_slice(&id.to_be_bytes());
        body.extend(fields.concat());
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    }

    fn text(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes()[..], text].concat()
    }

    /// Answers without their lengths.
    fn answers(requests: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        let _ = serve(&mut &requests.concat()[..], &mut said);
        let (mut answers, mut rest) = (Vec::new(), &said[..]);
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (answer, more) = more.split_at(u32::from_be_bytes(*length) as usize);
            answers.push(answer.to_vec());
            rest = more;
        }
        answers
    }

    /// The code of a status.
    fn status(answer: &[u8]) -> Option<u32> {
        (answer[0] == 101).then(|| u32::from_be_bytes(answer[5..9].try_into().expect("a code")))
    }

    #[test]
    fn a_file_is_read_piece_by_piece_to_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("data");
        fs::write(&file, b"0123456789").expect("a file");
        let name = text(file.as_os_str().as_bytes());
        let handle = text(&1_u32.to_be_bytes());
        let read =
            |id, offset: u64, length: u32| request(READ, id, &[&handle, &offset.to_be_bytes(), &length.to_be_bytes()]);
        let said = answers(&[
            [&5_u32.to_be_bytes()[..], &[INIT, 0, 0, 0, 3]].concat(),
            request(OPEN, 1, &[&name, &FOR_READING.to_be_bytes(), &0_u32.to_be_bytes()]),
            request(FSTAT, 2, &[&handle]),
            read(3, 4, 100),
            read(4, 10, 100),
            read(5, 0, 2),
            request(CLOSE, 6, &[&handle]),
            read(7, 0, 2),
        ]);
        assert_eq!(said[0], [2, 0, 0, 0, 3]);
        assert_eq!(said[1][5..], handle);
        assert_eq!(said[2][9..17], 10_u64.to_be_bytes());
        assert_eq!((&said[3][9..], &said[5][9..]), (&b"456789"[..], &b"01"[..]));
        assert_eq!([status(&said[4]), status(&said[6]), status(&said[7])], [Some(END), Some(OK), Some(FAILURE)]);
    }

    #[test]
    fn directories_are_listed_and_names_resolved() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("one"), b"").expect("a file");
        let name = text(directory.path().as_os_str().as_bytes());
        let handle = text(&1_u32.to_be_bytes());
        let said = answers(&[
            request(OPENDIR, 1, &[&name]),
            request(READDIR, 2, &[&handle]),
            request(READDIR, 3, &[&handle]),
            request(REALPATH, 4, &[&text(b".")]),
            request(STAT, 5, &[&text(b"/nowhere")]),
        ]);
        assert!(said[1].windows(3).any(|part| part == b"one"));
        assert_eq!((status(&said[2]), status(&said[4])), (Some(END), Some(NO_SUCH_FILE)));
        assert!(said[3].windows(4).any(|part| part == b"/app"));
    }

    #[test]
    fn nothing_is_changed_and_nonsense_is_survived() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("new");
        let name = text(file.as_os_str().as_bytes());
        let said = answers(&[
            request(OPEN, 1, &[&name, &26_u32.to_be_bytes(), &0_u32.to_be_bytes()]),
            request(MKDIR, 2, &[&name, &0_u32.to_be_bytes()]),
            request(REMOVE, 3, &[&text(b"/app")]),
            request(OPEN, 4, &[&999_999_u32.to_be_bytes()]),
            request(READ, 5, &[]),
            request(250, 6, &[]),
            vec![0, 0, 0, 1, OPEN],
        ]);
        let codes: Vec<_> = said.iter().map(|answer| status(answer)).collect();
        let bad = Some(BAD_MESSAGE);
        assert_eq!(codes, [Some(DENIED), Some(DENIED), Some(DENIED), bad, bad, Some(UNSUPPORTED), bad]);
        assert!(!file.exists());
        assert!(answers(&[u32::MAX.to_be_bytes().to_vec()]).is_empty());
    }
}
