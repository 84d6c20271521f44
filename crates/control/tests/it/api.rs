//! A platform in this process: real database and keys in a directory of its own, memory engine and builds, a clock that
//! stands still. Every answer is checked against the schema on its way to the test.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::{Router, body::Body};
use dozen_api::{
    build,
    clock::{Clock, Micros},
    engine,
    logs::{self, Line},
};
use dozen_control::{
    Context,
    http::routes,
    ops::{self, accounts::Admin, releases::Change},
    reconcile::{Nudge, Nudges},
    state::Settings,
    store::{self, accounts::Account, apps::App, slugs::Slug},
};
use dozen_domain::{
    ids::{AppId, SlugId},
    image::Digest,
    limits::Limits,
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::schema;

/// A clock that only the test moves.
pub(crate) struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Micros {
        self.0.load(Ordering::Relaxed)
    }
}

impl Hand {
    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

/// The platform, with the first account's token.
pub(crate) struct Api {
    pub(crate) context: Context,
    pub(crate) engine: Arc<engine::memory::Memory>,
    pub(crate) builds: Arc<build::memory::Memory>,
    pub(crate) clock: Arc<Hand>,
    pub(crate) directory: TempDir,
    pub(crate) token: String,
    logs: logs::Memory,
    nudges: Nudges,
    service: TowerToHyperService<Router>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn fails(self, status: u16, id: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.json["id"], id, "{}", answer.text);
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Api {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::of_directory(directory.path().to_owned());
        settings.limits = limits;
        Self::open(directory, settings).await
    }

    pub(crate) async fn open(directory: TempDir, settings: Settings) -> Self {
        let clock = Arc::new(Hand(AtomicI64::new(1_800_000_000_000_000)));
        let engine = Arc::new(engine::memory::Memory::with_clock(clock.clone()));
        let builds = Arc::new(build::memory::Memory::new());
        let (sender, logs) = logs::Sender::memory();
        let (nudge, nudges) = Nudge::channel();
        let context = Context::open(settings, engine.clone(), builds.clone(), sender, clock.clone(), nudge);
        let context = context.await.expect("a context");
        let admin = Admin::read(directory.path()).expect("admin.json");
        let service = TowerToHyperService::new(routes::table(context.clone()));
        let token = admin.api_key.expose().to_owned();
        Self { context, engine, builds, clock, directory, token, logs, nudges, service }
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.service.call(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Answer { status: parts.status, headers: parts.headers, text, json };
        schema::check(&method, &path, &answer);
        answer
    }

    /// Sends a request with this token and a JSON body.
    pub(crate) async fn call(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", "application/vnd.heroku+json; version=3.sdk")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let body = body.map_or_else(Body::empty, |value| Body::from(value.to_string()));
        self.send(request.body(body).expect("a request")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(&self.token, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(&self.token, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(&self.token, Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(&self.token, Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(&self.token, Method::DELETE, path, None).await
    }

    /// Gets a page.
    pub(crate) async fn range(&self, path: &str, range: &str) -> Answer {
        let request = Request::builder().uri(path).header("range", range);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    /// Makes an account; answers its token.
    pub(crate) async fn account(&self, email: &str) -> String {
        let (_, token) = ops::accounts::create(&self.context, email, None).await.expect("an account");
        token.expose().to_owned()
    }

    /// The first account.
    pub(crate) async fn admin(&self) -> Account {
        let token = dozen_control::auth::token::Token::presented(self.token.clone());
        ops::accounts::by_token(&self.context, &token).await.expect("the first account").1
    }

    /// Makes an app of the first account.
    pub(crate) async fn app(&self, name: &str) -> App {
        self.post("/apps", json!({"name": name})).await.is(201);
        let mut db = self.context.store.read().await.expect("a connection");
        store::apps::by_name(&mut db, name).await.expect("a query").expect("an app")
    }

    /// Stores a slug as a build would.
    pub(crate) async fn slug(&self, app: AppId, commit: &str, types: &[(&str, &str)]) -> SlugId {
        let now = self.context.now();
        let slug = Slug {
            id: SlugId::random(),
            app,
            image: Some(Digest(format!("sha256:{:064x}", fastrand::u64(..)))),
            checksum: None,
            commit: Some(commit.to_owned()),
            commit_description: None,
            buildpack_description: Some("Python".to_owned()),
            process_types: types
                .iter()
                .map(|(name, command)| (name.parse().expect("a process type"), (*command).to_owned()))
                .collect(),
            launch_env: [("PATH".to_owned(), "/app/bin".to_owned())].into(),
            health_check: None,
            layers: Vec::new(),
            size: Some(12_345),
            stack: "heroku-24".to_owned(),
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let mut db = self.context.store.write().await.expect("a transaction");
        store::slugs::insert(&mut db, &slug).await.expect("a slug");
        db.commit().await.expect("a commit");
        slug.id
    }

    /// Stores a slug and releases it; answers the release's number.
    pub(crate) async fn deploy(&self, app: AppId, commit: &str, types: &[(&str, &str)]) -> u32 {
        let slug = self.slug(app, commit, types).await;
        let change = Change::Deploy { slug, description: None };
        let release = ops::releases::create(&self.context, app, &self.admin().await, change).await;
        release.expect("a release").version.0
    }

    /// The time.
    pub(crate) fn clock_now(&self) -> Micros {
        self.clock.now()
    }

    /// Lines written since the last look, as `process: text`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let show = |line: Line| format!("{}[{}]: {}", line.source.as_str(), line.process, line.text);
        self.logs.take().into_iter().map(show).collect()
    }

    /// Apps nudged since the last look.
    pub(crate) fn nudged(&mut self) -> Vec<AppId> {
        std::iter::from_fn(|| self.nudges.try_recv().ok()).collect()
    }
}
