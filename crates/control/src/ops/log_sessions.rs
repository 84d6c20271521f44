//! Log sessions: a URL from which an app's lines stream to whoever has it.
//!
//! The URL carries its own secret (a ticket) and nothing is stored, so it is good before and after a restart. It must
//! be opened within the limit `log_session_seconds`. A client that was there before may come back for longer
//! (`log_session_resume_seconds`), because the official client reconnects to the same URL for as long as a tail is open:
//! the ids of a session's events carry a second secret, its visa, which is in the URL only in sealed form. So an old URL
//! alone, out of a shell's history or a proxy's log, opens nothing.

use data_encoding::BASE64URL_NOPAD;
use dozen_api::{clock::Micros, logs};
use dozen_domain::ids::{AccountId, AppId, LogSessionId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::{Error, Result, number::Written};
use crate::{
    auth::{keys, ticket},
    origin,
    state::Context,
    store::{self, accounts::Account, apps::App},
};

const PURPOSE: &str = "log-session";
const VISA: usize = 9; // random bytes, which are twelve letters
const SECOND: Micros = 1_000_000; // microseconds

/// A log session as clients ask for it.
#[derive(Debug, Default, Deserialize)]
pub struct New {
    /// Exact name (`web.1`) or process type (`web`).
    pub dyno: Option<String>,
    /// The same, in the schema's words.
    pub dyno_name: Option<String>,
    /// A process type, in the schema's words.
    #[serde(rename = "type")]
    pub process_type: Option<String>,
    /// Lines of history; 100 when missing, as on Heroku.
    #[serde(default)]
    pub lines: Written,
    /// `app` or `heroku`.
    pub source: Option<String>,
    /// Go on with new lines.
    pub tail: Option<bool>,
}

/// What a log session's ticket grants.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Grant {
    app: AppId,
    account: AccountId,
    source: Option<logs::Source>,
    process: Option<String>,
    lines: u64,
    tail: bool,
    open_until: Micros,
    visa: String,
}

/// A new session's id and URL.
#[derive(Debug)]
pub struct Opened {
    /// Its id.
    pub id: LogSessionId,
    /// Where it streams from.
    pub url: String,
    /// When it was made.
    pub created_at: Micros,
}

/// Makes a session's URL.
///
/// # Errors
/// When the source does not exist.
pub fn create(context: &Context, app: &App, account: &Account, new: New) -> Result<Opened> {
    const LINES: i64 = 100; // of history when nothing is said (platform API reference, log session)
    let source = match new.source.as_deref() {
        None | Some("") => None,
        Some("app") => Some(logs::Source::App),
        Some("heroku") => Some(logs::Source::Heroku),
        Some(other) => return Err(Error::Invalid(format!("There is no log source {other}. Sources: app, heroku."))),
    };
    let now = context.now();
    let lines =
        u64::try_from(new.lines.whole("lines")?.unwrap_or(LINES)).unwrap_or(0).min(context.limits().log_history_lines);
    let later =
        |at: Micros, seconds: u64| at.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(SECOND));
    let grant = Grant {
        app: app.id,
        account: account.id,
        source,
        process: new.dyno.or(new.dyno_name).or(new.process_type).filter(|process| !process.is_empty()),
        lines,
        tail: new.tail.unwrap_or(false),
        open_until: later(now, context.limits().log_session_seconds),
        visa: BASE64URL_NOPAD.encode(&keys::random::<VISA>()),
    };
    let end = later(grant.open_until, context.limits().log_session_resume_seconds);
    let token = ticket::issue(&context.keys.ticket, PURPOSE, end, &grant);
    let url = format!("{}/logs/stream?token={token}", origin::url(&context.settings));
    Ok(Opened { id: LogSessionId::random(), url, created_at: now })
}

/// What a session's URL opens.
#[derive(Debug)]
pub struct Redeemed {
    /// What is to be read.
    pub session: logs::Session,
    /// What the ids of its events carry: [`event_id`].
    pub visa: String,
}

/// The id of an event: where its line stands, and that its reader was let in.
pub fn event_id(place: logs::Place, visa: &str) -> String {
    format!("{place}.{visa}")
}

/// What a session's URL may read. `last` is the id of the last event that the client has.
///
/// # Errors
/// When the URL is not valid, too old, or its account has lost the app.
pub async fn redeem(context: &Context, token: &str, last: Option<&str>) -> Result<Redeemed> {
    let now = context.now();
    let refused = |_| Error::NotFound("session");
    let grant: Grant = ticket::redeem(&context.keys.ticket, PURPOSE, now, token).map_err(refused)?;
    let (place, visa) = last.map_or(("", ""), |id| id.split_once('.').unwrap_or((id, "")));
    let after = place.parse().ok();
    let was_here = after.is_some() && bool::from(visa.as_bytes().ct_eq(grant.visa.as_bytes()));
    if grant.open_until <= now && !was_here {
        return Err(Error::NotFound("session"));
    }
    let role = store::collaborators::role_of(&mut *context.store.read().await?, grant.app, grant.account).await?;
    role.ok_or(Error::NotFound("session"))?;
    let Grant { app, source, process, lines, tail, visa, .. } = grant;
    Ok(Redeemed { session: logs::Session { app, source, process, lines, tail, after }, visa })
}
