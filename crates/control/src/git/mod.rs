//! Git over HTTP, the smart protocol: `/<app>.git/info/refs`, `/git-receive-pack`, `/git-upload-pack`.
//!
//! Requests are handed to `git receive-pack|upload-pack --stateless-rpc` as they stream in, answers as they stream out.
//! Builds happen inside git's pre-receive hook ([`crate::hook`]), which finds the push it belongs to in [`Pushes`].
//! There is no git implementation here, and nothing but HTTP: no SSH, no dumb protocol.

mod access;
mod body;
mod process;
pub mod repository;

pub use self::access::Requests;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use dozen_domain::ids::{AccountId, AppId};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

use self::process::Run;
use crate::{Context, http::conventions, reconcile::driver::chain};

/// Why git could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no git, or it does not start.
    #[error("run git: install it (Debian and Ubuntu: apt-get install git) and have it on the PATH of the platform")]
    Git(#[source] io::Error),
    /// A repository could not be made.
    #[error("make the repository {}", path.display())]
    Repository {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The two halves of git's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Receive,
    Upload,
}

impl Service {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "git-receive-pack" => Some(Self::Receive),
            "git-upload-pack" => Some(Self::Upload),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Receive => "git-receive-pack",
            Self::Upload => "git-upload-pack",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Receive => "receive-pack",
            Self::Upload => "upload-pack",
        }
    }
}

/// Who pushes what: known while git runs, so that its hook can be matched with the request behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Push {
    /// To which app.
    pub app: AppId,
    /// Who.
    pub account: AccountId,
}

/// The pushes under way, by the secret that their hooks present.
#[derive(Debug, Default)]
pub struct Pushes(Mutex<HashMap<String, Push>>);

impl Pushes {
    /// The push behind a secret.
    pub fn find(&self, secret: &str) -> Option<Push> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(secret).copied()
    }

    fn add(&self, push: Push) -> String {
        let secret = data_encoding::HEXLOWER.encode(&crate::auth::keys::random::<16>());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(secret.clone(), push);
        secret
    }

    /// Forgets a push. When it was the last of its app, nothing is left in quarantine: git does not remove what it had
    /// received when it is stopped by a signal.
    fn remove(&self, secret: &str, data_dir: &std::path::Path) -> Vec<PathBuf> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.remove(secret) {
            // Under the lock, so that no push of this app begins meanwhile.
            Some(gone) if all.values().all(|push| push.app != gone.app) => repository::set_aside(data_dir, gone.app),
            _ => Vec::new(),
        }
    }
}

/// A push under way, forgotten when this is dropped.
struct Registered {
    context: Context,
    secret: String,
}

impl Registered {
    fn new(context: &Context, push: Push) -> Self {
        Self { secret: context.pushes.add(push), context: context.clone() }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let pushed = self.context.pushes.find(&self.secret);
        let aside = self.context.pushes.remove(&self.secret, &self.context.settings.data_dir);
        // Without a runtime the role is at its end; the next start sweeps.
        let (Some(push), Ok(runtime)) = (pushed, tokio::runtime::Handle::try_current()) else { return };
        let context = self.context.clone();
        runtime.spawn(async move {
            for path in aside {
                let _ = tokio::fs::remove_dir_all(path).await;
            }
            if let Err(error) = repository::upkeep(&context, push.app).await {
                tracing::warn!(app = %push.app, error = %chain(&error), "cannot look after a repository");
            }
        });
    }
}

/// The routes of git, to be merged into the API's table.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/{repository}/info/refs", get(info_refs))
        .route("/{repository}/git-receive-pack", post(receive))
        .route("/{repository}/git-upload-pack", post(upload))
}

/// Checks that git is there and puts the hook in place. Called once, before the first request.
///
/// # Errors
/// When git is missing or the data directory is not writable.
pub async fn prepare(data_dir: &std::path::Path, hook: &[String]) -> Result<(), Error> {
    let version = process::version().await?;
    tracing::info!(%version, "git is there");
    repository::install_hook(data_dir, hook)
        .map_err(|source| Error::Repository { path: data_dir.join("hooks"), source })?;
    repository::sweep(data_dir);
    Ok(())
}

#[derive(serde::Deserialize)]
struct Wanted {
    service: Option<String>,
}

