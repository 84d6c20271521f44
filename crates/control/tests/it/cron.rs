//! Timed jobs: the API, what is due, what is missed, and that every time makes one run whatever is cut off.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as Task, Poll},
};

use dozen_api::engine::Engine as _;
use dozen_control::{
    Context, cron,
    store::{
        self,
        apps::App,
        cron_jobs::{Cause, CronRun, Status},
    },
};
use dozen_domain::{dyno::Exit, limits::Limits};
use serde_json::{Value, json};

use crate::api::Api;

/// Microseconds of a minute.
const MINUTE: i64 = 60_000_000;

async fn deployed(api: &Api) -> App {
    let app = api.app("shop").await;
    api.deploy(app.id, "abc", &[("web", "./serve"), ("clean", "./clean --all")]).await;
    app
}

async fn job(api: &Api, more: Value) -> Value {
    let mut body = json!({ "name": "tidy", "schedule": "every 10 minutes", "command": "clean now" });
    body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
    api.post("/apps/shop/cron-jobs", body).await.is(201).json
}

async fn runs(context: &Context, app: &App) -> Vec<CronRun> {
    let mut db = context.store.read().await.expect("a connection");
    let jobs = store::cron_jobs::of_app(&mut db, app.id).await.expect("jobs");
    let mut all = Vec::new();
    for job in jobs {
        all.extend(store::cron_jobs::runs(&mut db, job.id).await.expect("runs"));
    }
    all
}

async fn drive_all(context: &Context) {
    let runs = store::cron_jobs::under_way(&mut context.store.read().await.expect("a connection")).await;
    for run in runs.expect("runs") {
        cron::drive::drive(context, run.id).await.expect("a run driven to its end");
    }
}

/// Polls a future so many times and drops it, as a role that is killed there.
struct Cut<F> {
    inner: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future> Future for Cut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.inner.as_mut().poll(task) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            // The last poll is followed by the end, not by waiting for what it waits for.
            Poll::Pending if self.polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn cut<F: Future>(polls: usize, inner: F) -> Option<F::Output> {
    Cut { inner: Box::pin(inner), polls }.await
}

#[tokio::test]
async fn jobs_are_made_changed_paused_and_removed() {
    let api = Api::new().await;
    deployed(&api).await;
    let made = job(&api, json!({ "timezone": "Europe/Berlin", "overlap": "replace", "missed": "run" })).await;
    assert_eq!(
        (made["expression"].as_str(), made["size"].as_str(), made["paused"].as_bool()),
        (Some("*/10 * * * *"), Some("Basic"), Some(false))
    );
    assert_eq!(made["next_at"], "2027-01-15T08:10:00Z");
    let taken = json!({ "name": "tidy", "schedule": "@daily", "command": "x" });
    api.post("/apps/shop/cron-jobs", taken).await.fails(422, "invalid_params");
    for wrong in [
        json!({ "schedule": "now and then", "command": "x" }),
        json!({ "schedule": "@daily", "command": "" }),
        json!({ "schedule": "@daily", "command": "x", "timezone": "Mars" }),
        json!({ "schedule": "@daily", "command": "x", "colour": "red" }),
        json!({ "command": "x" }),
    ] {
        api.post("/apps/shop/cron-jobs", wrong).await.fails(422, "invalid_params");
    }
    let changed = api.patch("/apps/shop/cron-jobs/tidy", json!({ "schedule": "daily at 13:30" })).await.is(200).json;
    assert_eq!(changed["next_at"], "2027-01-15T12:30:00Z");
    assert_eq!((changed["overlap"].as_str(), changed["timezone"].as_str()), (Some("replace"), Some("Europe/Berlin")));
    let paused = api.patch("/apps/shop/cron-jobs/tidy", json!({ "paused": true })).await.is(200).json;
    assert_eq!(paused["next_at"], Value::Null);
    let id = made["id"].as_str().expect("an id");
    assert_eq!(api.get(&format!("/apps/shop/cron-jobs/{id}")).await.is(200).json["name"], "tidy");
    assert_eq!(api.get("/apps/shop/cron-jobs").await.is(200).json.as_array().map(Vec::len), Some(1));
    api.delete("/apps/shop/cron-jobs/tidy").await.is(200);
    api.get("/apps/shop/cron-jobs/tidy").await.fails(404, "not_found");
    let stranger = api.account("eve@example.com").await;
    let path = "/apps/shop/cron-jobs";
    api.call(&stranger, http::Method::GET, path, None).await.fails(403, "forbidden");
}

#[tokio::test]
async fn a_due_job_runs_once_and_its_history_says_how() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    job(&api, json!({})).await;
    api.engine.answer("./clean --all now", Exit::Code(3), "cleaning\nno more soap\n");
    cron::decide(&api.context).await.expect("a look");
    assert!(runs(&api.context, &app).await.is_empty(), "it is not due yet");
    api.clock.advance(600);
    for _ in 0..3 {
        cron::decide(&api.context).await.expect("a look");
    }
    drive_all(&api.context).await;
    drive_all(&api.context).await;
    assert_eq!(api.engine.one_offs().len(), 1);
    let history = api.get("/apps/shop/cron-jobs/tidy/runs").await.is(200).json;
    let run = &history[0];
    assert_eq!((history.as_array().map(Vec::len), run["status"].as_str()), (Some(1), Some("failed")), "{run}");
    assert_eq!((run["exit_status"].as_i64(), run["cause"].as_str()), (Some(3), Some("schedule")));
    assert_eq!(run["scheduled_at"], "2027-01-15T08:10:00Z");
    assert!(run["dyno"]["name"].as_str().is_some_and(|name| name.starts_with("scheduler.")), "{run}");
    let url = run["output_stream_url"].as_str().expect("an address");
    let path = url.strip_prefix("http://localhost:5000").expect("our own");
    assert_eq!(api.get(path).await.is(200).text, "cleaning\nno more soap\n");
    let one = format!("/apps/shop/cron-jobs/tidy/runs/{}", run["id"].as_str().expect("an id"));
    assert_eq!(api.get(&one).await.is(200).json["exit_status"], 3);
    let lines = api.lines();
    let started = "app[api]: Starting process with command `./clean --all now` by user scheduler@addons.heroku.com";
    assert!(lines.iter().any(|line| line == started), "{lines:?}");
}

