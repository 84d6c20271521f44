//! The account of people's sessions in dynos, in the app's log: who was where, what for, and how long.
//!
//! A session that goes on is a file in `run/sessions`: one that a killed role took with it has its end told by the next
//! role. It may be told twice, if that is killed in turn, but not never.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use dozen_api::clock::Micros;
use dozen_domain::ids::AppId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Context;

/// Who does what in which dyno.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// Whose dyno.
    pub app: AppId,
    /// Its name.
    pub dyno: String,
    /// E-mail of who is there.
    pub email: String,
    /// What for: `run:inside`, `ps:exec`, `ps:forward`, `forward`.
    pub what: String,
}

/// What is kept of a session that goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    about: About,
    since: Micros,
}

impl Open {
    fn tell_end(&self, context: &Context, why: &str) {
        let About { app, dyno, email, what } = &self.about;
        let lasted = u64::try_from(context.now() - self.since).unwrap_or_default();
        let seconds = Duration::from_micros(lasted).as_secs_f64();
        let text = format!("Session ended in {dyno} by user {email} ({what}) after {seconds:.1} seconds{why}");
        context.log_api(*app, text);
    }
}

/// Writes the beginning of a session into the app's log, and its end when dropped.
pub struct Account {
    context: Context,
    open: Open,
    file: Option<PathBuf>,
}

impl Account {
    /// A session begins.
    pub fn open(context: &Context, about: About) -> Self {
        let text = format!("Session begun in {} by user {} ({})", about.dyno, about.email, about.what);
        context.log_api(about.app, text);
        let open = Open { about, since: context.now() };
        let directory = directory(context);
        let kept = keep(&directory, &open);
        if let Err(error) = &kept {
            tracing::warn!(directory = %directory.display(), %error, "a session's end is not told if this role is killed");
        }
        Self { context: context.clone(), open, file: kept.ok() }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.open.tell_end(&self.context, "");
        if let Some(file) = &self.file {
            // Whatever is left is told of once more at the next start.
            let _ = fs::remove_file(file);
        }
    }
}

fn directory(context: &Context) -> PathBuf {
    context.settings.data_dir.join("run/sessions")
}

fn keep(directory: &Path, open: &Open) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let file = directory.join(Uuid::new_v4().to_string());
    fs::write(&file, serde_json::to_vec(open)?)?;
    Ok(file)
}

/// Tells the ends of sessions that the role before this one had when it was killed: with it went their connections.
pub fn settle(context: &Context) {
    let Ok(files) = fs::read_dir(directory(context)) else { return };
    for file in files.filter_map(Result::ok).map(|file| file.path()) {
        // One that was being written began just when the role was killed.
        let open = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Open>(&text).ok());
        if let Some(open) = open {
            open.tell_end(context, ", when the platform was restarted");
        }
        let _ = fs::remove_file(&file);
    }
}
