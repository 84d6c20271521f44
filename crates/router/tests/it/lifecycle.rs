//! The router while control dies, comes back, or was never there; and its own stop.

use dozen_domain::limits::Limits;
use tokio::io::AsyncWriteExt;

use crate::harness::{Answer, Control, LONG, Router, app, assert_line, get, read_head, saying, short, soon, web};

const ONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
const TWO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo";

#[tokio::test]
async fn routing_goes_on_while_control_is_dead_and_follows_the_next_one() {
    let one = app("one", &[saying(ONE).await]);
    let (router, control) = Router::start(Limits::default(), &[&one]).await;
    drop(control);
    assert_eq!(router.get(&one, "/").await.body, "one");
    let two = app("two", &[saying(TWO).await]);
    let _control = Control::start(&router.run(), vec![two.clone()]).await;
    assert_eq!(router.get(&two, "/").await.body, "two");
    assert_eq!(router.get(&one, "/").await.status(), 404);
}

#[tokio::test]
async fn control_is_told_which_dynos_that_left_still_have_requests() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let answering = std::sync::Arc::new(tokio::sync::Notify::new());
    let may = answering.clone();
    let slow = web(move |mut stream| {
        let (asked, may) = (asked.clone(), may.clone());
        async move {
            read_head(&mut stream).await;
            let _ = asked.send(());
            may.notified().await;
            let _ = stream.write_all(ONE.as_bytes()).await;
        }
    })
    .await;
    let mut one = app("one", &[slow]);
    let (router, mut control) = Router::start(Limits::default(), &[&one]).await;
    let mut stream = router.send(&get(&one, "/")).await;
    soon("the request", was_asked.recv()).await.expect("a request");
    let old = one.dynos[0].id;
    one.dynos[0] = app("one", &[saying(TWO).await]).dynos.remove(0);
    let ack = control.upsert(&one).await;
    assert_eq!(ack.busy, [old]);
    // New requests go to the other one meanwhile.
    assert_eq!(router.get(&one, "/").await.body, "two");
    answering.notify_one();
    assert_eq!(Answer::read(&mut stream).await.body, "one");
    let again = control.hear().await;
    assert_eq!((again.generation, again.busy), (ack.generation, Vec::new()));
}

#[tokio::test]
async fn a_router_without_control_starts_from_the_table_on_disk() {
    let one = app("one", &[saying(ONE).await]);
    let (router, control) = Router::start(Limits::default(), &[&one]).await;
    drop(control);
    let saved = router.run().join("routes.json");
    soon("the table on disk", async {
        while !saved.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let directory = router.stop().await;
    let router = Router::with(Limits::default(), directory, None);
    assert_eq!(router.get(&one, "/").await.body, "one");
}

#[tokio::test]
async fn a_table_on_disk_that_makes_no_sense_is_passed_over() {
    let directory = tempfile::TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("routes.json"), b"{\"snapshot\":").expect("a file");
    let router = Router::with(Limits::default(), directory, None);
    let one = app("one", &[saying(ONE).await]);
    let _control = Control::start(&router.run(), vec![one.clone()]).await;
    assert_eq!(router.get(&one, "/").await.body, "one");
}

#[tokio::test]
async fn requests_wait_for_the_first_table_but_not_for_ever() {
    let one = app("one", &[saying(ONE).await]);
    let router = Router::alone(Limits { router_table_wait_ms: LONG.as_millis() as u64, ..Limits::default() });
    let mut waiting = router.send(&get(&one, "/")).await;
    let _control = Control::start(&router.run(), vec![one.clone()]).await;
    assert_eq!(Answer::read(&mut waiting).await.body, "one");

    let router = Router::alone(short());
    assert_eq!(router.get(&one, "/").await.status(), 503);
}

#[tokio::test]
async fn open_requests_finish_when_the_router_stops() {
    let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = web(move |mut stream| {
        let (begin, mut released) = (begin.clone(), released.clone());
        async move {
            read_head(&mut stream).await;
            let _ = begin.send(());
            let _ = released.wait_for(|released| *released).await;
            let _ = stream.write_all(ONE.as_bytes()).await;
        }
    })
    .await;
    let app = app("slow", &[slow]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let mut idle = router.send("").await;
    let mut open = router.send(&get(&app, "/")).await;
    soon("the request", begun.recv()).await;
    router.begin_stop();
    // An idle connection is closed at once.
    assert_eq!(read_head(&mut idle).await, "");
    release.send_replace(true);
    let answer = Answer::read(&mut open).await;
    assert_eq!(answer.body, "one");
    assert_line(&router.lines.next().await, &["at=info", "status=200"]);
    router.stop().await;
}

#[tokio::test]
async fn requests_that_do_not_finish_in_time_are_cut_with_h24() {
    let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let stuck = web(move |mut stream| {
        let begin = begin.clone();
        async move {
            read_head(&mut stream).await;
            let _ = begin.send(());
            read_head(&mut stream).await;
        }
    })
    .await;
    let app = app("stuck", &[stuck]);
    let (mut router, _control) = Router::start(Limits { router_drain_ms: 50, ..Limits::default() }, &[&app]).await;
    let _open = router.send(&get(&app, "/")).await;
    soon("the request", begun.recv()).await;
    router.begin_stop();
    let line = router.lines.next().await;
    assert_line(&line, &["at=error code=H24 desc=\"Forced close\"", "dyno=web.1", " status= bytes=0 "]);
    router.stop().await;
}