#[tokio::test]
async fn a_run_by_hand_needs_no_schedule() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    job(&api, json!({})).await;
    api.patch("/apps/shop/cron-jobs/tidy", json!({ "paused": true })).await.is(200);
    let run = api.post("/apps/shop/cron-jobs/tidy/runs", json!({})).await.is(202).json;
    assert_eq!((run["status"].as_str(), run["cause"].as_str()), (Some("pending"), Some("manual")));
    drive_all(&api.context).await;
    let runs = runs(&api.context, &app).await;
    assert_eq!((runs.len(), runs[0].status, runs[0].exit_status), (1, Status::Succeeded, Some(0)));
}

#[tokio::test]
async fn what_cannot_be_started_is_told_in_the_history() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    job(&api, json!({})).await;
    api.clock.advance(600);
    cron::decide(&api.context).await.expect("a look");
    drive_all(&api.context).await;
    let runs = runs(&api.context, &app).await;
    assert_eq!(runs[0].status, Status::Failed);
    assert!(runs[0].note.as_deref().is_some_and(|note| note.contains("git push")), "{:?}", runs[0].note);
}

#[tokio::test]
async fn overlapping_runs_do_as_their_policy_says() {
    for (overlap, second) in [("forbid", Status::Skipped), ("allow", Status::Running), ("replace", Status::Running)] {
        let api = Api::new().await;
        let app = deployed(&api).await;
        job(&api, json!({ "overlap": overlap })).await;
        api.engine.hold_one_offs(true);
        let mut drives = Vec::new();
        for number in 1..=2 {
            api.clock.advance(600);
            cron::decide(&api.context).await.expect("a look");
            let mut connection = api.context.store.read().await.expect("a connection");
            let under_way = store::cron_jobs::under_way(&mut connection).await;
            let newest = under_way.expect("runs").pop().expect("a run");
            drop(connection);
            let context = api.context.clone();
            drives.push(tokio::spawn(async move { cron::drive::drive(&context, newest.id).await }));
            let expected = if number == 2 && overlap == "forbid" { Status::Skipped } else { Status::Running };
            crate::server::until("the run to be under way", || async {
                let newest = runs(&api.context, &app).await.remove(0);
                (newest.status == expected).then_some(())
            })
            .await;
        }
        let runs = runs(&api.context, &app).await;
        assert_eq!((runs.len(), runs[0].status), (2, second), "{overlap}");
        let live = api.engine.dynos(app.id).iter().filter(|dyno| dyno.state.is_live()).count();
        assert_eq!(live, if overlap == "allow" { 2 } else { 1 }, "{overlap}");
        let first = if overlap == "replace" { Status::Failed } else { Status::Running };
        crate::server::until("the first run to be as it should", || async {
            let oldest = self::runs(&api.context, &app).await.pop().expect("a run");
            (oldest.status == first).then_some(())
        })
        .await;
        drives.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test]
async fn missed_runs_are_skipped_or_made_up_for_once() {
    for (missed, causes) in [("skip", [Cause::Missed, Cause::Schedule]), ("run", [Cause::Schedule, Cause::Missed])] {
        let api = Api::new().await;
        let app = deployed(&api).await;
        job(&api, json!({ "schedule": "hourly at :00", "missed": missed })).await;
        // Three hours and a half later.
        api.clock.advance(3 * 3_600 + 1_800);
        cron::decide(&api.context).await.expect("a look");
        drive_all(&api.context).await;
        let made = runs(&api.context, &app).await;
        assert_eq!((made.len(), made[0].cause), (1, Cause::Missed), "{missed}");
        assert_eq!(made[0].note.as_deref(), Some("The platform was not running at the time of 3 runs."), "{missed}");
        let (status, started) = if missed == "run" { (Status::Succeeded, 1) } else { (Status::Missed, 0) };
        assert_eq!((made[0].status, api.engine.one_offs().len()), (status, started), "{missed}");
        // Five hours later, just after the hour: the newest is not late, the others are missed.
        api.clock.advance(4 * 3_600 + 1_860);
        cron::decide(&api.context).await.expect("a look");
        let late = runs(&api.context, &app).await;
        assert_eq!(late.len(), if missed == "skip" { 3 } else { 2 }, "{missed}");
        assert!(late.iter().any(|run| run.cause == Cause::Schedule && run.status == Status::Pending), "{missed}");
        assert_eq!(causes.len(), 2);
        let next = api.get("/apps/shop/cron-jobs/tidy").await.json["next_at"].clone();
        assert_eq!(next, "2027-01-15T17:00:00Z");
    }
}

#[tokio::test]
async fn history_is_kept_to_its_limit() {
    let limits = Limits { cron_runs_kept: 3, ..Limits::default() };
    let api = Api::with(limits).await;
    let app = deployed(&api).await;
    job(&api, json!({})).await;
    for _ in 0..6 {
        api.clock.advance(600);
        cron::decide(&api.context).await.expect("a look");
        drive_all(&api.context).await;
    }
    let runs = runs(&api.context, &app).await;
    assert_eq!(runs.len(), 3);
    assert_eq!(runs[0].scheduled_at - runs[2].scheduled_at, 20 * MINUTE);
    let files = std::fs::read_dir(api.directory.path().join(format!("apps/{}/cron", app.id))).expect("outputs");
    assert_eq!(files.count(), 3);
}

/// Every place at which the role may be killed: what is decided is decided once, what is begun is begun once.
#[tokio::test]
async fn wherever_the_role_is_killed_a_time_of_the_schedule_makes_one_run() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    job(&api, json!({})).await;
    let mut started = 0;
    for polls in 1.. {
        api.clock.advance(600);
        let decided = cut(polls, cron::decide(&api.context)).await.is_some();
        // What comes back looks again.
        cron::decide(&api.context).await.expect("a look");
        let mut connection = api.context.store.read().await.expect("a connection");
        let under_way = store::cron_jobs::under_way(&mut connection).await;
        let under_way = under_way.expect("runs");
        drop(connection);
        assert_eq!(under_way.len(), 1, "after {polls} polls");
        let driven = cut(polls, cron::drive::drive(&api.context, under_way[0].id)).await.is_some();
        drive_all(&api.context).await;
        started += 1;
        let newest = runs(&api.context, &app).await.remove(0);
        assert_eq!((newest.id, newest.status), (under_way[0].id, Status::Succeeded), "after {polls} polls");
        assert!(newest.started_at.is_some() && newest.ended_at.is_some(), "after {polls} polls");
        assert_eq!(api.engine.one_offs().len(), started, "after {polls} polls");
        if decided && driven {
            assert!(polls > 5, "nothing was cut off");
            break;
        }
    }
}

