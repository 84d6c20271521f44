//! Clients of one-off dynos and of commands inside dynos: what they are told, and the protocol at the TLS port.

use dozen_api::engine::{Attach, Program};
use dozen_domain::dyno::Exit;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    listening::tls,
    server::{Server, until},
};

async fn shop() -> Server {
    let server = Server::start().await;
    server.app("shop").await;
    *server.builds.types.lock().expect("not poisoned") = vec![("web", "serve"), ("worker", "work --hard")];
    let repository = server.repository("shop").await;
    repository.commit("Procfile", "web: serve", "first").await;
    let (pushed, said) = repository.push().await;
    assert!(pushed, "{said}");
    server
}

async fn run(server: &Server, body: &Value) -> (u16, Value) {
    server.api("POST", "/apps/shop/dynos", body).await
}

/// The secret of an attach URL, which leads to the TLS port.
fn secret(answer: &Value) -> String {
    let url = answer["attach_url"].as_str().expect("an attach URL");
    let rest = url.strip_prefix("rendezvous://127.0.0.1:").expect("a rendezvous");
    rest.split_once('/').expect("a secret").1.to_owned()
}

/// Says a first line; what is answered in the first record, nothing if the connection ends instead.
async fn say(server: &Server, line: &str) -> (TlsStream<TcpStream>, Vec<u8>) {
    let mut stream = tls(server, "localhost").await.expect("a connection");
    stream.write_all(line.as_bytes()).await.expect("sent");
    stream.flush().await.expect("sent");
    // The buffer holds one record at a time; reading would join what has arrived by then.
    let first = stream.fill_buf().await.expect("an answer").to_vec();
    stream.consume(first.len());
    (stream, first)
}

