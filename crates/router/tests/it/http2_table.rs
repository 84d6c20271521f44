//! The table of HTTP/2: frames and states that a server must refuse or take (RFC 9113, RFC 7541), each over a
//! connection of its own, as bytes on the wire.
//!
//! Where the RFC wants an error of a stream, one of the connection is as good (section 5.4.2), and a connection may
//! always just be closed. An endpoint that has no closer code for an error may say PROTOCOL_ERROR, as the library does for
//! frames that it cannot read: so that is taken everywhere.

use std::net::SocketAddr;

use dozen_domain::limits::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::harness::{LONG, Router, app, saying, soon};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HOST: &str = "table.apps.test";
const PROBE: &[u8] = b"probing.";

// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

// Flags.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;
/// A request without a body.
const WHOLE: u8 = END_STREAM | END_HEADERS;

// Errors.
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;

/// What must come of a case.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// The first request is answered with this status.
    Answer(u16),
    /// Nothing: another request over the connection is answered.
    Ignored,
    /// An error with one of these codes, of the stream or the connection.
    Error(&'static [u32]),
    /// As an error of the protocol, or 400.
    Malformed,
}

use Then::{Answer, Error, Ignored, Malformed};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is never indexed.
fn field(name: &str, value: &str) -> Vec<u8> {
    assert!(name.len() < 127 && value.len() < 127);
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// The head of `<method> /` over http to the app.
fn head(method: u8) -> Vec<u8> {
    [&[method, 0x84, 0x86][..], &authority()].concat()
}

fn authority() -> Vec<u8> {
    [&[1, HOST.len() as u8], HOST.as_bytes()].concat()
}

fn get() -> Vec<u8> {
    head(0x82)
}

fn post() -> Vec<u8> {
    head(0x83)
}

/// A request that is whole.
fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &get())
}

/// The beginning of one with a body.
fn begin(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post())
}