/// The same for a run that ends the one before it: that ends, and the new one begins once.
#[tokio::test]
async fn wherever_the_role_is_killed_a_run_takes_the_place_of_the_one_before_once() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    job(&api, json!({ "overlap": "replace" })).await;
    api.engine.hold_one_offs(true);
    for polls in 1.. {
        api.clock.advance(600);
        cron::decide(&api.context).await.expect("a look");
        let newest = runs(&api.context, &app).await.remove(0);
        let is_running = || async { (runs(&api.context, &app).await[0].status == Status::Running).then_some(()) };
        tokio::select! {
            driven = cut(polls, cron::drive::drive(&api.context, newest.id)) => assert!(driven.is_none(), "it goes on"),
            // From there on it waits for the end, of which there is none.
            () = crate::server::until("it to run", is_running) => {}
        }
        let begun = is_running().await.is_some();
        // What comes back drives all that have not ended.
        let under_way = store::cron_jobs::under_way(&mut api.context.store.read().await.expect("a connection")).await;
        let drive = |id| {
            let context = api.context.clone();
            tokio::spawn(async move { cron::drive::drive(&context, id).await })
        };
        let drives: Vec<_> = under_way.expect("runs").iter().map(|run| drive(run.id)).collect();
        crate::server::until("the newest to be the only one", || async {
            let all = runs(&api.context, &app).await;
            let ended = all[1..].iter().all(|run| run.status == Status::Failed && run.exit_status == Some(143));
            (all[0].status == Status::Running && ended).then_some(())
        })
        .await;
        drives.iter().for_each(tokio::task::JoinHandle::abort);
        let live: Vec<_> = api.engine.dynos(app.id).into_iter().filter(|dyno| dyno.state.is_live()).collect();
        assert_eq!(live.iter().map(|dyno| dyno.id).collect::<Vec<_>>(), [newest.id], "after {polls} polls");
        assert_eq!(api.engine.one_offs().len(), polls, "after {polls} polls");
        if begun {
            break;
        }
    }
}

