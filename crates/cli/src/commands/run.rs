//! Runs a command in a one-off dyno, or inside a running one, with this terminal or these pipes as its own.
//!
//! The client's half of the rendezvous (`control`'s `sessions`): it says that it closes its half at the end of input, so
//! any bytes go through. The command's exit status comes at the end of its output, after U+FFFF, and becomes ours.

use std::io::{IsTerminal as _, Read as _, Write as _};

use dozen_api::client;
use http::Method;
use rustix::termios::{OptionalActions, Termios};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};

use super::{Session, authority, read};
use crate::{Error, Printer, environment::quoted};

/// What stands before the exit status.
const MARK: &[u8] = "\u{FFFF} heroku-command-exit-status: ".as_bytes();
/// What the platform says first.
const GREETING: &[u8] = b"rendezvous\r\n";
/// Most bytes on the way in one direction.
const PIECE: usize = 64 << 10;
/// Exit status when the connection ended before the command did.
const LOST: u8 = 255;

/// What to run and how.
pub(super) struct Wanted {
    /// One word is a command line as it is, several are words.
    pub(super) command: Vec<String>,
    pub(super) size: Option<String>,
    pub(super) process_type: Option<String>,
    /// `KEY=value`
    pub(super) env: Vec<String>,
    pub(super) no_tty: bool,
    /// Inside this dyno, in place of one of its own.
    pub(super) inside: Option<String>,
    pub(super) detached: bool,
}

#[derive(Debug, Deserialize)]
struct Dyno {
    name: String,
    attach_url: Option<String>,
}

/// Runs it; returns the exit status.
pub(super) async fn run(session: &Session, app: &str, wanted: &Wanted, printer: &mut Printer<'_>) -> Result<u8, Error> {
    let terminal =
        !wanted.no_tty && !wanted.detached && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let line = match wanted.command.as_slice() {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    };
    let mark = String::from_utf8_lossy(MARK);
    let command = if wanted.detached { line } else { format!("{line} ; echo \"{mark}$?\"") };
    let mut body = json!({ "command": command, "attach": !wanted.detached, "env": env(wanted, terminal)? });
    for (key, value) in [("size", &wanted.size), ("type", &wanted.process_type)] {
        if let Some(value) = value {
            body[key] = Value::from(value.as_str());
        }
    }
    if !terminal {
        body["force_no_tty"] = Value::from(true);
    }
    let path = match &wanted.inside {
        Some(dyno) => format!("/apps/{app}/dynos/{dyno}"),
        None => format!("/apps/{app}/dynos"),
    };
    if printer.is_json() && !wanted.detached {
        let why = "--json: what this prints is the command's own; run:detached prints the dyno";
        return Err(Error::Usage(why.to_owned()));
    }
    let answer: Value = session.api.call(Method::POST, &path, Some(&body)).await?;
    let dyno: Dyno = read(answer.clone())?;
    let Some(url) = dyno.attach_url else {
        match printer.is_json() {
            true => printer.json(&answer)?,
            false => printer.line(&dyno.name)?,
        }
        return Ok(0);
    };
    match attach(session, &url, terminal).await? {
        Some(status) => Ok(status),
        None => {
            let why = match &wanted.inside {
                Some(dyno) => format!("the connection was lost, or {dyno} has stopped, before the command ended"),
                None => format!("the connection to {} was lost before its command ended, which gets SIGHUP", dyno.name),
            };
            printer.note(&format!("dozen: {why}; dozen logs shows more"));
            Ok(LOST)
        }
    }
}

fn env(wanted: &Wanted, terminal: bool) -> Result<Map<String, Value>, Error> {
    let mut env = Map::new();
    for pair in &wanted.env {
        let (key, value) = pair.split_once('=').ok_or_else(|| Error::Usage(format!("{pair} is not KEY=value")))?;
        env.insert(key.to_owned(), Value::from(value));
    }
    if terminal {
        let name = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
        env.insert("TERM".to_owned(), Value::from(name));
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) {
            env.insert("COLUMNS".to_owned(), Value::from(size.ws_col));
            env.insert("LINES".to_owned(), Value::from(size.ws_row));
        }
    }
    Ok(env)
}