/// A request with more fields behind its own.
fn with(more: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[&get()[..], more].concat())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// All cases: what is wrong or allowed, what is sent behind the preface, what must come of it.
#[rustfmt::skip]
fn cases() -> Vec<(&'static str, Vec<u8>, Then)> {
    let none: &[u8] = &[];
    vec![
        // 4.1 and 5.5: what is not known is passed over.
        ("a frame of a kind that nobody knows", frame(0xfa, 0xff, 0, b"whatever"), Ignored),
        ("such a frame on a stream", join(&[begin(1), frame(0xfa, 0, 1, b"x"), frame(DATA, END_STREAM, 1, b"x")]), Answer(200)),
        ("such a frame within a head", join(&[frame(HEADERS, END_STREAM, 1, &get()), frame(0xfa, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, none)]), Error(&[PROTOCOL])),
        ("flags that nobody knows", frame(PING, 0x16, 0, b"12345678"), Ignored),
        ("the reserved bit of a stream's number", frame(HEADERS, WHOLE, 0x8000_0001, &get()), Answer(200)),

        // 4.2: sizes of frames.
        ("a frame of the greatest size", join(&[begin(1), frame(DATA, END_STREAM, 1, &[b'x'; 16_384])]), Answer(200)),
        ("DATA over the greatest size", join(&[begin(1), frame(DATA, END_STREAM, 1, &[b'x'; 16_385])]), Error(&[FRAME_SIZE])),
        ("HEADERS over the greatest size", frame(HEADERS, WHOLE, 1, &[&get()[..], &[0; 16_384]].concat()), Error(&[FRAME_SIZE])),

        // 4.3 and RFC 7541: compressed heads.
        ("an index of zero", frame(HEADERS, WHOLE, 1, &[0x80]), Error(&[COMPRESSION])),
        ("an index beyond the tables", frame(HEADERS, WHOLE, 1, &[&get()[..], &[0xff, 0x10]].concat()), Error(&[COMPRESSION])),
        ("an index without an end", frame(HEADERS, WHOLE, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Error(&[COMPRESSION])),
        ("a field that is cut off", frame(HEADERS, WHOLE, 1, &[&get()[..], &[0, 10, b'a']].concat()), Error(&[COMPRESSION])),
        ("a table larger than allowed", frame(HEADERS, WHOLE, 1, &[&[0x3f, 0xe2, 0x1f][..], &get()].concat()), Error(&[COMPRESSION])),
        ("a table of no size at all", frame(HEADERS, WHOLE, 1, &[&[0x20][..], &get()].concat()), Answer(200)),
        ("a table's size behind fields", frame(HEADERS, WHOLE, 1, &[&get()[..], &[0x20]].concat()), Error(&[COMPRESSION])),
        ("padding of a Huffman code that is too long", frame(HEADERS, WHOLE, 1, &[&get()[..], &[0, 1, b'x', 0x82, 0x1f, 0xff, 0xff]].concat()), Error(&[COMPRESSION])),

        // 5.1: states of a stream.
        ("DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x"), Error(&[PROTOCOL, STREAM_CLOSED])),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Error(&[PROTOCOL])),
        ("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Error(&[PROTOCOL])),
        ("CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, &get()), Error(&[PROTOCOL])),
        ("PRIORITY on an idle stream", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), Ignored),
        ("DATA behind a request's end", join(&[ask(1), frame(DATA, END_STREAM, 1, b"x")]), Error(&[STREAM_CLOSED, PROTOCOL])),
        ("HEADERS behind a request's end", join(&[ask(1), ask(1)]), Error(&[STREAM_CLOSED, PROTOCOL])),
        ("CONTINUATION behind a request's end", join(&[ask(1), frame(CONTINUATION, END_HEADERS, 1, none)]), Error(&[PROTOCOL, STREAM_CLOSED])),
        ("WINDOW_UPDATE behind a request's end", join(&[ask(1), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])]), Answer(200)),
        ("PRIORITY behind a request's end", join(&[ask(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]), Answer(200)),
        ("a stream that is given up", join(&[begin(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])]), Ignored),
        ("PRIORITY behind a stream's end", join(&[begin(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]), Ignored),
        ("HEADERS behind RST_STREAM", join(&[begin(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), ask(1)]), Error(&[STREAM_CLOSED, PROTOCOL])),

        // 5.1.1: numbers of streams.
        ("a stream with an even number", ask(2), Error(&[PROTOCOL])),
        ("a stream with a number below the last", join(&[ask(5), ask(3)]), Error(&[PROTOCOL, STREAM_CLOSED])),
        ("numbers that are left out", ask(101), Answer(200)),

        // 5.1.2: how many at once; the limit of this test is four.
        ("more streams than allowed", join(&[begin(1), begin(3), begin(5), begin(7), begin(9)]), Error(&[REFUSED, PROTOCOL])),

        // 6.1: DATA.
        ("DATA on no stream", frame(DATA, 0, 0, b"x"), Error(&[PROTOCOL])),
        ("padding", join(&[begin(1), frame(DATA, END_STREAM | PADDED, 1, &[2, b'x', 0, 0])]), Answer(200)),
        ("padding as long as the frame", join(&[begin(1), frame(DATA, END_STREAM | PADDED, 1, &[4, b'x', 0, 0])]), Error(&[PROTOCOL])),
        ("no room for the length of the padding", join(&[begin(1), frame(DATA, END_STREAM | PADDED, 1, none)]), Error(&[PROTOCOL, FRAME_SIZE])),

        // 6.2: HEADERS.
        ("HEADERS on no stream", frame(HEADERS, WHOLE, 0, &get()), Error(&[PROTOCOL])),
        ("HEADERS with padding and priority", frame(HEADERS, WHOLE | PADDED | PRIORITISED, 1, &[&[1, 0, 0, 0, 0, 9][..], &get(), &[0]].concat()), Answer(200)),
        ("HEADERS with padding as long as the frame", frame(HEADERS, WHOLE | PADDED, 1, &[200, 0x82]), Error(&[PROTOCOL])),

        // 6.3: PRIORITY.
        ("PRIORITY on no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), Error(&[PROTOCOL])),
        ("PRIORITY of another length", frame(PRIORITY, 0, 1, &[0, 0, 0, 0]), Error(&[FRAME_SIZE])),

        // 6.4: RST_STREAM.
        ("RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), Error(&[PROTOCOL])),
        ("RST_STREAM of another length", join(&[begin(1), frame(RST_STREAM, 0, 1, &[0, 0, 0])]), Error(&[FRAME_SIZE])),

        // 6.5: SETTINGS.
        ("an acknowledgement with a payload", frame(SETTINGS, ACK, 0, &[0; 6]), Error(&[FRAME_SIZE])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, none), Error(&[PROTOCOL])),
        ("SETTINGS of another length", frame(SETTINGS, 0, 0, &[0; 5]), Error(&[FRAME_SIZE])),
        ("a push that is neither on nor off", setting(2, 2), Error(&[PROTOCOL])),
        ("a first window that is too large", setting(4, 0x8000_0000), Error(&[FLOW_CONTROL])),
        ("the largest first window", setting(4, 0x7fff_ffff), Ignored),
        ("a greatest frame that is too small", setting(5, 16_383), Error(&[PROTOCOL])),
        ("a greatest frame that is too large", setting(5, 1 << 24), Error(&[PROTOCOL])),
        ("a setting that nobody knows", setting(0xff, 7), Ignored),
        ("a setting twice", join(&[setting(4, 100), setting(4, 70_000)]), Ignored),

        // 6.6: PUSH_PROMISE.
        ("a client that pushes", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get()].concat()), Error(&[PROTOCOL])),

        // 6.7: PING.
        ("PING on a stream", frame(PING, 0, 1, b"12345678"), Error(&[PROTOCOL])),
        ("PING of another length", frame(PING, 0, 0, b"1234567"), Error(&[FRAME_SIZE])),
        ("an answer to no PING", frame(PING, ACK, 0, b"12345678"), Ignored),

        // 6.8: GOAWAY.
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Error(&[PROTOCOL])),
        ("GOAWAY that is too short", frame(GOAWAY, 0, 0, &[0; 7]), Error(&[FRAME_SIZE])),

        // 6.9: WINDOW_UPDATE.
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Error(&[PROTOCOL])),
        ("a stream's window that grows by nothing", join(&[begin(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])]), Error(&[PROTOCOL])),
        ("WINDOW_UPDATE of another length", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), Error(&[FRAME_SIZE])),
        ("a window beyond all bounds", join(&[frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])]), Error(&[FLOW_CONTROL])),
        ("a stream's window beyond all bounds", join(&[begin(1), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])]), Error(&[FLOW_CONTROL])),
        ("a first window that makes a stream's too large", join(&[begin(1), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0x00, 0x00]), setting(4, 0x7fff_ffff)]), Error(&[FLOW_CONTROL])),

        // 6.10: CONTINUATION.
        ("a head in three frames", join(&[frame(HEADERS, END_STREAM, 1, &get()[..2]), frame(CONTINUATION, 0, 1, &get()[2..9]), frame(CONTINUATION, END_HEADERS, 1, &get()[9..])]), Answer(200)),
        ("another frame within a head", join(&[frame(HEADERS, END_STREAM, 1, &get()), frame(PING, 0, 0, b"12345678")]), Error(&[PROTOCOL])),
        ("another stream's head within a head", join(&[frame(HEADERS, END_STREAM, 1, &get()), ask(3)]), Error(&[PROTOCOL])),
        ("CONTINUATION of another stream", join(&[frame(HEADERS, END_STREAM, 1, &get()), frame(CONTINUATION, END_HEADERS, 3, none)]), Error(&[PROTOCOL])),
        ("CONTINUATION on no stream", join(&[frame(HEADERS, END_STREAM, 1, &get()), frame(CONTINUATION, END_HEADERS, 0, none)]), Error(&[PROTOCOL])),
        ("CONTINUATION behind a head that has ended", join(&[begin(1), frame(CONTINUATION, END_HEADERS, 1, none)]), Error(&[PROTOCOL])),

        // 8.1: requests and their trailers.
        ("trailers", join(&[begin(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, WHOLE, 1, &field("x-sum", "1"))]), Answer(200)),
        ("trailers that do not end the request", join(&[begin(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS, 1, &field("x-sum", "1"))]), Error(&[PROTOCOL])),
        // The RFC wants this refused; the library takes the field away before anybody sees it.
        ("a pseudo field among the trailers", join(&[begin(1), frame(HEADERS, WHOLE, 1, &field(":path", "/x"))]), Answer(200)),

        // 8.2: fields.
        ("a name in upper case", with(&field("X-Upper", "1")), Malformed),
        ("a name with a space", with(&field("x y", "1")), Malformed),
        ("a name with a colon", with(&field("x:y", "1")), Malformed),
        ("a name without a letter", with(&field("", "1")), Malformed),
        ("a value with a line feed", with(&field("x", "a\nb")), Malformed),
        ("a value with a carriage return", with(&field("x", "a\rb")), Malformed),
        ("a value with a zero", with(&field("x", "a\0b")), Malformed),
        ("Connection", with(&field("connection", "close")), Malformed),
        ("Keep-Alive", with(&field("keep-alive", "5")), Malformed),
        ("Proxy-Connection", with(&field("proxy-connection", "close")), Malformed),
        ("Transfer-Encoding", with(&field("transfer-encoding", "chunked")), Malformed),
        ("Upgrade", with(&field("upgrade", "websocket")), Malformed),
        ("TE of trailers", with(&field("te", "trailers")), Answer(200)),
        ("TE of something else", with(&field("te", "gzip")), Malformed),

        // 8.3: pseudo fields.
        ("a pseudo field that nobody knows", with(&field(":test", "1")), Malformed),
        ("a pseudo field of answers", with(&[0x88]), Malformed),
        ("a pseudo field behind others", frame(HEADERS, WHOLE, 1, &[&[0x82, 0x86][..], &authority(), &field("x", "1"), &[0x84]].concat()), Malformed),
        ("no method", frame(HEADERS, WHOLE, 1, &[&[0x84, 0x86][..], &authority()].concat()), Malformed),
        ("no scheme", frame(HEADERS, WHOLE, 1, &[&[0x82, 0x84][..], &authority()].concat()), Malformed),
        ("no path", frame(HEADERS, WHOLE, 1, &[&[0x82, 0x86][..], &authority()].concat()), Malformed),
        ("an empty path", frame(HEADERS, WHOLE, 1, &[&[0x82, 0x86][..], &authority(), &field(":path", "")].concat()), Malformed),
        ("a path that is none", frame(HEADERS, WHOLE, 1, &[&[0x82, 0x86][..], &authority(), &field(":path", "x y")].concat()), Malformed),
        ("a method twice", with(&[0x82]), Malformed),
        ("a path twice", with(&[0x84]), Malformed),
        ("a scheme twice", with(&[0x86]), Malformed),
        ("an authority twice", with(&authority()), Malformed),
        ("neither authority nor host", frame(HEADERS, WHOLE, 1, &[0x82, 0x84, 0x86]), Malformed),
        ("a host in the authority's place", frame(HEADERS, WHOLE, 1, &[&[0x82, 0x84, 0x86][..], &field("host", HOST)].concat()), Answer(200)),
        ("a host that says the same", with(&field("host", HOST)), Answer(200)),
        ("a host that says something else", with(&field("host", "other.apps.test")), Malformed),
        ("an authority with user data", frame(HEADERS, WHOLE, 1, &[&[0x82, 0x84, 0x86][..], &field(":authority", "user@table.apps.test")].concat()), Malformed),
        ("CONNECT", frame(HEADERS, WHOLE, 1, &[&field(":method", "CONNECT")[..], &authority()].concat()), Malformed),
        ("extended CONNECT, which was not offered", frame(HEADERS, WHOLE, 1, &[&field(":method", "CONNECT")[..], &field(":protocol", "websocket"), &[0x84, 0x86], &authority()].concat()), Malformed),

        // 8.1.1: lengths.
        ("a length that is right", join(&[frame(HEADERS, END_HEADERS, 1, &[&post()[..], &field("content-length", "2")].concat()), frame(DATA, END_STREAM, 1, b"ab")]), Answer(200)),
        ("a body that is too short", join(&[frame(HEADERS, END_HEADERS, 1, &[&post()[..], &field("content-length", "3")].concat()), frame(DATA, END_STREAM, 1, b"ab")]), Malformed),
        ("a body that is too long", join(&[frame(HEADERS, END_HEADERS, 1, &[&post()[..], &field("content-length", "1")].concat()), frame(DATA, END_STREAM, 1, b"ab")]), Malformed),
        ("no body where one was announced", frame(HEADERS, WHOLE, 1, &[&post()[..], &field("content-length", "3")].concat()), Malformed),
        ("two lengths", frame(HEADERS, END_HEADERS, 1, &[&post()[..], &field("content-length", "1"), &field("content-length", "2")].concat()), Malformed),
        ("a length that is no number", frame(HEADERS, END_HEADERS, 1, &[&post()[..], &field("content-length", "x")].concat()), Malformed),
    ]
}