#[tokio::test]
async fn after_a_restart_of_the_machine_a_run_that_may_have_begun_is_not_begun_again() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    job(&api, json!({})).await;
    let job = store::cron_jobs::of_app(&mut api.context.store.read().await.expect("a connection"), app.id).await;
    let job = job.expect("jobs").remove(0);
    let mut run = cron::written(&api.context, &job, Cause::Schedule, api.context.now()).expect("a run");
    run.boot = "another boot".to_owned();
    let mut db = api.context.store.write().await.expect("a transaction");
    store::cron_jobs::put_run(&mut db, &run).await.expect("a run");
    db.commit().await.expect("a commit");
    drive_all(&api.context).await;
    let runs = runs(&api.context, &app).await;
    assert_eq!((runs[0].status, api.engine.one_offs().len()), (Status::Lost, 0));
}

#[tokio::test]
async fn jobs_of_app_json_follow_it_and_leave_others_alone() {
    let api = Api::new().await;
    let app = deployed(&api).await;
    job(&api, json!({})).await;
    let sync = async |text: &str| {
        let asked = dozen_domain::cron::of_app_json(text).expect(text).expect("jobs");
        let mut db = api.context.store.write().await.expect("a transaction");
        dozen_control::ops::cron_jobs::sync(&api.context, &mut db, app.id, &asked).await.expect("jobs");
        db.commit().await.expect("a commit");
        let all = api.get("/apps/shop/cron-jobs").await.is(200).json;
        let text = |one: &Value, key: &str| one[key].as_str().expect("text").to_owned();
        let all = all.as_array().expect("a list");
        all.iter().map(|one| (text(one, "name"), text(one, "schedule"))).collect::<Vec<_>>()
    };
    let pair = |name: &str, schedule: &str| (name.to_owned(), schedule.to_owned());
    let two = "{\"cron\": [{\"name\": \"a\", \"schedule\": \"@daily\", \"command\": \"x\"}, \
                {\"name\": \"b\", \"schedule\": \"@daily\", \"command\": \"y\"}]}";
    let tidy = pair("tidy", "every 10 minutes");
    assert_eq!(sync(two).await, [pair("a", "@daily"), pair("b", "@daily"), tidy.clone()]);
    let one = "{\"cron\": [{\"name\": \"b\", \"schedule\": \"@weekly\", \"command\": \"y\"}]}";
    assert_eq!(sync(one).await, [pair("b", "@weekly"), tidy.clone()]);
    assert_eq!(sync("{\"cron\": []}").await, [tidy]);
}
