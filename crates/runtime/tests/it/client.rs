//! The client of a one-off dyno: taken once, waited for a while, and followed by signals when it is gone.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use dozen_api::{
    frame,
    shim::{Client, Event, Hello},
};
use dozen_domain::dyno::Exit;

use crate::dyno::{CLIENT, Dyno, Setup};

/// What happens until the dyno's end, without times.
fn story(dyno: &mut Dyno) -> Vec<String> {
    let mut story = Vec::new();
    loop {
        let event: Event = frame::read_blocking(&mut dyno.control).expect("an event").expect("an event");
        let word = match &event {
            Event::HungUp { attempt, .. } => format!("hung up {attempt}"),
            Event::Detached { .. } => "detached".to_owned(),
            Event::NotAttached { .. } => "not attached".to_owned(),
            Event::Stopping { .. } => "stopping".to_owned(),
            Event::Exited { exit, .. } => {
                story.push(format!("exited {}", exit.status()));
                return story;
            }
            _ => continue,
        };
        story.push(word);
    }
}

fn short(change: impl FnOnce(&mut Client)) -> Client {
    let mut client = Client { hangup_ms: 20, ..CLIENT };
    change(&mut client);
    client
}

#[test]
fn a_second_client_is_refused_and_the_first_keeps_its_dyno() {
    let mut dyno = Setup::new(&["/bin/cat"]).with(|spec| spec.client = Some(CLIENT)).start();
    let mut first = dyno.attach();
    let mut second = dyno.connect(&Hello::Attach);
    assert_eq!(frame::read_blocking::<_, bool>(&mut second).expect("an answer"), Some(false));
    first.write_all(b"still mine\n").expect("sent");
    first.shutdown(Shutdown::Write).expect("half closed");
    let mut answer = String::new();
    first.read_to_string(&mut answer).expect("an answer");
    assert_eq!((answer.as_str(), dyno.exit()), ("still mine\n", Exit::Code(0)));
}

#[test]
fn without_its_client_a_dyno_is_stopped() {
    let client = short(|client| client.wait_ms = 50);
    let mut dyno = Setup::new(&["/bin/sleep", "600"]).with(|spec| spec.client = Some(client)).start();
    assert_eq!(story(&mut dyno), ["not attached", "stopping", "exited 143"]);
    let mut late = dyno.connect(&Hello::Attach);
    assert_eq!(frame::read_blocking::<_, bool>(&mut late).expect("an answer"), Some(false));
}

#[test]
fn a_dyno_whose_client_is_gone_is_hung_up_and_usually_ends() {
    let client = short(|client| client.hangup_ms = 60_000);
    let mut dyno = Setup::bash("sleep 600 & wait").with(|spec| spec.client = Some(client)).start();
    drop(dyno.attach());
    assert_eq!(story(&mut dyno), ["hung up 1", "exited 129"]);
}

#[test]
fn a_dyno_that_ignores_it_goes_on_without_its_client() {
    let script = "n=0; trap 'n=$((n+1)); echo $n > /tmp/hups' HUP; echo up; while [ $n -lt 3 ]; do read -t 0.01 x <> <(:); done; \
                  sleep 0.3; cat /tmp/hups > /app/said; yes 'nobody reads this' | head -c 3000000; exit 7";
    let client = short(|_| ());
    let mut dyno = Setup::bash(script).with(|spec| spec.client = Some(client)).start();
    dyno.attach().read_exact(&mut [0; 3]).expect("the trap is set");
    assert_eq!(story(&mut dyno), ["hung up 1", "hung up 2", "hung up 3", "detached", "exited 7"]);
}

#[test]
fn silence_ends_the_session() {
    let client = short(|client| (client.idle_ms, client.hangup_ms) = (100, 60_000));
    let mut dyno = Setup::new(&["/bin/cat"]).with(|spec| spec.client = Some(client)).start();
    let mut attached = dyno.attach();
    let mut rest = Vec::new();
    attached.read_to_end(&mut rest).expect("the end");
    assert_eq!((rest.len(), story(&mut dyno)), (0, vec!["hung up 1".to_owned(), "exited 129".to_owned()]));
}

#[test]
fn output_waits_for_the_client_and_outlives_the_dyno() {
    let mut dyno = Setup::bash("head -c 200000 /dev/zero; echo end").with(|spec| spec.client = Some(CLIENT)).start();
    assert_eq!(dyno.exit(), Exit::Code(0));
    let mut all = Vec::new();
    dyno.attach().read_to_end(&mut all).expect("all of it");
    assert_eq!((all.len(), all.ends_with(b"end\n")), (200_004, true));
}

#[test]
fn a_backlog_that_is_full_holds_the_dyno_up_until_the_client_comes() {
    let mut dyno = Setup::bash("head -c 3000000 /dev/zero; echo end")
        .with(|spec| (spec.client, spec.backlog_bytes) = (Some(CLIENT), 64 << 10))
        .start();
    let mut all = Vec::new();
    dyno.attach().read_to_end(&mut all).expect("all of it");
    assert_eq!((all.len(), all.ends_with(b"end\n"), dyno.exit()), (3_000_004, true, Exit::Code(0)));
}

#[test]
fn many_megabytes_of_any_bytes_go_through_unharmed() {
    let mut dyno = Setup::new(&["/bin/cat"]).with(|spec| spec.client = Some(CLIENT)).start();
    let sent: Vec<u8> = (0..48_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut client = dyno.attach();
    let mut to = client.try_clone().expect("a second handle");
    let bytes = sent.clone();
    let sending = std::thread::spawn(move || {
        to.write_all(&bytes).expect("sent");
        to.shutdown(Shutdown::Write).expect("half closed");
    });
    let mut back = Vec::new();
    client.read_to_end(&mut back).expect("all of it");
    sending.join().expect("sent");
    assert!(back == sent, "{} of {} bytes came back", back.len(), sent.len());
    assert_eq!(dyno.exit(), Exit::Code(0));
}
