//! What the router counts of itself, and the page on which Prometheus reads it.
//!
//! A request touches a handful of counters when it ends and nothing else. Counts of single apps live on the app
//! ([`Tally`]), are taken about once a second and go to control (`dozen_api::traffic`); those of the whole router stay
//! here until its end. The page is served on a socket of its own, which is not open by default: it tells nothing of any
//! app, but how busy the platform is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dozen_api::traffic::{self, Counts, Histogram, Traffic};
use dozen_domain::codes::Code;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};

use crate::{Router, table::App};

/// Upper ends of the page's buckets in milliseconds.
const ENDS: [u64; 12] = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000, 60_000];
/// Longest time and head of a request for the page.
const PATIENCE: Duration = Duration::from_secs(5);
const HEAD: usize = 8 << 10;
/// Readers of the page that are served at once.
const READERS: usize = 16;

/// Counters of the whole router.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Requests by status; the last is for those that the router cut.
    statuses: Statuses,
    codes: Mutex<BTreeMap<Code, u64>>,
    times: [AtomicU64; ENDS.len() + 1],
    milliseconds: AtomicU64,
    /// Requests that were sent over a kept connection.
    pub(crate) kept: AtomicU64,
    /// Connections opened to dynos.
    pub(crate) opened: AtomicU64,
    /// Attempts at that which failed.
    pub(crate) refused: AtomicU64,
    /// Apps that have counts to be taken.
    active: Mutex<Vec<Arc<App>>>,
}

struct Statuses([AtomicU64; 6]);

impl Default for Statuses {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Counters of one app since they were taken last.
#[derive(Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    /// Made with the first request: most apps of a large table have none.
    times: OnceLock<Box<[AtomicU64]>>,
    active: AtomicBool,
}

impl Tally {
    fn take(&self, waiting: u64) -> Counts {
        let times = self.times.get().map(|times| Histogram::of(times.iter().map(|count| count.swap(0, Relaxed))));
        Counts {
            requests: self.requests.swap(0, Relaxed),
            errors: self.errors.swap(0, Relaxed),
            waiting,
            times: times.unwrap_or_default(),
        }
    }
}

impl Metrics {
    /// Counts a request that has ended. `status` is none when the router cut it.
    pub(crate) fn count(&self, app: Option<&Arc<App>>, status: Option<u16>, code: Option<Code>, took: Duration) {
        let class = status.map_or(0, |status| usize::from(status / 100).min(5));
        self.statuses.0[class].fetch_add(1, Relaxed);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.times[ENDS.partition_point(|end| *end < milliseconds)].fetch_add(1, Relaxed);
        self.milliseconds.fetch_add(milliseconds, Relaxed);
        if let Some(code) = code {
            *self.codes.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
        }
        let Some(app) = app else { return };
        let tally = &app.tally;
        tally.requests.fetch_add(1, Relaxed);
        if status.is_none_or(|status| status >= 500) {
            tally.errors.fetch_add(1, Relaxed);
        }
        // How long people keep a tunnel open says nothing of how fast the app answers.
        if status != Some(101) {
            let times = tally.times.get_or_init(|| (0..traffic::BUCKETS).map(|_| AtomicU64::new(0)).collect());
            times[traffic::bucket(milliseconds)].fetch_add(1, Relaxed);
        }
        self.note(app);
    }

    /// Notes that an app has something to tell.
    pub(crate) fn note(&self, app: &Arc<App>) {
        // Most requests find it noted, and only look.
        if !app.tally.active.load(Relaxed) && !app.tally.active.swap(true, Relaxed) {
            self.active.lock().unwrap_or_else(PoisonError::into_inner).push(app.clone());
        }
    }

    /// Takes the counts of all apps that had requests. One that still has some waiting is told of next time too.
    pub(crate) fn take(&self) -> Traffic {
        let active = std::mem::take(&mut *self.active.lock().unwrap_or_else(PoisonError::into_inner));
        let tell = |app: Arc<App>| {
            app.tally.active.store(false, Relaxed);
            let waiting = app.waiting();
            let counts = app.tally.take(waiting);
            if waiting > 0 {
                self.note(&app);
            }
            (app.id, counts)
        };
        Traffic { apps: active.into_iter().map(tell).collect() }
    }

    /// The page, in Prometheus's text format.
    fn page(&self, router: &Router) -> String {
        let mut page = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a String cannot fail.
            _ = writeln!(page, "# HELP dozen_router_{name} {help}\n# TYPE dozen_router_{name} {kind}");
            for (labels, value) in samples {
                _ = writeln!(page, "dozen_router_{name}{labels} {value}");
            }
        };
        let one = |value: u64| vec![(String::new(), value)];
        let classes = ["cut", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&self.statuses.0);
        let classes: Vec<_> =
            classes.map(|(class, count)| (format!("{{status=\"{class}\"}}"), count.load(Relaxed))).collect();
        let total: u64 = classes.iter().map(|(_, count)| count).sum();
        family("requests_total", "counter", "Requests that have ended, by status.", &classes);
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let codes: Vec<_> = codes.iter().map(|(code, count)| (format!("{{code=\"{code}\"}}"), *count)).collect();
        family("errors_total", "counter", "Requests that failed, by code.", &codes);
        let connects = [("kept", &self.kept), ("opened", &self.opened), ("failed", &self.refused)];
        let connects = connects.map(|(how, count)| (format!("{{outcome=\"{how}\"}}"), count.load(Relaxed)));
        family("upstream_connects_total", "counter", "Connections to dynos for requests.", &connects);
        let lost = router.logs.lost();
        family("access_lines_lost_total", "counter", "Access lines that no room was left for.", &one(lost));
        let connections = router.connections.load(Relaxed);
        family("connections", "gauge", "Client connections that are open.", &one(connections));
        let (generation, apps, hosts) = router.table.size();
        family("table_generation", "gauge", "Generation of the route table in force.", &one(generation));
        family("table_apps", "gauge", "Apps in the route table.", &one(apps));
        family("table_hosts", "gauge", "Host names in the route table.", &one(hosts));
        _ = writeln!(
            page,
            "# HELP dozen_router_request_seconds Time from a request's head to its answer's end.\n\
             # TYPE dozen_router_request_seconds histogram"
        );
        let mut below = 0;
        for (end, count) in ENDS.iter().zip(&self.times) {
            below += count.load(Relaxed);
            _ = writeln!(page, "dozen_router_request_seconds_bucket{{le=\"{}\"}} {below}", *end as f64 / 1e3);
        }
        _ = writeln!(page, "dozen_router_request_seconds_bucket{{le=\"+Inf\"}} {total}");
        _ = writeln!(page, "dozen_router_request_seconds_sum {}", self.milliseconds.load(Relaxed) as f64 / 1e3);
        _ = writeln!(page, "dozen_router_request_seconds_count {total}");
        page
    }
}

/// Serves the page for ever, one request a connection.
pub(crate) async fn serve(router: Arc<Router>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(READERS));
    loop {
        // It fails only when the semaphore is closed, which it never is.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(PATIENCE / 50).await;
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            let exchange = async {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD {
                    head.push(stream.read_u8().await?);
                }
                let answer = if head.starts_with(b"GET /metrics ") {
                    let page = router.metrics.page(&router);
                    let kind = "text/plain; version=0.0.4; charset=utf-8";
                    let length = page.len();
                    format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{page}"
                    )
                } else {
                    "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
                };
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await
            };
            // Whoever asks may go away at any time.
            let _ = timeout(PATIENCE, exchange).await;
        });
    }
}
