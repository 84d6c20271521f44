//! Git's pre-receive hook: a process of git's that asks control whether a push is taken.
//!
//! It is this executable, started as `dozen git-hook` inside the quarantine of the objects just received. It says what
//! is to change, makes the source archive (only a process inside the quarantine can read the new objects), copies the
//! build's output to its standard output, which git shows the pusher as `remote:` lines, and exits 0 when control takes
//! the push. It knows nothing of apps or builds. [`serve`] is control's side of the connection.

pub mod protocol;
pub mod serve;
mod source;

use std::{
    env,
    io::{self, BufRead as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use dozen_api::{frame, socket};

use self::protocol::{FromHook, Hello, PUSH, SOCKET, ToHook, Update};

/// Runs the hook to its end; the result is the process's exit status.
///
/// Reads standard input and the two variables of [`protocol`]; blocks.
pub fn main() -> i32 {
    match run() {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            let _ = writeln!(io::stdout(), " !     {error}");
            1
        }
    }
}

/// What the pusher is told when the hook itself cannot go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("This hook is run by the platform alone.")]
    NotOurs,
    #[error("The platform is not there to take the push. Try again in a moment. ({0})")]
    Away(#[source] io::Error),
    #[error(
        "The platform was interrupted during this push. Push again; what was released already is not released twice."
    )]
    Interrupted,
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn run() -> Result<bool, Error> {
    let (Some(push), Some(path)) = (env::var(PUSH).ok(), env::var_os(SOCKET)) else {
        return Err(Error::NotOurs);
    };
    let updates = io::stdin().lock().lines().map_while(Result::ok).filter_map(|line| Update::parse(&line)).collect();
    let mut control = socket::connect_blocking(Path::new(&path)).map_err(Error::Away)?;
    frame::write_blocking(&mut control, &Hello::PreReceive { push, updates })?;
    converse(&mut control)
}

fn converse(control: &mut UnixStream) -> Result<bool, Error> {
    let mut shown = io::stdout().lock();
    loop {
        let Ok(Some(said)) = frame::read_blocking::<_, ToHook>(control) else {
            return Err(Error::Interrupted);
        };
        match said {
            ToHook::Output(text) => {
                shown.write_all(text.as_bytes())?;
                shown.flush()?;
            }
            ToHook::Archive { commit, path, most } => {
                let answer = source::archive(&commit, &path, most).unwrap_or_else(FromHook::Failed);
                frame::write_blocking(control, &answer)?;
            }
            ToHook::Done { accepted } => return Ok(accepted),
        }
    }
}
