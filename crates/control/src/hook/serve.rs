//! Control's side of the hook: listens on `run/control.sock`, decides about pushes, runs their builds.
//!
//! Only this user's own processes (and root's) are heard; a hook proves with its secret which push it belongs to.

use std::{io, path::Path, time::Duration};

use dozen_api::{frame, socket};
use dozen_domain::ids::BuildId;
use futures_util::{Stream, StreamExt as _};
use tokio::{
    io::AsyncReadExt as _,
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::protocol::{FromHook, Hello, ToHook, Update};
use crate::{
    Context,
    git::Push,
    ops::{
        self,
        builds::{self, Source, Turn, run::Job},
        release_phase, rollout,
    },
    reconcile::driver::chain,
    store::{self, accounts::Account, apps::App, releases::Release},
};

/// Binds control's socket.
///
/// # Errors
/// When the data directory is not writable.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    socket::bind(&data_dir.join("run/control.sock"))
}

/// Serves hooks until cancelled.
pub async fn serve(context: Context, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_own(&stream) => {
                let context = context.clone();
                tokio::spawn(async move {
                    if let Err(error) = meet(&context, stream).await {
                        tracing::debug!(%error, "a hook has gone");
                    }
                });
            }
            Ok(_) => tracing::warn!("a process of another user was turned away from control's socket"),
            Err(error) => {
                tracing::error!(%error, "cannot accept on control's socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_own(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// The connection to one hook.
struct Hook {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
}

impl Hook {
    async fn say(&mut self, text: impl Into<String>) -> io::Result<()> {
        frame::write(&mut self.to, &ToHook::Output(text.into())).await
    }

    async fn done(&mut self, accepted: bool) -> io::Result<()> {
        frame::write(&mut self.to, &ToHook::Done { accepted }).await
    }

    /// Copies output to the pusher until it ends; an error when the hook goes away first.
    async fn copy(&mut self, output: impl Stream<Item = io::Result<bytes::Bytes>>) -> io::Result<()> {
        let mut output = std::pin::pin!(output);
        let mut torn = Vec::new();
        let mut byte = [0];
        loop {
            let piece = tokio::select! {
                piece = output.next() => piece,
                // It has nothing to say now: whatever comes is its end.
                read = self.from.read(&mut byte) => {
                    read?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            };
            let Some(piece) = piece else { break };
            torn.extend_from_slice(&piece?);
            let whole = whole_characters(&torn);
            let text = String::from_utf8_lossy(&torn[..whole]).into_owned();
            torn.drain(..whole);
            if !text.is_empty() {
                self.say(text).await?;
            }
        }
        if torn.is_empty() { Ok(()) } else { self.say(String::from_utf8_lossy(&torn).into_owned()).await }
    }
}

/// How many bytes do not end inside a character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

async fn meet(context: &Context, stream: UnixStream) -> io::Result<()> {
    let (from, to) = stream.into_split();
    let mut hook = Hook { from, to };
    let Some(Hello::PreReceive { push, updates }) = frame::read(&mut hook.from).await? else { return Ok(()) };
    let Some(push) = context.pushes.find(&push) else {
        hook.say(" !     This push is not known to the platform.\n").await?;
        return hook.done(false).await;
    };
    match decide(&updates) {
        Decision::Refuse(why) => {
            hook.say(format!("\n !     {why}\n\n")).await?;
            hook.done(false).await
        }
        Decision::Skip(said) => {
            hook.say(said).await?;
            hook.done(true).await
        }
        Decision::Build(commit) => match parties(context, push).await {
            Ok((app, account)) => deploy(context, &mut hook, app, account, commit).await,
            Err(error) => apologise(&mut hook, &error).await,
        },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Build this commit; its outcome decides.
    Build(String),
    /// Take it without a build.
    Skip(&'static str),
    /// Take nothing.
    Refuse(&'static str),
}

fn decide(updates: &[Update]) -> Decision {
    if updates.iter().any(|update| update.deploys() && update.removes()) {
        return Decision::Refuse(
            "The deployed branch cannot be deleted. To stop the app, scale it down or destroy it.",
        );
    }
    // Only one branch is deployed: main, when both are pushed.
    let mut deployed = updates.iter().filter(|update| update.deploys());
    match deployed.clone().find(|update| update.reference == "refs/heads/main").or_else(|| deployed.next()) {
        Some(update) => Decision::Build(update.new.clone()),
        None if updates.iter().any(|update| update.is_branch() && !update.removes()) => {
            Decision::Skip("Pushed to non-main branch, skipping build.\n")
        }
        None => Decision::Skip(""),
    }
}

async fn parties(context: &Context, push: Push) -> ops::Result<(App, Account)> {
    let app = ops::apps::by_id(context, push.app).await?;
    let account = store::accounts::by_id(&mut *context.store.read().await?, push.account).await?;
    Ok((app, account.ok_or(ops::Error::NotFound("account"))?))
}

async fn apologise(hook: &mut Hook, error: &ops::Error) -> io::Result<()> {
    if error.is_ours() {
        tracing::error!(error = %chain(error), "a push failed through the platform's fault");
    }
    hook.say(format!("\n !     {}\n\n", error.answer().message)).await?;
    hook.done(false).await
}

async fn deploy(context: &Context, hook: &mut Hook, app: App, account: Account, commit: String) -> io::Result<()> {
    let Some(turn) = Turn::take_free(context, app.id).await else {
        hook.say(format!(
            "\n !     Another build is in progress for {}.\n !     Wait for it to end, then push again.\n\n",
            app.name
        ))
        .await?;
        return hook.done(false).await;
    };
    match builds::released(context, app.id, &commit).await {
        Ok(None) => {}
        Ok(Some(release)) => {
            drop(turn);
            return again(context, hook, &app, &commit, release).await;
        }
        Err(error) => return apologise(hook, &error).await,
    }
    let id = BuildId::random();
    let path = builds::scratch(context, id, ".tar");
    // Every file takes up to two blocks more in a tar than its own bytes.
    let most = context.limits().source_bytes.saturating_mul(2);
    let source = archive(hook, commit, &path, most).await;
    let (source, commit, subject) = match source {
        Ok(Some(got)) => got,
        other => {
            let _ = tokio::fs::remove_file(&path).await;
            other?;
            return hook.done(false).await;
        }
    };
    let url = format!("{}#{commit}", ops::apps::repository(context, &app.name));
    let mut build = builds::fresh(context, id, &app, &account, url);
    build.source_version = Some(commit);
    build.source_version_description = Some(subject);
    let writer = match builds::begin(context, &build).await {
        Ok(writer) => writer,
        Err(error) => {
            let _ = tokio::fs::remove_file(&path).await;
            return apologise(hook, &error).await;
        }
    };
    let output = context.outputs.follow(&builds::output_path(context, app.id, id));
    let name = app.name.clone();
    let mut job = Job::new(context.clone(), app, account, build, writer);
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            // Nobody would see what is built.
            let _ = tokio::fs::remove_file(&path).await;
            job.fail("The platform could not read its own output. Push again.").await;
            return apologise(hook, &ops::Error::platform("read the output of a build", error)).await;
        }
    };
    job.say("Compressing source files... done.\nBuilding source:\n\n");
    let cancel = job.canceller();
    let running = tokio::spawn(job.run(source, turn));
    if let Err(gone) = hook.copy(output).await {
        cancel.cancel();
        return Err(gone);
    }
    match running.await.map_err(io::Error::other)? {
        Some(release) => {
            hook.say("Verifying deploy... done.\n").await?;
            if release.status == dozen_domain::release::Status::Pending {
                release_phase(context, hook, &release).await?;
            }
            tell_return(context, hook, &release).await?;
            hook.done(true).await
        }
        None => {
            hook.say(format!("\n !     Push failed\n\nVerifying deploy...\n\n!\tPush rejected to {name}.\n\n")).await?;
            hook.done(false).await
        }
    }
}

/// Takes a commit that was built before: it is what the app runs, or is about to.
async fn again(context: &Context, hook: &mut Hook, app: &App, commit: &str, release: Release) -> io::Result<()> {
    let (short, version) = (commit.get(..8).unwrap_or(commit), release.version);
    let url = ops::apps::web_url(context, &app.name);
    hook.say(format!(
        "-----> Commit {short} is built already and what {version} runs: nothing to do.\n       \
         To build it again, push a new commit (git commit --allow-empty).\n       {url} deployed to Dozen\n\n"
    ))
    .await?;
    if release.status == dozen_domain::release::Status::Pending {
        release_phase(context, hook, &release).await?;
    }
    hook.done(true).await
}

/// Tells the pusher when the release did not come up and the platform went back; says nothing when all is well.
async fn tell_return(context: &Context, hook: &mut Hook, release: &Release) -> io::Result<()> {
    match rollout::watch(context, release).await {
        Ok(None) => Ok(()),
        Ok(Some(back)) => {
            let text = format!(
                "\n !     {} did not come up: a web dyno of it crashed {} times in a row.\n !     The former release \
                 goes on, now as {}. `heroku logs` says more; push a fix.\n\n",
                release.version,
                rollout::GIVE_UP,
                back.version
            );
            hook.say(text).await
        }
        Err(error) => {
            tracing::warn!(error = %chain(&error), "cannot tell a pusher what became of a release");
            Ok(())
        }
    }
}

/// Has the hook write the source; nothing when it could not, which the pusher has been told.
async fn archive(
    hook: &mut Hook,
    commit: String,
    path: &Path,
    most: u64,
) -> io::Result<Option<(Source, String, String)>> {
    frame::write(&mut hook.to, &ToHook::Archive { commit, path: path.to_owned(), most }).await?;
    match frame::read(&mut hook.from).await? {
        Some(FromHook::Source { commit, subject, submodules }) => {
            Ok(Some((Source { path: path.to_owned(), submodules }, commit, subject)))
        }
        Some(FromHook::Failed(why)) => {
            tracing::error!(%why, "no source archive");
            hook.say(format!("\n !     The platform could not read the source: {why}\n\n")).await?;
            Ok(None)
        }
        None => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// Shows the release command's output. As on Heroku the push is taken whatever becomes of it: the code is there, and
/// `releases:retry` needs no push.
async fn release_phase(context: &Context, hook: &mut Hook, release: &Release) -> io::Result<()> {
    hook.say("Running release command...\n\n").await?;
    let path = release_phase::output_path(context, release.app, release.id);
    let ended = release_phase::wait(context, release.id);
    let mut ended = std::pin::pin!(ended);
    // It may have to wait for releases before it.
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let output = loop {
        match context.outputs.follow(&path) {
            Ok(output) => break Some(output),
            Err(_) => tokio::select! {
                _ = look.tick() => {}
                // It may have begun and ended since the last look.
                _ = &mut ended => break context.outputs.follow(&path).ok(),
            },
        }
    };
    if let Some(output) = output {
        hook.copy(output).await?;
    }
    match release_phase::wait(context, release.id).await {
        Ok(release) if release.status == dozen_domain::release::Status::Succeeded => {
            hook.say("\nWaiting for release.... done.\n").await
        }
        Ok(_) => {
            hook.say(
                "\nWaiting for release.... failed.\n !     The former release stays in force. \
                 `heroku releases:output` shows this again; push a fix or retry.\n",
            )
            .await
        }
        Err(error) => hook.say(format!("\n !     {}\n", error.answer().message)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(reference: &str, removes: bool) -> Update {
        let new = if removes { "0".repeat(40) } else { reference.len().to_string() };
        Update { old: "0".repeat(40), new, reference: reference.to_owned() }
    }

    #[test]
    fn only_main_and_master_are_built_and_main_first() {
        let (main, master) = (update("refs/heads/main", false), update("refs/heads/master", false));
        assert_eq!(decide(&[master.clone(), main.clone()]), Decision::Build(main.new.clone()));
        assert_eq!(decide(std::slice::from_ref(&master)), Decision::Build(master.new));
        let skipped = Decision::Skip("Pushed to non-main branch, skipping build.\n");
        assert_eq!(decide(&[update("refs/heads/topic", false)]), skipped);
        assert_eq!(decide(&[update("refs/heads/topic", true)]), Decision::Skip(""));
        assert_eq!(decide(&[update("refs/tags/v1", false)]), Decision::Skip(""));
        assert!(matches!(decide(&[update("refs/heads/main", true)]), Decision::Refuse(_)));
    }

    #[test]
    fn characters_are_not_torn() {
        let text = "grün".as_bytes();
        assert_eq!(whole_characters(&text[..3]), 2);
        assert_eq!(whole_characters(text), text.len());
        assert_eq!(whole_characters(b"\xff\xfe"), 2);
    }
}