const GREETING: &[u8] = b"rendezvous\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_greeted_alone_and_then_both_sides_are_raw() {
    let server = shop().await;
    server.engine.hold_one_offs(true);
    let body = json!({"command": "worker --once", "attach": true, "env": {"TERM": "xterm", "COLUMNS": 0, "LINES": 0}});
    let (status, answer) = run(&server, &body).await;
    assert_eq!((status, &answer["command"]), (201, &json!("work --hard --once")));
    let started = server.engine.one_offs().remove(0);
    assert_eq!((started.attach, started.logged), (Some(Attach::Terminal { columns: 80, rows: 24 }), false));
    server.engine.print(started.dyno, "early output\n");
    let (mut stream, first) = say(&server, &format!("{}\r\n", secret(&answer))).await;
    assert_eq!(first, GREETING, "nothing else in the first record");
    let mut output = vec![0; 13];
    stream.read_exact(&mut output).await.expect("output");
    assert_eq!(output, b"early output\n");
    stream.write_all(b"\x03\x04").await.expect("typed");
    until("the keys to arrive", || async { (server.engine.typed(started.dyno) == b"\x03\x04").then_some(()) }).await;
    server.engine.finish(started.dyno, Exit::Code(0));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(rest, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_there_are_pipes_and_a_0x04_ends_the_input() {
    let server = shop().await;
    server.engine.hold_one_offs(true);
    for env in [json!({"TERM": "dumb"}), json!({"COLUMNS": 90, "LINES": 30})] {
        let body = json!({"command": "cat", "attach": true, "env": env, "force_no_tty": true});
        let (_, answer) = run(&server, &body).await;
        let started = server.engine.one_offs().pop().expect("one");
        assert_eq!(started.attach, Some(Attach::Pipes));
        // A client that sends no line end after its secret, and one that asks for exactness.
        let line = if env["TERM"].is_null() { format!("{}?eof=close\r\n", secret(&answer)) } else { secret(&answer) };
        let (mut stream, first) = say(&server, &line).await;
        assert_eq!(first, GREETING);
        stream.write_all(b"all\x04").await.expect("sent");
        let expected: &[u8] = if env["TERM"].is_null() { b"all\x04" } else { b"all" };
        until("the input to arrive", || async { (server.engine.typed(started.dyno) == expected).then_some(()) }).await;
        server.engine.finish(started.dyno, Exit::Code(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_good_once_and_only_whole() {
    let server = shop().await;
    server.engine.hold_one_offs(true);
    let (_, answer) = run(&server, &json!({"command": "bash", "attach": true})).await;
    let secret = secret(&answer);
    let mut forged = secret.clone();
    forged.replace_range(40..41, if &secret[40..41] == "0" { "1" } else { "0" });
    let other = server.app("other").await;
    let guessed = format!("0{}{}", other.id.0.simple(), &secret[33..]);
    for wrong in [forged, guessed, secret[..96].to_owned(), "a".repeat(5000), secret.to_uppercase()] {
        let (_, answered) = say(&server, &format!("{wrong}\r\n")).await;
        assert!(answered.is_empty(), "{wrong} is not answered");
    }
    let (_first, greeted) = say(&server, &format!("{secret}\r\n")).await;
    assert_eq!(greeted, GREETING);
    let (_second, refused) = say(&server, &format!("{secret}\r\n")).await;
    assert!(refused.is_empty(), "a replay is not answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_status_is_told_even_if_the_command_leaves_its_shell() {
    let server = shop().await;
    server.engine.answer("exit 3", Exit::Code(3), "out\n");
    let command = "exit 3 ; echo \"\u{FFFF} heroku-command-exit-status: $?\"";
    let (_, answer) = run(&server, &json!({"command": command, "attach": true})).await;
    let (mut stream, _) = say(&server, &format!("{}\r\n", secret(&answer))).await;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("text");
    assert_eq!(said, "out\n\u{FFFF} heroku-command-exit-status: 3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_inside_a_dyno_begins_when_its_client_is_there() {
    let server = shop().await;
    server.engine.hold_one_offs(true);
    let (_, one) = run(&server, &json!({"command": "worker"})).await;
    let name = one["name"].as_str().expect("a name");
    let path = format!("/apps/shop/dynos/{name}");
    let body = json!({"command": "worker --now", "env": {"TERM": "xterm", "COLUMNS": 100, "LINES": 40}});
    let (status, answer) = server.api("POST", &path, &body).await;
    assert_eq!((status, answer["name"].as_str()), (201, Some(name)));
    assert!(server.engine.entered().is_empty(), "nothing runs before its client is there");
    let line = format!("{}\r\n", secret(&answer));
    let (mut stream, greeted) = say(&server, &line).await;
    assert_eq!(greeted, GREETING);
    let (dyno, inside) = server.engine.entered().remove(0);
    assert_eq!(json!(dyno.0), one["id"]);
    assert_eq!(inside.program, Program::Command("work --hard --now".to_owned()));
    assert_eq!(inside.attach, Attach::Terminal { columns: 100, rows: 40 });
    assert_eq!(inside.env["TERM"], "xterm");
    stream.write_all(b"echo").await.expect("typed");
    let mut said = [0; 4];
    stream.read_exact(&mut said).await.expect("an echo");
    let (_, replayed) = say(&server, &line).await;
    assert!(replayed.is_empty());
    let (status, _) = server.api("POST", "/apps/shop/dynos/web.77", &body).await;
    assert_eq!(status, 404);
}

/// Nor do an app's own dynos open another one's to whoever knows their names.
#[tokio::test(flavor = "multi_thread")]
async fn another_apps_dyno_is_not_there() {
    let server = shop().await;
    server.app("other").await;
    server.engine.hold_one_offs(true);
    let (_, dyno) = run(&server, &json!({"command": "worker"})).await;
    for identity in [&dyno["name"], &dyno["id"]] {
        let identity = identity.as_str().expect("a text");
        let path = format!("/apps/other/dynos/{identity}");
        assert_eq!(server.api("POST", &path, &json!({"command": "true"})).await.0, 404, "{identity}");
        assert_eq!(server.api("DELETE", &path, &json!({})).await.0, 404, "{identity}");
    }
    assert!(server.engine.entered().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_started_are_refused_with_what_to_do() {
    let server = shop().await;
    server.engine.hold_one_offs(true);
    let (status, answer) = run(&server, &json!({"command": "x".repeat(1_000_000), "attach": true})).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(status == 422 && message.contains("at most 120000") && message.len() < 300, "{message}");
    let eco = json!({"command": "bash", "size": "eco", "attach": false});
    let (status, running) = run(&server, &eco).await;
    assert_eq!(status, 201);
    // Nor is it for a command inside a dyno.
    let path = format!("/apps/shop/dynos/{}", running["name"].as_str().expect("a name"));
    let (status, answer) = server.api("POST", &path, &json!({"command": "x".repeat(1_000_000)})).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(status == 422 && message.contains("at most 120000") && message.len() < 300, "{message}");
    let (status, answer) = run(&server, &eco).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(status == 422 && message.starts_with("Cannot run more than 1 Eco one-off dynos"), "{message}");
    assert_eq!(run(&server, &json!({"command": "bash", "attach": false})).await.0, 201, "of another size");
    assert_eq!(server.engine.one_offs().len(), 2);
}
