//! Every limit of the platform, its default and the variable that sets it. A limit is never a literal elsewhere.
//!
//! `DOZEN_LIMIT_<NAME>` overrides the limit called `<name>`; the unit is in the name (`_seconds`, `_ms`, `_bytes`,
//! `_lines`, or a plain count). Defaults are Heroku's where Heroku has one (Dev Center: limits, http-routing,
//! dyno-shutdown-behavior, error-codes; heroku/vegur; heroku/logplex).

use std::time::Duration;

/// A `DOZEN_LIMIT_` variable that names no limit or holds no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No limit has this name.
    #[error("DOZEN_LIMIT_{name}: there is no such limit (see docs/configuration.md for the list)")]
    Unknown {
        /// The part after `DOZEN_LIMIT_`.
        name: String,
    },
    /// The value is not a whole number.
    #[error("DOZEN_LIMIT_{name}={value}: not a whole number")]
    NotANumber {
        /// The part after `DOZEN_LIMIT_`.
        name: String,
        /// What was given.
        value: String,
    },
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:expr;)+) => {
        /// All limits. Units are in the names.
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// Name, default and description of each limit, for the reference page.
            pub const REFERENCE: &'static [(&'static str, u64, &'static str)] =
                &[$((stringify!($name), $default, concat!($($doc),+)),)+];

            /// Sets one limit from `DOZEN_LIMIT_<name>=<value>`.
            ///
            /// # Errors
            /// When no limit has the name, or the value is no whole number.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), Invalid> {
                let field = match name.to_ascii_lowercase().as_str() {
                    $(stringify!($name) => &mut self.$name,)+
                    _ => return Err(Invalid::Unknown { name: name.to_owned() }),
                };
                *field = value
                    .parse()
                    .map_err(|_| Invalid::NotANumber { name: name.to_owned(), value: value.to_owned() })?;
                Ok(())
            }
        }
    };
}

