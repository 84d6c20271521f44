//! The bytes between a client and a dyno, both ways at their own pace, in bounded memory.
//!
//! A client that reads slowly holds the dyno up, and the other way round. How input ends is a matter of who is there:
//! the official client sends one 0x04 at the end of its standard input and keeps the connection; closing that means
//! that it has gone. Our own client says so in advance ([`Manner::exact`]) and then just closes its half.

use std::{io, time::Duration};

use dozen_domain::limits::Limits;
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    activity::Activity,
    marker::{self, Pieces},
};
use crate::listen::Stream;

/// Most bytes on the way in one direction.
const PIECE: usize = 64 << 10;
/// End of transmission: what a terminal's user types to end the input.
const END: u8 = 4;
/// How long things are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A lone 0x04 after which nothing follows for this long was an end, not data.
    lone: Duration,
    /// The same for one that came together with data before it.
    trailing: Duration,
    /// A client that has closed its half may have ended its input or have gone. It is taken to have gone when the dyno
    /// prints nothing for this long.
    half_closed: Duration,
    /// A connection without a terminal is not closed before the client has said the end of its input, or this has passed:
    /// the official client breaks when it wants to say that on a connection that was closed (with `< /dev/null` and a
    /// command that ends at once).
    input_end: Duration,
    /// What may be the beginning of an exit status's line is held back no longer than this.
    hold: Duration,
}

/// What clients on any network can do with and people do not notice; `input_end` is a limit.
const PATIENCE: Patience = Patience {
    lone: Duration::from_millis(20),
    trailing: Duration::from_millis(200),
    half_closed: Duration::from_secs(1),
    input_end: Duration::ZERO,
    hold: Duration::from_millis(50),
};

/// Time for a client to take the end in, so that bytes under way from it do not destroy what it has not read yet.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a session is served.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// There is a terminal: every byte is the terminal's, the end of input too.
    pub terminal: bool,
    /// The exit status's line must arrive whole.
    pub marked: bool,
    /// Every byte is data; a half that is closed is the end of input.
    pub exact: bool,
    /// It ends after this long without a byte.
    pub idle: Option<Duration>,
    /// For tests to change.
    patience: Patience,
}