/// One thing that the router has sent.
#[derive(Debug, PartialEq)]
enum Came {
    Status(u32, u16),
    Reset(u32),
    Goodbye(u32),
    Probe,
    End,
}

/// The next frame that says something.
async fn next(stream: &mut TcpStream) -> Came {
    loop {
        let mut start = [0; 9];
        if stream.read_exact(&mut start).await.is_err() {
            return Came::End;
        }
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize;
        let number = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return Came::End;
        }
        let word = |at: usize| u32::from_be_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
        match start[3] {
            HEADERS => {
                // The status comes first, by its place in the static table (RFC 7541, appendix A); a table's size may
                // come before it.
                let status = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                let known = [(0x88, 200), (0x89, 204), (0x8b, 304), (0x8c, 400), (0x8d, 404), (0x8e, 500)];
                let status = known.iter().find(|(byte, _)| Some(byte) == status).map_or(0, |(_, status)| *status);
                return Came::Status(number, status);
            }
            RST_STREAM => return Came::Reset(word(0)),
            GOAWAY => return Came::Goodbye(word(4)),
            PING if start[4] & ACK != 0 && payload == PROBE => return Came::Probe,
            _ => {}
        }
    }
}

/// Plays one case; what went wrong, if anything.
async fn check(address: SocketAddr, bytes: Vec<u8>, then: Then) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let probes = if matches!(then, Ignored) { join(&[frame(PING, 0, 0, PROBE), ask(1_001)]) } else { Vec::new() };
    let all = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &bytes, &probes].concat();
    // It may hang up before it has read everything.
    let _ = stream.write_all(&all).await;
    let mut came = Vec::new();
    loop {
        let Ok(now) = timeout(LONG, next(&mut stream)).await else { return Err(format!("nothing behind {came:?}")) };
        let enough = match (&now, then) {
            (Came::Status(_, status), Answer(expected)) => *status == expected,
            (Came::Status(1_001, 200), Ignored) => came.contains(&Came::Probe),
            (Came::Reset(code) | Came::Goodbye(code), Error(codes)) => codes.contains(code) || *code == PROTOCOL,
            (Came::Status(1, 400) | Came::Reset(PROTOCOL) | Came::Goodbye(PROTOCOL), Malformed) => true,
            (Came::End, Error(_) | Malformed) => true,
            _ => false,
        };
        if enough {
            return Ok(());
        }
        // Frames may overtake each other: a wanted one can still come. An end cannot be followed.
        if now == Came::End || came.len() > 20 {
            return Err(format!("the end behind {came:?}"));
        }
        came.push(now);
    }
}