limits! {
    /// Time for a web dyno to bind `$PORT` before R10.
    boot_seconds = 60;
    /// Most that an app may ask for with `BOOT_TIMEOUT`.
    boot_max_seconds = 180;
    /// Time between SIGTERM and SIGKILL (R12).
    stop_seconds = 30;
    /// Most that an app may ask for with `DOZEN_STOP_GRACE_<TYPE>`.
    stop_max_seconds = 3_600;
    /// Pause before the second restart of a crashed dyno (the first comes at once); it doubles with every further crash.
    crash_backoff_seconds = 600;
    /// Longest pause between restarts of a crashed dyno.
    crash_backoff_max_seconds = 19_200;
    /// A dyno that stayed up this long starts with a clean slate of crashes.
    crash_reset_seconds = 3_600;
    /// Age at which a dyno is replaced by a fresh one (cycling).
    cycle_seconds = 86_400;
    /// A random part of up to this long is added to that age, so that dynos do not cycle together.
    cycle_jitter_seconds = 12_960;
    /// Longest run of a release-phase command.
    release_phase_seconds = 3_600;
    /// Longest that a push waits to tell whether its web dynos come up.
    push_wait_seconds = 10;
    /// Time between two looks at how the requests of apps with autoscaling go.
    autoscale_look_seconds = 10;
    /// Least time between two steps of autoscaling.
    autoscale_step_seconds = 60;
    /// Figures of this long must say that fewer dynos would do before autoscaling takes one away.
    autoscale_history_seconds = 3_600;
    /// Time without a request after which autoscaling takes dynos away all the same.
    autoscale_idle_seconds = 180;
    /// Time without a request after which the last dyno of an app that may sleep does (Heroku's Eco dynos: 30 minutes).
    autoscale_sleep_seconds = 1_800;
    /// Dynos of one app over all process types.
    dynos_per_app = 100;
    /// Concurrent one-off dynos of one app of the Basic and Standard sizes.
    one_offs_per_app = 50;
    /// Concurrent one-off dynos of one app of the Performance sizes.
    one_offs_performance_per_app = 5;
    /// Concurrent one-off dynos of one app of the Eco size.
    one_offs_eco_per_app = 1;
    /// Time for a client to attach to its one-off dyno (R13).
    attach_wait_seconds = 30;
    /// Longest time without input or output of an attached one-off dyno.
    attach_idle_seconds = 3_600;
    /// Pause between the three SIGHUP to a dyno whose client is gone, and then until R16.
    hangup_seconds = 5;
    /// SSH connections of the exec family at once.
    ssh_connections = 256;
    /// Time for an SSH client to prove itself.
    ssh_login_seconds = 30;
    /// Life of a pass to a dyno (`ps:exec` and its family); connections that were made with it go on.
    exec_pass_seconds = 86_400;
    /// A session that has ended is closed when its client has said the end of its input, or after this: the official
    /// client breaks when it has to say that on a connection that was closed.
    input_end_ms = 250;
    /// Longest command of a one-off dyno or of a session inside one (Linux takes arguments below 131,072 bytes).
    command_bytes = 120_000;

    /// Disk that a dyno may fill with what it changes in `/app` and puts into `/tmp` (Heroku names no number).
    dyno_disk_bytes = 4_294_967_296;
    /// Files and directories that a dyno may make on its disk.
    dyno_disk_files = 262_144;

    /// Memory at which a dyno is killed (R15), in percent of its size; from 100 percent on it is R14.
    dyno_memory_percent = 200;
    /// Pause between looks at dynos' memory (R14) and between the lines of `log-runtime-metrics`.
    dyno_metrics_ms = 20_000;

    /// Longest run of a build.
    build_seconds = 900;
    /// Memory of a build.
    build_memory_bytes = 2_147_483_648;
    /// Processes and threads of a build.
    build_pids = 4_096;
    /// Disk that a build may fill: source, caches and result.
    build_disk_bytes = 8_589_934_592;
    /// Output that a build may print.
    build_log_bytes = 314_572_800;
    /// Builds that run at the same time.
    builds_concurrent = 2;
    /// Builds of one app that were asked for through the API and wait; a push is refused while another build runs.
    builds_queued_per_app = 20;
    /// The same of all apps together.
    builds_queued = 200;
    /// Largest slug, compressed.
    slug_bytes = 524_288_000;
    /// Largest checkout: source and submodules.
    source_bytes = 1_073_741_824;
    /// Largest pack of one push.
    push_bytes = 1_073_741_824;
    /// Builds, and outputs of release commands, of one app that are kept.
    builds_kept = 300;
    /// Least life of the URL of a build's or release command's output; it ends before twice as much.
    output_url_seconds = 86_400;
    /// Successful releases whose slugs are kept.
    slugs_kept_releases = 50;
    /// Slugs that were created through the API and never released are removed after this.
    slug_unreleased_seconds = 604_800;
    /// Life of the URLs at which a slug's archive is put and had.
    slug_url_seconds = 3_600;

    /// Timed jobs of one app.
    cron_jobs_per_app = 100;
    /// Runs of a timed job whose history is kept.
    cron_runs_kept = 50;
    /// Longest run of a timed job.
    cron_run_seconds = 86_400;
    /// Output that is kept of one run of a timed job.
    cron_output_bytes = 1_048_576;
    /// A timed job that is due for longer than this counts as missed.
    cron_late_seconds = 300;

    /// Time for connecting to a dyno (H19).
    router_connect_ms = 5_000;
    /// Time in which the router retries other dynos before it gives up (H20 while booting).
    router_connect_total_ms = 75_000;
    /// Connection attempts to different dynos for one request.
    router_connect_attempts = 10;
    /// How long a dyno that refused a connection is passed over at first; it doubles with every further refusal.
    router_quarantine_first_ms = 250;
    /// Longest that a dyno which refuses connections is passed over before it is tried again.
    router_quarantine_ms = 5_000;
    /// Time to the first byte of the response (H12).
    router_first_byte_ms = 30_000;
    /// Silence after the first byte that ends the request (H15, H28).
    router_idle_ms = 55_000;
    /// Idle client connections are closed after this.
    router_keep_alive_ms = 60_000;
    /// Idle connections to dynos are closed after this.
    router_upstream_keep_alive_ms = 90_000;
    /// Requests in flight for one web dyno (H11).
    router_backlog_per_dyno = 200;
    /// Connections that the router holds open at once (H22).
    router_connections = 20_000;
    /// Connections of one client address (of IPv6: one /64), so that no single one can take all (H22). A load balancer
    /// without the PROXY protocol is one address.
    router_connections_per_address = 10_000;
    /// Requests and tunnels of one app that are open at once, so that no single app can take all connections (H22).
    router_requests_per_app = 10_000;
    /// Requests that one HTTP/2 connection may have open (RFC 9113 advises 100 at least).
    router_http2_streams = 128;
    /// Requests given up before their answer began, and more than half of all, after which an HTTP/2 connection is
    /// ended (rapid reset, CVE-2023-44487).
    router_http2_resets = 100;
    /// Time in which a request's head must have come, from its first byte on (H28). nginx gives 60 s.
    router_head_ms = 30_000;
    /// Bytes a second that the body of a request must bring, over `router_idle_ms`, while half of its app's backlog is
    /// taken (H28). Apache's mod_reqtimeout asks for 500.
    router_body_rate_bytes = 500;
    /// Longest request line.
    router_request_line_bytes = 8_192;
    /// Longest request header line.
    router_header_line_bytes = 8_192;
    /// Longest request head, all lines together: what one client can make the router hold before it says a word.
    router_head_bytes = 65_536;
    /// Most request headers.
    router_headers = 1_000;
    /// Longest response header line (H25).
    router_response_header_bytes = 524_288;
    /// Longest cookie that a response sets (H25).
    router_cookie_bytes = 8_192;
    /// Longest status line of a response (H25).
    router_status_line_bytes = 8_192;
    /// Interim answers (1xx) to one request before the final one (H17).
    router_interim_answers = 32;
    /// Longest name of a request header.
    router_header_name_bytes = 1_000;
    /// Longest request method.
    router_method_bytes = 127;
    /// Idle connections that are kept to one dyno.
    router_upstream_idle_connections = 128;
    /// A request that cannot be repeated goes only over a connection that was idle for less than this.
    router_upstream_fresh_ms = 1_000;
    /// Time for a client's TLS handshake.
    router_tls_handshake_ms = 10_000;
    /// Time between two looks of the router for a renewed default certificate.
    router_certificate_look_ms = 10_000;
    /// Time between two words of the router to control on how apps' requests went.
    router_traffic_ms = 1_000;
    /// Time that requests wait for the first route table after a start (H99).
    router_table_wait_ms = 10_000;
    /// Longest that a dyno's stop waits for requests that it was sent before; later ones go elsewhere.
    router_settle_ms = 1_000;
    /// Time that open requests get to finish when the router stops (H24).
    router_drain_ms = 30_000;

    /// Longest log line; a longer one is split.
    log_line_bytes = 10_000;
    /// Lines of history kept per app.
    log_history_lines = 1_500;
    /// Lines waiting for a slow tail session (L11).
    log_tail_buffer_lines = 1_024;
    /// Bytes of lines that may wait for a slow tail session when they are more than that many lines (L11).
    log_tail_buffer_bytes = 1_048_576;
    /// Lines waiting in a role for the logs role (L12).
    log_local_buffer_lines = 20_000;
    /// Bytes of output a shim holds while the logs role is away.
    shim_backlog_bytes = 1_048_576;
    /// A dyno whose backlog is full is held up for this long at most while nothing of it is stored; then its oldest
    /// output is dropped (L12).
    shim_hold_ms = 1_000;
    /// Time for which output of a dyno that has ended is held while nobody comes to store it; then it is lost (L13).
    shim_linger_seconds = 600;
    /// Time for which lines of history are kept.
    log_history_seconds = 604_800;
    /// Silence after which a line without its end is taken for a whole one.
    log_partial_ms = 1_000;
    /// Log drains of one app, and telemetry drains of one app.
    drains_per_app = 5;
    /// Lines that wait for a drain (L10).
    drain_buffer_lines = 1_024;
    /// Time, saved up over twenty times as long, for which dynos that write wait for drains of their app that keep up.
    drain_patience_ms = 50;
    /// Lines that wait for a drain that has failed for long (L10).
    drain_shrunk_lines = 10;
    /// Time of failures after which fewer lines wait for a drain to an HTTP receiver or telemetry consumer.
    drain_shrink_seconds = 300;
    /// Failures in a row after which fewer lines wait for a drain to a syslog server (logplex: ten tries).
    drain_shrink_tries = 10;
    /// Requests that carry one frame of lines before they are given up (L10).
    drain_tries = 3;
    /// Size at which a request to a drain holds enough lines.
    drain_frame_bytes = 102_400;
    /// Time for connecting to a drain.
    drain_connect_ms = 3_000;
    /// Time for a drain's answer to a request.
    drain_request_ms = 5_000;
    /// Time in which a syslog drain has to take what is sent.
    drain_send_ms = 4_000;
    /// Unit of the pauses between attempts to reach a drain, which grow to some 500 times of it.
    drain_retry_ms = 10;
    /// A connection to a drain that was idle for this long is closed.
    drain_idle_seconds = 300;
    /// Life of a log session's URL.
    log_session_seconds = 300;
    /// Time for which a client that has opened a log session's URL may come back to it to go on.
    log_session_resume_seconds = 86_400;

    /// Time between two looks for certificates that are to be had or renewed.
    acme_look_seconds = 60;
    /// Pause after a certificate authority has refused; it doubles with every further refusal (Let's Encrypt allows five
    /// an hour).
    acme_retry_seconds = 1_800;
    /// Longest pause after a refusal.
    acme_retry_max_seconds = 86_400;
    /// A certificate with fewer days left is renewed, or one with less than a third of its life.
    acme_renew_days = 30;

    /// Connections to the API that are open at once: requests, pushes, log tails, attached one-off dynos.
    api_connections = 2_000;
    /// API calls per account and hour.
    api_calls_per_hour = 4_500;
    /// Wrong credentials from one address (of IPv6: one /64) within an hour before more are answered 429.
    auth_failures_per_address = 300;
    /// Wrong passwords for one e-mail from one address within an hour before more are answered 429.
    login_failures_per_account = 20;
    /// Addresses and e-mails whose wrong credentials are counted at once.
    auth_failure_addresses = 10_000;
    /// Largest request body of the API.
    api_body_bytes = 1_048_576;
    /// Config vars of one app, keys and values together.
    config_bytes = 65_536;
    /// Domains of one app.
    domains_per_app = 1_000;
    /// Certificates of one app, those that the platform manages among them.
    certificates_per_app = 1_000;
    /// Apps of one account.
    apps_per_account = 1_000;
    /// Git requests per app, account and hour.
    git_requests_per_hour = 75;
    /// Life of an uploaded source's URLs.
    source_seconds = 3_600;
    /// Disk that must be free for a push, a build or an upload to begin.
    disk_reserve_bytes = 67_108_864;
}

impl Limits {
    /// The memory at which a dyno that may use `quota` bytes is killed.
    pub const fn memory_bound(&self, quota: u64) -> u64 {
        let percent = if self.dyno_memory_percent < 100 { 100 } else { self.dyno_memory_percent };
        quota.saturating_mul(percent) / 100
    }
}

/// A limit in seconds as a duration.
pub const fn seconds(limit: u64) -> Duration {
    Duration::from_secs(limit)
}

/// A limit in milliseconds as a duration.
pub const fn millis(limit: u64) -> Duration {
    Duration::from_millis(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_its_name() {
        let mut limits = Limits::default();
        limits.set("BOOT_SECONDS", "3").expect("a known limit");
        assert_eq!(limits.boot_seconds, 3);
    }

    #[test]
    fn an_unknown_limit_and_a_bad_number_are_refused() {
        let mut limits = Limits::default();
        assert!(matches!(limits.set("NOPE", "3"), Err(Invalid::Unknown { .. })));
        assert!(matches!(limits.set("BOOT_SECONDS", "soon"), Err(Invalid::NotANumber { .. })));
        assert_eq!(limits, Limits::default());
    }
}