impl Manner {
    /// How a client is served that is not exact, for as long as it likes.
    pub fn new(terminal: bool, marked: bool, limits: &Limits) -> Self {
        let patience = Patience { input_end: Duration::from_millis(limits.input_end_ms), ..PATIENCE };
        Self { terminal, marked, exact: false, idle: None, patience }
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The dyno's output did.
    Finished,
    /// The client has gone.
    Gone,
    /// Nothing was said for too long.
    Idle,
}

/// What became of the client's half.
enum Input {
    /// It was closed in good order.
    Closed,
    /// The connection is broken.
    Broken,
}

type Reading = Box<dyn AsyncRead + Send + Unpin>;
type Writing = Box<dyn AsyncWrite + Send + Unpin>;

/// Carries bytes until the output ends or the client is gone. `status` is the exit status, asked for when the output has
/// ended: a command that leaves its shell before the shell could print its status (`exit 3`) has it told all the same.
pub async fn relay(
    stream: Box<dyn Stream>,
    (input, output): (Writing, Reading),
    status: BoxFuture<'static, Option<i32>>,
    manner: Manner,
) -> Outcome {
    let (mut from, mut to) = split(stream);
    let outcome = carry((&mut from, &mut to), (input, output), status, manner).await;
    let ending = async {
        to.shutdown().await?;
        let mut rest = [0; 4096];
        while from.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(FAREWELL, ending).await;
    outcome
}

async fn carry(
    (from, to): (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
    (input, output): (Writing, Reading),
    status: BoxFuture<'static, Option<i32>>,
    manner: Manner,
) -> Outcome {
    let activity = Activity::new();
    let down = down(output, status, to, manner, &activity);
    let ended = Notify::new();
    let up = up(from, input, manner, (&activity, &ended));
    let idle = async {
        match manner.idle {
            Some(idle) => activity.quiet(idle).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(down, up, idle);
    let closed = tokio::select! {
        sent = &mut down => {
            if sent.is_ok() && !manner.terminal && !manner.exact {
                tokio::select! {
                    () = ended.notified() => {}
                    _ = &mut up => {}
                    () = sleep(manner.patience.input_end) => {}
                }
            }
            return outcome(&sent);
        }
        () = &mut idle => return Outcome::Idle,
        closed = &mut up => closed,
    };
    match closed {
        Input::Broken => return Outcome::Gone,
        Input::Closed if manner.terminal => return Outcome::Gone,
        Input::Closed => activity.note(),
    }
    let patience = async {
        match manner.exact {
            true => std::future::pending().await,
            false => activity.quiet(manner.patience.half_closed).await,
        }
    };
    tokio::select! {
        sent = &mut down => outcome(&sent),
        () = patience => Outcome::Gone,
        () = &mut idle => Outcome::Idle,
    }
}

fn outcome(sent: &io::Result<()>) -> Outcome {
    if sent.is_ok() { Outcome::Finished } else { Outcome::Gone }
}

/// From the dyno to the client; an error is the client's.
async fn down(
    mut output: Reading,
    status: BoxFuture<'static, Option<i32>>,
    to: &mut (impl AsyncWrite + Unpin),
    manner: Manner,
    activity: &Activity,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut pieces = Pieces::default();
    loop {
        let read = output.read(&mut piece);
        let count = if pieces.holds() {
            match timeout(manner.patience.hold, read).await {
                Ok(count) => count,
                Err(_) => {
                    send(to, &pieces.rest()).await?;
                    continue;
                }
            }
        } else {
            read.await
        };
        // An output that breaks has ended: the dyno, its shim, or control's connection to it.
        let Ok(count @ 1..) = count else {
            send(to, &pieces.rest()).await?;
            return match manner.marked && !pieces.seen() {
                true => last_word(to, status).await,
                false => Ok(()),
            };
        };
        activity.note();
        if manner.marked {
            for part in pieces.push(&piece[..count]) {
                send(to, &part).await?;
            }
        } else {
            send(to, &piece[..count]).await?;
        }
        activity.note();
    }
}

/// Tells the exit status in the place of a command that did not.
async fn last_word(to: &mut (impl AsyncWrite + Unpin), status: BoxFuture<'static, Option<i32>>) -> io::Result<()> {
    match timeout(FAREWELL, status).await {
        Ok(Some(status)) => send(to, marker::line(status).as_bytes()).await,
        Ok(None) | Err(_) => Ok(()),
    }
}

/// One piece, in records of its own.
async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    to.write_all(bytes).await?;
    to.flush().await
}

/// From the client to the dyno, until the client ends it. An input that the dyno has closed takes nothing any more, but
/// what becomes of the client is still of interest.
async fn up(
    from: &mut (impl AsyncRead + Unpin),
    input: Writing,
    manner: Manner,
    (activity, ended): (&Activity, &Notify),
) -> Input {
    let mut input = Some(input);
    let mut piece = vec![0; PIECE];
    // Bytes at the front of the piece that were read and not passed on: a 0x04 that may be the end.
    let mut held = 0;
    let mut patience = manner.patience.lone;
    loop {
        let read = from.read(&mut piece[held..]);
        let count = if held > 0 {
            tokio::select! {
                count = read => count,
                () = sleep(patience) => {
                    held = 0;
                    end(input.take()).await;
                    continue;
                }
            }
        } else {
            read.await
        };
        let count = match count {
            Ok(0) => {
                end(input.take()).await;
                return Input::Closed;
            }
            Ok(count) => held + count,
            Err(_) => return Input::Broken,
        };
        activity.note();
        let may_end = !manner.terminal && !manner.exact && piece[count - 1] == END;
        let whole = if may_end { count - 1 } else { count };
        if may_end {
            ended.notify_one();
        }
        patience = if whole == 0 { manner.patience.lone } else { manner.patience.trailing };
        if let Some(open) = &mut input {
            let sent = async {
                open.write_all(&piece[..whole]).await?;
                open.flush().await
            };
            if sent.await.is_err() {
                input = None;
            }
        }
        held = usize::from(may_end);
        piece[0] = if may_end { END } else { piece[0] };
        activity.note();
    }
}

async fn end(input: Option<Writing>) {
    if let Some(mut input) = input {
        let _ = input.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(1);

    /// Pipes, and nothing is taken for an end by its time.
    fn pipes() -> Manner {
        let patience = Patience { lone: NEVER, trailing: NEVER, half_closed: NEVER, input_end: SOON, hold: NEVER };
        Manner { patience, ..Manner::new(false, false, &Limits::default()) }
    }

    /// A client, the dyno's standard input as the dyno reads it, its output as the dyno writes it, and the relay.
    fn session(manner: Manner) -> (DuplexStream, DuplexStream, DuplexStream, tokio::task::JoinHandle<Outcome>) {
        let (client, stream) = duplex(1 << 20);
        let (input, reads) = duplex(1 << 20);
        let (writes, output) = duplex(1 << 20);
        let status = Box::pin(async { Some(7) });
        let relaying = relay(Box::new(stream), (Box::new(input), Box::new(output)), status, manner);
        (client, reads, writes, tokio::spawn(relaying))
    }

    async fn all(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).await.expect("bytes");
        bytes
    }

    async fn some(from: &mut DuplexStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).await.expect("bytes");
        bytes
    }

    #[tokio::test]
    async fn a_0x04_that_is_followed_by_more_is_data() {
        let (mut client, mut reads, _writes, _relaying) = session(pipes());
        client.write_all(b"one\x04two\x04").await.expect("sent");
        assert_eq!(some(&mut reads, 7).await, b"one\x04two");
        client.write_all(b"three").await.expect("sent");
        assert_eq!(some(&mut reads, 6).await, b"\x04three");
        client.write_all(b"\x04").await.expect("sent");
        client.write_all(b"\x04four").await.expect("sent");
        assert_eq!(some(&mut reads, 6).await, b"\x04\x04four");
    }

    #[tokio::test]
    async fn a_0x04_after_which_nothing_follows_is_the_end_and_the_answer_still_comes() {
        for sent in [&b"all\x04"[..], b"\x04"] {
            let manner = Manner { patience: Patience { lone: SOON, trailing: SOON, ..pipes().patience }, ..pipes() };
            let (mut client, reads, mut writes, relaying) = session(manner);
            client.write_all(sent).await.expect("sent");
            assert_eq!(all(reads).await, sent[..sent.len() - 1]);
            writes.write_all(b"answer").await.expect("said");
            drop(writes);
            assert_eq!(some(&mut client, 6).await, b"answer");
            drop(client);
            assert_eq!(relaying.await.expect("no panic"), Outcome::Finished);
        }
    }

    #[tokio::test]
    async fn an_exact_client_may_send_any_byte_and_closes_its_half() {
        let patience = Patience { lone: SOON, trailing: SOON, half_closed: SOON, input_end: SOON, hold: SOON };
        let (mut client, reads, mut writes, relaying) = session(Manner { exact: true, patience, ..pipes() });
        client.write_all(b"\x04\x04").await.expect("sent");
        client.shutdown().await.expect("half closed");
        assert_eq!(all(reads).await, b"\x04\x04");
        writes.write_all(b"late").await.expect("said");
        drop(writes);
        assert_eq!((all(client).await, relaying.await.expect("no panic")), (b"late".to_vec(), Outcome::Finished));
    }

    #[tokio::test]
    async fn a_client_that_closes_gets_what_is_said_at_once_and_is_then_taken_to_have_gone() {
        let (mut client, reads, mut writes, relaying) = session(pipes());
        client.shutdown().await.expect("half closed");
        assert_eq!(all(reads).await, b"");
        writes.write_all(b"answer").await.expect("said");
        drop(writes);
        assert_eq!((all(client).await, relaying.await.expect("no panic")), (b"answer".to_vec(), Outcome::Finished));

        let manner = Manner { patience: Patience { half_closed: SOON, ..pipes().patience }, ..pipes() };
        for manner in [manner, Manner { terminal: true, ..pipes() }] {
            let (mut client, _reads, _writes, relaying) = session(manner);
            client.shutdown().await.expect("closed");
            assert_eq!(relaying.await.expect("no panic"), Outcome::Gone);
        }
    }

    #[tokio::test]
    async fn silence_ends_a_session_where_that_is_asked_for() {
        let (_client, _reads, _writes, relaying) = session(Manner { idle: Some(SOON), ..pipes() });
        assert_eq!(relaying.await.expect("no panic"), Outcome::Idle);
    }

    #[tokio::test]
    async fn a_dyno_that_does_not_read_holds_its_client_up() {
        let (mut client, mut reads, _writes, _relaying) = session(pipes());
        let sent = vec![7_u8; 8 << 20];
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            client.write_all(&bytes).await.expect("sent");
            client
        });
        assert_eq!(some(&mut reads, 1).await, [7]);
        assert!(!sending.is_finished(), "eight megabytes are nowhere on the way");
        assert!(some(&mut reads, sent.len() - 1).await == sent[1..]);
        sending.await.expect("sent");
    }

    #[tokio::test]
    async fn the_end_of_input_may_come_after_that_of_the_output() {
        let manner = Manner { patience: Patience { input_end: NEVER, ..pipes().patience }, ..pipes() };
        let (mut client, _reads, mut writes, relaying) = session(manner);
        writes.write_all(b"all").await.expect("said");
        drop(writes);
        assert_eq!(some(&mut client, 3).await, b"all");
        client.write_all(b"\x04").await.expect("the connection is open");
        assert_eq!(all(&mut client).await, b"");
        drop(client);
        assert_eq!(relaying.await.expect("no panic"), Outcome::Finished);
    }

    #[tokio::test]
    async fn a_status_that_was_not_printed_is_told() {
        let (client, _reads, mut writes, _relaying) = session(Manner { marked: true, ..pipes() });
        writes.write_all(b"no more\n").await.expect("said");
        drop(writes);
        assert_eq!(String::from_utf8_lossy(&all(client).await), "no more\n\u{FFFF} heroku-command-exit-status: 7\n");
        let (client, _reads, mut writes, _relaying) = session(Manner { marked: true, ..pipes() });
        let line = marker::line(3);
        writes.write_all(line.as_bytes()).await.expect("said");
        drop(writes);
        assert_eq!(all(client).await, line.as_bytes());
    }

    #[tokio::test]
    async fn an_exit_status_goes_out_though_it_comes_in_pieces() {
        let (mut client, _reads, mut writes, relaying) = session(Manner { marked: true, ..pipes() });
        let line = "\u{FFFF} heroku-command-exit-status: 0\n".as_bytes();
        for byte in line {
            writes.write_all(&[*byte]).await.expect("said");
        }
        drop(writes);
        assert_eq!(some(&mut client, line.len()).await, line);
        drop(client);
        assert_eq!(relaying.await.expect("no panic"), Outcome::Finished);
    }
}