async fn info_refs(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
    request: Request<Body>,
) -> Response {
    let headers = request.headers();
    let peer = conventions::peer(request.extensions());
    let push = match access::check(&context, &name, headers, peer, true).await {
        Ok(push) => push,
        Err(refused) => return refused,
    };
    let Some(service) = wanted.service.as_deref().and_then(Service::parse) else {
        return text(StatusCode::FORBIDDEN, "This server speaks git's smart HTTP protocol alone. Use a newer git.\n");
    };
    if let (Service::Receive, Err(error)) = (service, crate::ops::room::check(&context)) {
        return access::refused(&error);
    }
    let protocol = protocol(headers);
    let mut advertised = Vec::new();
    // A client of protocol 2 expects no such line before the capabilities (git's http-backend does the same).
    if !(service == Service::Upload && protocol.is_some_and(|protocol| protocol.contains("version=2"))) {
        let line = format!("# service={}\n", service.name());
        advertised.extend_from_slice(format!("{:04x}{line}0000", line.len() + 4).as_bytes());
    }
    match advertise(&context, push, service, protocol, &mut advertised).await {
        Ok(()) => answer(service, "advertisement", Body::from(advertised)),
        Err(error) => failed(&error),
    }
}

async fn advertise(
    context: &Context,
    push: Push,
    service: Service,
    protocol: Option<&str>,
    to: &mut Vec<u8>,
) -> Result<(), Error> {
    let data_dir = &context.settings.data_dir;
    let repository = repository::ensure(data_dir, push.app).await?;
    let run = Run {
        data_dir,
        repository: &repository,
        service,
        advertise: true,
        protocol,
        push_bytes: context.limits().push_bytes,
    };
    let (mut running, input, mut output) = run.start(None)?;
    drop(input);
    tokio::io::AsyncReadExt::read_to_end(&mut output, to).await.map_err(Error::Git)?;
    let status = running.wait().await.map_err(Error::Git)?;
    if !status.success() {
        return Err(Error::Git(io::Error::other(format!("{} ended with {status}", service.name()))));
    }
    Ok(())
}

async fn receive(State(context): State<Context>, Path(name): Path<String>, request: Request<Body>) -> Response {
    serve(context, &name, Service::Receive, request).await
}

async fn upload(State(context): State<Context>, Path(name): Path<String>, request: Request<Body>) -> Response {
    serve(context, &name, Service::Upload, request).await
}

async fn serve(context: Context, name: &str, service: Service, request: Request<Body>) -> Response {
    let push =
        match access::check(&context, name, request.headers(), conventions::peer(request.extensions()), false).await {
            Ok(push) => push,
            Err(refused) => return refused,
        };
    let (parts, sent) = request.into_parts();
    let expected = format!("application/x-{}-request", service.name());
    if parts.headers.get(header::CONTENT_TYPE).is_none_or(|is| is.as_bytes() != expected.as_bytes()) {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "This address is for git alone.\n");
    }
    let encoding = match body::Encoding::of(&parts.headers) {
        Some(encoding) => encoding,
        None => return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Only gzip is understood as Content-Encoding.\n"),
    };
    let data_dir = context.settings.data_dir.clone();
    let repository = match repository::ensure(&data_dir, push.app).await {
        Ok(repository) => repository,
        Err(error) => return failed(&error),
    };
    let run = Run {
        data_dir: &data_dir,
        repository: &repository,
        service,
        advertise: false,
        protocol: protocol(&parts.headers),
        push_bytes: context.limits().push_bytes,
    };
    let registered = (service == Service::Receive).then(|| Registered::new(&context, push));
    let (running, input, output) = match run.start(registered) {
        Ok(started) => started,
        Err(error) => return failed(&error),
    };
    match body::exchange(sent, encoding, running, input, output).await {
        Ok(body) => answer(service, "result", body),
        Err(error) => failed(&Error::Git(error)),
    }
}

/// The client's `Git-Protocol`, when it is no more than that.
fn protocol(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("git-protocol")?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"=:.-_".contains(&byte);
    (value.len() <= 128 && value.bytes().all(plain)).then_some(value)
}

fn answer(service: Service, kind: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&format!("application/x-{}-{kind}", service.name())) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::EXPIRES, HeaderValue::from_static("Fri, 01 Jan 1980 00:00:00 GMT"));
    response
}

/// A refusal in words; git shows plain text to the pusher as `remote:` lines.
fn text(status: StatusCode, words: &'static str) -> Response {
    said(status, words.to_owned())
}

fn said(status: StatusCode, words: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], words).into_response()
}

fn failed(error: &Error) -> Response {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    tracing::error!(error = %words, "git over HTTP failed");
    said(StatusCode::INTERNAL_SERVER_ERROR, format!("The platform could not serve this repository: {words}\n"))
}
