//! A dyno's output on its way to those who want it, and input on its way in.

use std::io::{Read, Write};

use dozen_api::{frame, shim::Hello};
use dozen_domain::dyno::Exit;

use crate::dyno::{CLIENT, Setup, read_output};

#[test]
fn output_goes_on_where_a_reader_left_off() {
    let mut dyno = Setup::bash("echo one; read line; echo two")
        .with(|spec| {
            spec.record.logged = true;
            spec.client = Some(CLIENT);
        })
        .start();
    let mut first = dyno.connect(&Hello::Output { from: 0, ack: true });
    let piece = read_output(&mut first).expect("output");
    assert_eq!((piece.offset, piece.dropped, piece.bytes.as_slice()), (0, 0, &b"one\n"[..]));
    drop(first); // killed before it could store anything
    let mut client = dyno.attach();
    client.write_all(b"go\n").expect("sent");
    dyno.exit();
    let mut second = dyno.connect(&Hello::Output { from: 0, ack: true });
    let mut all = Vec::new();
    while let Some(piece) = read_output(&mut second).filter(|piece| !piece.bytes.is_empty()) {
        assert_eq!((piece.offset, piece.dropped), (all.len() as u64, 0));
        all.extend(piece.bytes);
    }
    assert_eq!(all, b"one\ntwo\n");
    // The end is said with an empty piece; what is stored is not sent again.
    second.write_all(&frame::encode(&4_u64).expect("encoded")).expect("sent");
    crate::dyno::wait_until("the stored part to go", || {
        let mut third = dyno.connect(&Hello::Output { from: 0, ack: false });
        read_output(&mut third).is_some_and(|piece| (piece.offset, piece.dropped) == (4, 0))
    });
}

#[test]
fn a_full_backlog_drops_the_oldest_and_says_how_much() {
    let mut dyno = Setup::bash("for n in {1..1000}; do printf '%099d\\n' $n; done")
        .with(|spec| {
            spec.record.logged = true;
            spec.backlog_bytes = 8_192;
            spec.hold_ms = 50;
        })
        .start();
    assert_eq!(dyno.exit(), Exit::Code(0), "a log that is not read does not hold a dyno up for long");
    let mut logs = dyno.connect(&Hello::Output { from: 0, ack: true });
    let first = read_output(&mut logs).expect("output");
    assert_eq!((first.offset, first.dropped), (100_000 - 8_192, 100_000 - 8_192));
    let mut end = first.offset + first.bytes.len() as u64;
    while let Some(piece) = read_output(&mut logs).filter(|piece| !piece.bytes.is_empty()) {
        assert_eq!((piece.offset, piece.dropped), (end, 0));
        end += piece.bytes.len() as u64;
    }
    assert_eq!(end, 100_000);
}

/// Writes far more than backlog and pipe hold.
const FLOOD: &str = "head -c 1000000 /dev/zero | tr '\\0' 'x'; echo end";

#[test]
fn a_dyno_is_slowed_down_to_the_speed_at_which_its_output_is_stored() {
    let mut dyno = Setup::bash(&format!("read go; {FLOOD}"))
        .with(|spec| {
            spec.record.logged = true;
            spec.client = Some(CLIENT);
            spec.backlog_bytes = 8_192;
            spec.hold_ms = 3_600_000; // for as long as it takes
        })
        .start();
    let mut logs = dyno.connect(&Hello::Output { from: 0, ack: true });
    let mut client = dyno.attach();
    client.write_all(b"go\n").expect("sent");
    let mut end = 0;
    while let Some(piece) = read_output(&mut logs).filter(|piece| !piece.bytes.is_empty()) {
        assert_eq!((piece.offset, piece.dropped), (end, 0), "nothing is dropped");
        end += piece.bytes.len() as u64;
        logs.write_all(&frame::encode(&end).expect("encoded")).expect("sent");
    }
    assert_eq!(end, 1_000_004);
    assert_eq!(dyno.exit(), Exit::Code(0));
}

