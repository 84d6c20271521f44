//! What the platform says when it is ready: at most fifteen lines on where things are and how to point the CLI at them.

use std::{fmt::Write as _, io::Write as _};

use crate::{
    config::{Config, Listen},
    own_log::Format,
};

/// Says it: as text, or as records where everything on standard output is to be JSON.
pub(super) fn say(config: &Config, listen: &Listen, first: bool, missing: &[String]) {
    if config.log_format == Format::Logfmt {
        print(&text(config, listen, first, missing));
        return;
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), api = %listen.api, router = %listen.router, first, "Dozen is ready.");
    for sentence in missing {
        tracing::warn!(protection = sentence, "missing protection");
    }
}

/// The text. `missing` are protections that this machine or user does not allow, one sentence each.
fn text(config: &Config, listen: &Listen, first: bool, missing: &[String]) -> String {
    let mut text = String::new();
    let host = dozen_cli::environment::host(listen.api.ip());
    let tls_host = dozen_cli::environment::host(listen.tls.ip());
    // Writing to a String cannot fail.
    _ = writeln!(text, "Dozen {} is ready.", env!("CARGO_PKG_VERSION"));
    _ = writeln!(
        text,
        "  API   http://{host}:{}  (git and TLS: https://{tls_host}:{})",
        listen.api.port(),
        listen.tls.port()
    );
    _ = writeln!(text, "  apps  http://<app>.{}:{}", config.apps_domain, listen.router.port());
    _ = writeln!(text, "  data  {}", config.data_dir.display());
    if first {
        _ = writeln!(text, "First start: made a certificate authority, keys, an account and its API key.");
    }
    _ = writeln!(text, "In another shell:");
    _ = writeln!(text, "  eval \"$(dozen env)\"     points the heroku CLI and git at this platform");
    _ = writeln!(text, "  heroku create           makes an app (without the CLI: dozen apps:create)");
    _ = writeln!(text, "  git push heroku main    builds, releases and runs it");
    for sentence in missing.iter().take(5) {
        _ = writeln!(text, "Missing protection: {sentence}");
    }
    text
}

/// Prints it; a closed standard output is no reason to stop.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