#[tokio::test]
async fn frames_and_states_are_refused_and_taken_as_the_rfc_says() {
    let app = app("table", &[saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await]);
    let limits = Limits { router_http2_streams: 4, ..Limits::default() };
    let (router, _control) = Router::start(limits, &[&app]).await;
    let cases = cases();
    assert!(cases.len() > 100, "{}", cases.len());
    let mut all = JoinSet::new();
    for (what, bytes, then) in cases {
        let checked = check(router.address, bytes, then);
        all.spawn(async move { checked.await.map_err(|wrong| format!("{what}: {wrong}, wanted {then:?}")) });
    }
    let wrong: Vec<String> = all.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_connection_that_does_not_begin_with_the_preface_and_settings_is_refused() {
    let (router, _control) = Router::start(Limits::default(), &[]).await;
    let mut stream = router.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    let mut all = Vec::new();
    // A reset follows when bytes were left unread.
    let _ = soon("the end", stream.read_to_end(&mut all)).await;
    assert!(all.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&all));
    let mut stream = router.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    stream.write_all(&frame(PING, 0, 0, b"12345678")).await.expect("the router reads");
    loop {
        match soon("the end", next(&mut stream)).await {
            Came::End | Came::Goodbye(PROTOCOL) => break,
            Came::Probe | Came::Status(..) => panic!("it was taken"),
            Came::Goodbye(_) | Came::Reset(_) => {}
        }
    }
}