#[test]
fn nothing_is_dropped_when_somebody_else_comes_to_store_within_the_hold() {
    let mut dyno = Setup::bash(&format!("read go; {FLOOD}"))
        .with(|spec| {
            spec.record.logged = true;
            spec.client = Some(CLIENT);
            spec.backlog_bytes = 8_192;
            spec.hold_ms = 3_600_000;
        })
        .start();
    let mut client = dyno.attach();
    client.write_all(b"go\n").expect("sent");
    let mut end = 0;
    // Each stores a little and is killed.
    while end < 1_000_004 {
        let mut logs = dyno.connect(&Hello::Output { from: end, ack: true });
        for _ in 0..10 {
            let Some(piece) = read_output(&mut logs).filter(|piece| !piece.bytes.is_empty()) else { break };
            assert_eq!((piece.offset, piece.dropped), (end, 0), "nothing is dropped");
            end += piece.bytes.len() as u64;
            logs.write_all(&frame::encode(&end).expect("encoded")).expect("sent");
        }
    }
    assert_eq!(dyno.exit(), Exit::Code(0));
}

#[test]
fn a_dyno_is_not_held_up_for_long_when_storing_does_not_go_on() {
    let mut dyno = Setup::bash(&format!("read go; {FLOOD}"))
        .with(|spec| {
            spec.record.logged = true;
            spec.client = Some(CLIENT);
            spec.backlog_bytes = 8_192;
            spec.hold_ms = 50;
        })
        .start();
    // Somebody who stores is there, and stuck: nothing is ever acknowledged.
    let mut logs = dyno.connect(&Hello::Output { from: 0, ack: true });
    let mut client = dyno.attach();
    client.write_all(b"go\n").expect("sent");
    assert_eq!(dyno.exit(), Exit::Code(0), "it came to its end without anybody storing its output");
    let (mut end, mut dropped) = (0, 0);
    while let Some(piece) = read_output(&mut logs).filter(|piece| !piece.bytes.is_empty()) {
        assert_eq!(piece.offset, end + piece.dropped, "what is missing is counted where it is missing");
        dropped += piece.dropped;
        end = piece.offset + piece.bytes.len() as u64;
    }
    assert_eq!(end, 1_000_004);
    assert!(dropped > 0, "more was written than there was room for");
}

#[test]
fn an_attached_client_gets_every_byte_however_slow_it_is() {
    let mut dyno = Setup::bash("read go; head -c 3000000 /dev/zero; echo end")
        .with(|spec| {
            spec.client = Some(CLIENT);
            spec.backlog_bytes = 64 << 10;
        })
        .start();
    let mut client = dyno.attach();
    client.write_all(b"go\n").expect("sent");
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("all of it");
    assert_eq!((all.len(), all.ends_with(b"end\n")), (3_000_004, true));
    assert_eq!(dyno.exit(), Exit::Code(0));
}

#[test]
fn the_end_of_a_clients_input_is_the_end_of_the_dynos() {
    let mut dyno = Setup::new(&["/usr/bin/wc", "-c"]).with(|spec| spec.client = Some(CLIENT)).start();
    let mut client = dyno.attach();
    client.write_all(&vec![b'x'; 1_000_000]).expect("sent");
    client.shutdown(std::net::Shutdown::Write).expect("half closed");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "1000000\n");
    assert_eq!(dyno.exit(), Exit::Code(0));
}

#[test]
fn a_dyno_with_a_terminal_knows_its_size_and_name() {
    let mut dyno = Setup::bash("stty size; tty; read line; echo got $line")
        .with(|spec| {
            spec.terminal = Some((100, 40));
            spec.client = Some(CLIENT);
        })
        .start();
    let mut client = dyno.attach();
    client.write_all(b"word\n").expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    for line in ["40 100\r\n", "/dev/pts/0\r\n", "got word\r\n"] {
        assert!(answer.contains(line), "{answer:?}");
    }
    assert_eq!(dyno.exit(), Exit::Code(0));
}

#[test]
fn without_input_a_dyno_reads_the_end_at_once() {
    let mut dyno = Setup::new(&["/usr/bin/wc", "-c"]).start();
    assert_eq!(dyno.exit(), Exit::Code(0));
    assert_eq!(dyno.output(), "0\n");
}

#[test]
fn nonsense_closes_the_connection_and_nothing_else() {
    let mut dyno = Setup::bash("read line").with(|spec| spec.client = Some(CLIENT)).start();
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x04\0\0\0what", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream =
            dozen_api::socket::connect_blocking(&dyno.directory.join(dozen_runtime::shim::SOCKET)).expect("it listens");
        stream.set_read_timeout(Some(crate::dyno::LONG)).expect("a timeout");
        stream.write_all(nonsense).expect("sent");
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
    let mut client = dyno.attach();
    client.write_all(b"\n").expect("sent");
    assert_eq!(dyno.exit(), Exit::Code(0));
}
