//! Which app answers, which dyno, and what is said when none does.

use dozen_api::routes::{DynoState, Mode};
use dozen_domain::limits::Limits;

use crate::harness::{
    Control, Router, app, assert_line, dyno, field, get, mirror, nobody, read_head, saying, short, soon, web,
};

const ONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
const TWO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo";

#[tokio::test]
async fn a_request_reaches_the_dyno_with_the_routers_fields_and_leaves_a_line() {
    let app = app("first", &[mirror().await]);
    let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
    let answer = router
        .ask(
            "GET /x?q=1 HTTP/1.1\r\nHost: First.Apps.Test:8080\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Request-Id: 0123456789abcdef0123\r\nConnection: keep-alive, x-drop\r\nX-Drop: 1\r\n\r\n",
        )
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("via").as_deref(), Some("1.1 heroku-router"));
    assert_eq!(answer.field("server").as_deref(), Some("Heroku"));
    assert!(answer.body.starts_with("GET /x?q=1 HTTP/1.1\r\n"), "{}", answer.body);
    let seen = |name: &str| field(&answer.body, name);
    assert_eq!(seen("host").as_deref(), Some("First.Apps.Test:8080"));
    assert_eq!(seen("x-forwarded-for").as_deref(), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(seen("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen("x-forwarded-port"), Some(router.address.port().to_string()));
    assert_eq!(seen("x-request-id").as_deref(), Some("0123456789abcdef0123"));
    assert_eq!(seen("via").as_deref(), Some("1.1 heroku-router"));
    assert_eq!((seen("x-drop"), seen("connection")), (None, None));
    assert!(seen("x-request-start").is_some_and(|start| start.len() == 13));

    let line = router.lines.next().await;
    let numbers: String = line.chars().filter(|character| !character.is_ascii_digit()).collect();
    let bytes = answer.body.len().to_string();
    assert_line(&line, &[&format!("status=200 bytes={bytes} protocol=http")]);
    assert_eq!(
        numbers,
        "at=info method=GET path=\"/x?q=\" host=first.apps.test request_id=abcdef fwd=\"..., ...\" dyno=web. \
         connect=ms service=ms status= bytes= protocol=http"
    );
}

#[tokio::test]
async fn hosts_are_custom_domains_and_wildcards_too() {
    let mut one = app("one", &[saying(ONE).await]);
    one.hosts = vec!["www.example.com".to_owned(), "*.wild.test".to_owned()];
    let two = app("two", &[saying(TWO).await]);
    let (router, _control) = Router::start(Limits::default(), &[&one, &two]).await;
    for (host, expected) in [
        ("www.example.com", "one"),
        ("WWW.EXAMPLE.com:1234", "one"),
        ("a.wild.test", "one"),
        ("two.apps.test.", "two"),
        ("one.apps.test", "one"),
    ] {
        let answer = router.ask(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(answer.body, expected, "{host}");
    }
}

#[tokio::test]
async fn an_unknown_host_gets_the_page_of_no_app() {
    let (router, _control) = Router::start(Limits::default(), &[]).await;
    let answer = router.ask("GET / HTTP/1.1\r\nhost: nobody.apps.test\r\n\r\n").await;
    assert_eq!(answer.status(), 404);
    assert_line(&answer.body, &["<title>No such app</title>"]);
    assert_eq!(answer.field("content-type").as_deref(), Some("text/html; charset=utf-8"));
}

#[tokio::test]
async fn what_an_app_does_not_serve_is_told_by_page_code_and_line() {
    let check = async |change: fn(&mut dozen_api::routes::App), title: &str, line: &str| {
        let mut app = app("closed", &[nobody()]);
        change(&mut app);
        let (mut router, _control) = Router::start(Limits::default(), &[&app]).await;
        let answer = router.get(&app, "/").await;
        assert_eq!(answer.status(), 503);
        assert_line(&answer.body, &[title]);
        let found = router.lines.next().await;
        assert!(found.starts_with(line), "{found}");
        assert_line(&found, &["dyno= connect= service= status=503 bytes= protocol=http"]);
    };
    let maintenance = "at=info code=H80 desc=\"Maintenance mode\" method=GET path=\"/\" host=closed.apps.test ";
    check(|app| app.mode = Mode::Maintenance, "<title>Offline for maintenance</title>", maintenance).await;
    check(|app| app.mode = Mode::Blank, "Nothing here, yet", "at=info code=H81 desc=\"Blank app\" ").await;
    let crashed = "at=error code=H10 desc=\"App crashed\" ";
    check(|app| app.dynos[0].state = DynoState::Crashed, "<title>Application error</title>", crashed).await;
    let none = "at=error code=H14 desc=\"No web processes running\" ";
    check(|app| app.web_quantity = 0, "<title>Application error</title>", none).await;
}

#[tokio::test]
async fn an_owners_pages_are_framed() {
    let mut app = app("framed", &[nobody()]);
    app.error_page_url = Some("https://pages.example/error".to_owned());
    app.maintenance_page_url = Some("https://pages.example/later".to_owned());
    let (router, mut control) = Router::start(short(), &[&app]).await;
    let answer = router.get(&app, "/").await;
    assert_line(&answer.body, &["<iframe src=\"https://pages.example/error\">"]);
    app.mode = Mode::Maintenance;
    control.upsert(&app).await;
    let answer = router.get(&app, "/").await;
    assert_line(&answer.body, &["<iframe src=\"https://pages.example/later\">"]);
}

#[tokio::test]
async fn all_dynos_that_are_up_get_requests() {
    let app = app("pair", &[saying(ONE).await, saying(TWO).await]);
    let (router, _control) = Router::start(Limits::default(), &[&app]).await;
    let (mut one, mut two) = (0, 0);
    for _ in 0..200 {
        match router.get(&app, "/").await.body.as_str() {
            "one" => one += 1,
            _ => two += 1,
        }
    }
    // A fair coin leaves this range once in some billions of runs.
    assert!((50..=150).contains(&one), "{one} against {two}");
}

#[tokio::test]
async fn a_request_waits_for_a_dyno_that_starts_and_goes_on_when_it_is_up() {
    let mut app = app("booting", &[saying(ONE).await]);
    app.dynos[0].state = DynoState::Starting;
    let (router, mut control) = Router::start(Limits::default(), &[&app]).await;
    let mut waiting = router.send(&get(&app, "/")).await;
    app.dynos[0].state = DynoState::Up;
    control.upsert(&app).await;
    let answer = crate::harness::Answer::read(&mut waiting).await;
    assert_eq!(answer.body, "one");
}

#[tokio::test]
async fn a_request_that_waits_for_a_dyno_in_vain_ends_with_h20() {
    let mut app = app("booting", &[nobody()]);
    app.dynos[0].state = DynoState::Starting;
    let (mut router, _control) = Router::start(short(), &[&app]).await;
    assert_eq!(router.get(&app, "/").await.status(), 503);
    let line = router.lines.next().await;
    assert_line(&line, &["at=error code=H20 desc=\"App boot timeout\"", "dyno= connect= service= status=503"]);
}

#[tokio::test]
async fn a_request_that_waits_learns_that_its_app_is_gone_or_crashed() {
    let mut app = app("booting", &[nobody()]);
    app.dynos[0].state = DynoState::Starting;
    let (mut router, mut control) = Router::start(Limits::default(), &[&app]).await;
    let mut waiting = router.send(&get(&app, "/")).await;
    app.dynos[0].state = DynoState::Crashed;
    control.upsert(&app).await;
    assert_eq!(crate::harness::Answer::read(&mut waiting).await.status(), 503);
    assert_line(&router.lines.next().await, &["code=H10"]);
    app.dynos.clear();
    control.upsert(&app).await;
    let mut waiting = router.send(&get(&app, "/")).await;
    control.remove(app.id).await;
    assert_eq!(crate::harness::Answer::read(&mut waiting).await.status(), 404);
}

#[tokio::test]
async fn a_change_of_routes_leaves_open_requests_alone() {
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = web(move |mut stream| {
        let mut released = released.clone();
        async move {
            read_head(&mut stream).await;
            let _ = released.wait_for(|released| *released).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, ONE.as_bytes()).await;
        }
    })
    .await;
    let mut app = app("moving", &[slow]);
    let (mut router, mut control) = Router::start(Limits::default(), &[&app]).await;
    let mut open = router.send(&get(&app, "/")).await;
    // The new release's dyno answers, and the old one is gone from the table.
    let fresh = saying(TWO).await;
    app.dynos = vec![dyno(1, &[fresh])];
    control.upsert(&app).await;
    assert_eq!(router.get(&app, "/").await.body, "two");
    release.send_replace(true);
    assert_eq!(crate::harness::Answer::read(&mut open).await.body, "one");
    soon("both lines", async { (router.lines.next().await, router.lines.next().await) }).await;
}

#[tokio::test]
async fn too_many_waiting_requests_are_refused() {
    let mut app = app("deep", &[nobody()]);
    app.dynos[0].state = DynoState::Starting;
    let limits = Limits { router_backlog_per_dyno: 1, ..Limits::default() };
    let (mut router, mut control) = Router::start(limits, &[&app]).await;
    let mut first = router.send(&get(&app, "/1")).await;
    let second = router.send(&get(&app, "/2")).await;
    // Whichever came second was refused.
    assert_line(&router.lines.next().await, &["code=H11 desc=\"Backlog too deep\"", "status=503"]);
    drop(second);
    app.dynos[0] = dyno(1, &[saying(ONE).await]);
    control.upsert(&app).await;
    crate::harness::Answer::read(&mut first).await;
}

#[tokio::test]
async fn a_table_in_parts_is_in_force_as_a_whole() {
    let (one, two, three) =
        (app("one", &[saying(ONE).await]), app("two", &[saying(TWO).await]), app("three", &[saying(ONE).await]));
    let (router, mut control) = Router::start(Limits::default(), &[&one]).await;
    control.part(&[&two]).await;
    control.snapshot(&[&three]).await;
    for (app, status) in [(&one, 404), (&two, 200), (&three, 200)] {
        assert_eq!(router.get(app, "/").await.status(), status, "{}", app.name);
    }
    // What a control said that then went away is forgotten.
    control.part(&[&two]).await;
    drop(control);
    let _control = Control::start(&router.run(), vec![one.clone()]).await;
    for (app, status) in [(&one, 200), (&two, 404), (&three, 404)] {
        assert_eq!(router.get(app, "/").await.status(), status, "{}", app.name);
    }
}
