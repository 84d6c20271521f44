//! Lines of other roles, and what happens when history cannot be kept.

use dozen_api::{
    frame,
    logs::{Hello, Line, Session, Source, encode, remove},
    socket,
};
use dozen_domain::ids::AppId;
use uuid::Uuid;

use crate::{
    role::{LONG, Role, all, line, text, untimed},
    shim::Shim,
};

fn batch(number: u64, lines: &[Line]) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    lines.iter().for_each(|line| encode(line, &mut bytes));
    bytes
}

#[tokio::test]
async fn lines_of_roles_and_dynos_come_in_one_order() {
    let role = Role::start().await;
    let app = AppId::random();
    let sender = role.sender();
    let shim = Shim::start(&role.dynos(), app, "web.1", 100);
    let mut tail = role.session(Session { tail: true, ..all(app) });
    tail.caught().await;
    sender.send(line(app, Source::App, "api", "Release v2 created by user a@example.com"));
    let mut got = tail.until("Release v2 created by user a@example.com").await;
    sender.send(line(app, Source::Heroku, "web.1", "State changed from starting to up"));
    got.extend(tail.until("State changed from starting to up").await);
    shim.write("listening\n");
    dozen_api::logs::announce(&role.socket(), shim.dyno).await.unwrap();
    got.extend(tail.until("listening").await);
    sender.send(line(app, Source::Heroku, "router", "at=info method=GET path=\"/\""));
    got.extend(tail.until("at=info method=GET path=\"/\"").await);
    let shown: Vec<&str> = got.iter().map(|(_, line)| untimed(line)).collect();
    assert_eq!(
        shown,
        [
            "app[api]: Release v2 created by user a@example.com",
            "heroku[web.1]: State changed from starting to up",
            "app[web.1]: listening",
            "heroku[router]: at=info method=GET path=\"/\"",
        ]
    );
    assert_eq!(got[0].1, "2024-01-01T00:00:00.000000+00:00 app[api]: Release v2 created by user a@example.com");
    let history = role.history(app).await;
    assert_eq!(history, got.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>());
    assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_stored_once_even_after_a_restart() {
    let mut role = Role::start().await;
    let apps = [AppId::random(), AppId::random()];
    let hello = Hello::Ingest { role: "test".to_owned(), sender: Uuid::new_v4() };
    let lines = apps.map(|app| line(app, Source::App, "api", "once"));
    for number in [1, 1, 2] {
        // The last batch holds one app's line only: the numbers of the other go on all the same.
        let sent = if number == 1 { &lines[..] } else { &lines[..1] };
        for _ in 0..2 {
            let mut connection = socket::connect(&role.socket()).await.unwrap();
            frame::write(&mut connection, &hello).await.unwrap();
            frame::write_bytes(&mut connection, &batch(number, sent)).await.unwrap();
            assert_eq!(frame::read_bytes(&mut connection).await.unwrap(), Some(Vec::new()));
        }
        role.restart().await;
    }
    assert_eq!(role.history(apps[0]).await.len(), 2);
    assert_eq!(role.history(apps[1]).await.len(), 1);
}

#[tokio::test]
async fn a_sender_keeps_its_lines_while_the_role_is_away() {
    let mut role = Role::start().await;
    let app = AppId::random();
    let sender = role.sender();
    for n in 0..2_000 {
        sender.send(line(app, Source::Heroku, "router", &n.to_string()));
        if n % 500 == 250 {
            role.stop().await;
            tokio::task::yield_now().await;
            role.run().await;
        }
    }
    role.limits.log_history_lines = 1_000_000;
    let mut tail = role.session(Session { tail: true, lines: 1_500, ..all(app) });
    let got = tail.until("1999").await;
    let numbers: Vec<usize> = got.iter().map(|(_, line)| text(line).parse().unwrap()).collect();
    let first = numbers[0];
    assert_eq!(numbers, (first..2_000).collect::<Vec<_>>());
    assert!(numbers.len() >= 1_500);
}

#[tokio::test]
async fn a_line_of_several_lines_becomes_several() {
    let role = Role::start().await;
    let app = AppId::random();
    let sender = role.sender();
    sender.send(line(app, Source::App, "api", "first\r\nsecond\n"));
    sender.send(line(app, Source::App, "api", &"x".repeat(10_001)));
    sender.send(line(app, Source::App, "api", "end"));
    let lines = role.history_up_to(app, "end").await;
    let lengths: Vec<usize> = lines.iter().map(|line| text(line).len()).collect();
    assert_eq!(lengths, [5, 6, 10_000, 1, 3]);
}

#[tokio::test]
async fn a_removed_app_has_no_history_and_its_tails_end() {
    let role = Role::start().await;
    let (app, other) = (AppId::random(), AppId::random());
    let sender = role.sender();
    sender.send(line(app, Source::App, "api", "one"));
    sender.send(line(other, Source::App, "api", "other"));
    let mut tail = role.session(Session { tail: true, ..all(app) });
    tail.until("one").await;
    role.history_up_to(other, "other").await;
    let directory = role.directory.path().join("logs").join(app.to_string());
    assert!(directory.exists());
    remove(&role.socket(), app).await.unwrap();
    remove(&role.socket(), app).await.unwrap();
    assert!(!directory.exists());
    assert!(tail.rest().await.is_empty());
    sender.send(line(app, Source::App, "api", "too late"));
    sender.send(line(other, Source::App, "api", "end"));
    role.history_up_to(other, "end").await;
    assert!(!directory.exists());
    assert!(role.history(app).await.is_empty());
}

#[tokio::test]
async fn lines_that_cannot_be_stored_are_shown_counted_and_told() {
    let role = Role::start().await;
    let app = AppId::random();
    let sender = role.sender();
    let mut tail = role.session(Session { tail: true, ..all(app) });
    tail.caught().await;
    let directory = role.directory.path().join("logs").join(app.to_string());
    std::fs::write(&directory, "in the way").unwrap();
    for n in 0..3 {
        sender.send(line(app, Source::App, "api", &n.to_string()));
    }
    let shown = tail.until("2").await;
    assert_eq!(shown.len(), 3);
    std::fs::remove_file(&directory).unwrap();
    sender.send(line(app, Source::App, "api", "room again"));
    let shown = tail.until("room again").await;
    let told = "heroku[logplex]: Error L15 (Tail buffer temporarily unavailable) -> 3 messages are missing from the \
                history since ";
    assert!(untimed(&shown[0].1).starts_with(told), "{}", shown[0].1);
    assert_eq!(role.history(app).await, shown.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>());
}

#[tokio::test]
async fn history_that_cannot_be_read_is_told_and_new_lines_come_all_the_same() {
    let role = Role::start().await;
    let app = AppId::random();
    std::fs::create_dir_all(role.directory.path().join("logs")).unwrap();
    std::fs::write(role.directory.path().join("logs").join(app.to_string()), "in the way").unwrap();
    let mut tail = role.session(Session { tail: true, ..all(app) });
    let told = tail.caught().await;
    assert_eq!(untimed(&told[0]), "heroku[logplex]: Error L15 (Tail buffer temporarily unavailable)");
    role.sender().send(line(app, Source::App, "api", "new"));
    tail.until("new").await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_a_clear_error_at_the_start() {
    let role = Role::stopped(dozen_domain::limits::Limits::default());
    let mut options = role.options();
    options.logs_dir = role.directory.path().join("file/logs");
    std::fs::write(role.directory.path().join("file"), "").unwrap();
    let run = dozen_logs::run(options, std::future::pending());
    let error = tokio::time::timeout(LONG, run).await.unwrap().unwrap_err();
    let shown = error.to_string();
    assert!(shown.starts_with("cannot write log history in ") && shown.contains("give the platform's user"), "{shown}");
}

/// A small disk of its own, unmounted with the test.
struct Disk(std::path::PathBuf);

impl Disk {
    /// Mounts it; `None` for an ordinary user, who may not.
    fn mount(at: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&at).output().ok()?.status.success();
        mounted.then_some(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_is_outlived_and_the_missing_lines_are_counted() {
    let mut role = Role::stopped(dozen_domain::limits::Limits::default());
    let logs = role.directory.path().join("logs");
    let Some(_disk) = Disk::mount(logs.clone()) else { return };
    let app = AppId::random();
    role.run().await;
    let shim = Shim::start(&role.dynos(), app, "web.1", 4_096);
    dozen_api::logs::announce(&role.socket(), shim.dyno).await.unwrap();
    shim.write("stored\n");
    shim.acknowledged(7).await;
    let room = logs.join("full");
    let mut filler = std::fs::File::create(&room).unwrap();
    while std::io::Write::write(&mut filler, &[0; 512]).is_ok() {}
    let mut tail = role.session(Session { tail: true, ..all(app) });
    tail.until("stored").await;
    let long = "x".repeat(5_000);
    let mut shown = Vec::new();
    for n in 0..10 {
        shim.write(format!("{n} {long}\n"));
        shown.extend(tail.until(&format!("{n} {long}")).await);
    }
    let lost = 7 + 10 * 5_003;
    shim.acknowledged(lost).await;
    drop(filler);
    std::fs::remove_file(&room).unwrap();
    shim.write("room again\n");
    shown.extend(tail.until("room again").await);
    let told = "heroku[logplex]: Error L15 (Tail buffer temporarily unavailable) -> ";
    let counts = shown.iter().filter_map(|(_, line)| untimed(line).strip_prefix(told)?.split(' ').next());
    let missing: usize = counts.map(|count| count.parse::<usize>().unwrap()).sum();
    let stored = role.history(app).await;
    let kept = stored.iter().filter(|line| text(line).ends_with(&long)).count();
    assert_eq!(missing + kept, 10);
    assert!(missing > 0);
    assert_eq!([text(&stored[0]), text(&stored[stored.len() - 1])], ["stored", "room again"]);
    // The position went on with the lines that were given up: after a restart none of them comes again.
    role.restart().await;
    shim.write("end\n");
    role.history_up_to(app, "end").await;
    assert_eq!(shim.connections(), [0, lost + 11]);
}