/// The command's exit status; none when the connection ended before it did.
async fn attach(session: &Session, url: &str, terminal: bool) -> Result<Option<u8>, Error> {
    let wrong = || client::Error::Address(url.to_owned());
    let (host, secret) = url.strip_prefix("rendezvous://").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
    let lost = |source| Error::Io { operation: format!("talk to the dyno at {host}"), source };
    let stream = client::Client::new(&format!("https://{host}"))?.trusting(&authority(&session.place)?)?.open().await?;
    let (mut from, mut to) = split(stream);
    to.write_all(format!("{secret}?eof=close\r\n").as_bytes()).await.map_err(lost)?;
    to.flush().await.map_err(lost)?;
    let mut greeting = vec![0; GREETING.len()];
    from.read_exact(&mut greeting).await.map_err(lost)?;
    let _raw = if terminal { Raw::enter() } else { None };
    let mut keys = keys();
    let typed = async move {
        while let Some(piece) = keys.recv().await {
            to.write_all(&piece).await?;
            to.flush().await?;
        }
        to.shutdown().await?;
        // Who is there must not seem to have gone.
        std::future::pending::<std::io::Result<()>>().await
    };
    let printed = async {
        let (mut piece, mut tail, mut out) = (vec![0; PIECE], Tail::default(), std::io::stdout());
        loop {
            let count = from.read(&mut piece).await.unwrap_or(0);
            let ready = if count == 0 { tail.rest() } else { tail.push(&piece[..count]) };
            out.write_all(&ready).and_then(|()| out.flush())?;
            if count == 0 {
                return std::io::Result::Ok(tail.status);
            }
        }
    };
    tokio::pin!(typed, printed);
    let status = tokio::select! {
        status = &mut printed => status,
        // An input that nobody takes any more does not end the output.
        _ = &mut typed => printed.await,
    };
    status.map_err(|source| Error::Io { operation: "write to standard output".to_owned(), source })
}

/// Standard input, read by a thread that nobody waits for: a read of a terminal cannot be given up.
fn keys() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (send, keys) = tokio::sync::mpsc::channel(4);
    std::thread::spawn(move || {
        let (mut input, mut piece) = (std::io::stdin().lock(), vec![0; PIECE]);
        while let Ok(count @ 1..) = input.read(&mut piece) {
            if send.blocking_send(piece[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    keys
}

/// A terminal that hands every key on; as it was when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no mending.
        _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Output but for the exit status at its end.
#[derive(Default)]
struct Tail {
    held: Vec<u8>,
    status: Option<u8>,
}

impl Tail {
    /// Takes output; gives what can be shown.
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut shown = Vec::new();
        loop {
            let Some(at) = self.mark() else {
                shown.append(&mut self.held);
                return shown;
            };
            shown.extend(self.held.drain(..at));
            let Some(end) = self.held.iter().position(|byte| *byte == b'\n') else { return shown };
            let line: Vec<u8> = self.held.drain(..=end).collect();
            let number = line.strip_prefix(MARK).and_then(|number| std::str::from_utf8(number).ok());
            match number.and_then(|number| number.trim().parse::<i32>().ok()) {
                Some(status) => self.status = Some(u8::try_from(status).unwrap_or(LOST)),
                None => shown.extend(line),
            }
        }
    }

    /// What was held back, for nothing more comes.
    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Where the mark is, or its beginning at the very end.
    fn mark(&self) -> Option<usize> {
        let may = |at: &usize| {
            let rest = &self.held[*at..];
            if rest.len() < MARK.len() { MARK.starts_with(rest) } else { rest.starts_with(MARK) }
        };
        let first = |(at, byte): (usize, &u8)| (*byte == MARK[0]).then_some(at);
        self.held.iter().enumerate().filter_map(first).find(may)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_taken_out_of_the_output_wherever_it_is_torn() {
        let all = [&b"any\xEF bytes \xEF\xBF\n"[..], MARK, b"42\r\n"].concat();
        for cut in 0..all.len() {
            let mut tail = Tail::default();
            let mut shown = tail.push(&all[..cut]);
            shown.extend(tail.push(&all[cut..]));
            shown.extend(tail.rest());
            assert_eq!((shown.as_slice(), tail.status), (&b"any\xEF bytes \xEF\xBF\n"[..], Some(42)), "{cut}");
        }
        let mut tail = Tail::default();
        assert_eq!(tail.push("\u{FFFF} heroku-command-exit-status: x\n".as_bytes()).len(), MARK.len() + 2);
        assert_eq!(tail.status, None);
    }
}
