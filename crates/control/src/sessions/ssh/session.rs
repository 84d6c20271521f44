//! One session channel: what the client asks for, then the streams of the process that runs it in the dyno.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use dozen_api::engine::{Attach, Entered, Inside, Program};
use dozen_domain::{dyno::Exit, limits::seconds};
use russh::{
    Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf,
    server::{Handle, Msg},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    Context,
    reconcile::driver::chain,
    sessions::{About, Account, activity::Activity, inside, pass::Pass},
};

/// Extended data of this kind is standard error (RFC 4254, 5.2).
const ERRORS: u32 = 1;
/// Most bytes on the way in one direction.
const PIECE: usize = 32 << 10;
/// What a terminal's user types to end the input.
const END: &[u8] = &[4];
/// Exit status of a command that could not be run, or whose dyno ended under it.
const FAILED: u32 = 255;

/// What a client has asked for so far.
#[derive(Default)]
struct Wishes {
    terminal: Option<(u16, u16)>,
    env: BTreeMap<String, String>,
}

/// Who is at the other end.
pub(super) struct Client {
    /// Where to answer.
    pub(super) handle: Handle,
    /// It reads its standard input from the first output on, and breaks when the channel was closed before it could say
    /// that there is no more (`heroku ps:exec -- ls < /dev/null`).
    pub(super) breaks: bool,
}

/// What a session has been through.
#[derive(Default)]
struct Course {
    /// Something was printed.
    printed: AtomicBool,
    /// The client has ended its input.
    input_ended: AtomicBool,
}

/// Serves a session until its process or its client ends it.
pub(super) async fn serve(context: Context, pass: Pass, channel: Channel<Msg>, client: Client) {
    let (id, handle) = (channel.id(), client.handle);
    let (mut from, to) = channel.split();
    let mut wishes = Wishes::default();
    let program = loop {
        let Some(message) = from.wait().await else { return };
        let granted = match message {
            ChannelMsg::RequestPty { term, col_width, row_height, .. } => {
                wishes.terminal = Some(size(col_width, row_height));
                wishes.env.insert("TERM".to_owned(), term);
                true
            }
            ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
                // As sshd does by default: what says how to speak to the person, nothing that says what to run.
                let harmless = variable_name == "LANG" || variable_name.starts_with("LC_");
                if harmless {
                    wishes.env.insert(variable_name, variable_value);
                }
                harmless
            }
            ChannelMsg::RequestShell { .. } => break Ok(Program::Shell),
            ChannelMsg::Exec { command, .. } => break command_of(&context, command).map(Program::Command),
            ChannelMsg::RequestSubsystem { name, .. } if name == "sftp" => break Ok(Program::Files),
            ChannelMsg::WindowChange { col_width, row_height, .. } => {
                wishes.terminal = wishes.terminal.map(|_| size(col_width, row_height));
                continue;
            }
            ChannelMsg::RequestSubsystem { .. } | ChannelMsg::RequestX11 { .. } | ChannelMsg::AgentForward { .. } => {
                false
            }
            ChannelMsg::Close => return,
            _ => continue,
        };
        let answered = if granted { handle.channel_success(id).await } else { handle.channel_failure(id).await };
        if answered.is_err() {
            return;
        }
    };
    let _ = handle.channel_success(id).await;
    let course = Course::default();
    let status = match program {
        Ok(program) => run(&context, pass, program, wishes, (&mut from, &course), &to).await,
        Err(reason) => refuse(&to, &reason).await,
    };
    if client.breaks && course.printed.load(Relaxed) && !course.input_ended.load(Relaxed) {
        let patience = Duration::from_millis(context.limits().input_end_ms);
        let _ = tokio::time::timeout(patience, input_end(&mut from)).await;
    }
    let _ = to.exit_status(status).await;
    let _ = to.eof().await;
    let _ = to.close().await;
}

/// Returns when the client has ended its input.
async fn input_end(from: &mut ChannelReadHalf) {
    while let Some(message) = from.wait().await {
        if ends_input(&message) {
            return;
        }
    }
}

/// Whether nothing more is to come: said by the protocol, or by the official client with the key that says so.
fn ends_input(message: &ChannelMsg) -> bool {
    match message {
        ChannelMsg::Data { data } => data.ends_with(END),
        ChannelMsg::Eof | ChannelMsg::Close => true,
        _ => false,
    }
}

fn size(columns: u32, rows: u32) -> (u16, u16) {
    let or = |number: u32, usual: u16| u16::try_from(number).ok().filter(|number| *number > 0).unwrap_or(usual);
    (or(columns, 80), or(rows, 24))
}

fn command_of(context: &Context, command: Vec<u8>) -> Result<String, String> {
    let most = context.limits().command_bytes;
    match String::from_utf8(command) {
        Ok(command) if command.len() as u64 > most => {
            Err(format!("The command is {} bytes long; at most {most} are possible.", command.len()))
        }
        Ok(command) if !command.contains('\0') => Ok(command),
        _ => Err("The command is not text.".to_owned()),
    }
}

async fn refuse(to: &ChannelWriteHalf<Msg>, reason: &str) -> u32 {
    let _ = to.make_writer_ext(Some(ERRORS)).write_all(format!("{reason}\r\n").as_bytes()).await;
    FAILED
}

/// Runs it; returns its exit status.
async fn run(
    context: &Context,
    pass: Pass,
    program: Program,
    wishes: Wishes,
    (from, course): (&mut ChannelReadHalf, &Course),
    to: &ChannelWriteHalf<Msg>,
) -> u32 {
    let Some(dyno) = inside::find(context, pass.app, &pass.dyno) else {
        return refuse(to, &format!("{} does not run. See heroku ps.", pass.dyno)).await;
    };
    let what = if program == Program::Files { "ps:copy" } else { "ps:exec" };
    let attach = match wishes.terminal.filter(|_| program != Program::Files) {
        Some((columns, rows)) => Attach::Terminal { columns, rows },
        None => Attach::Pipes,
    };
    let inside = Inside { program, env: wishes.env, attach, separate_errors: attach == Attach::Pipes };
    let entered = match context.engine.enter(dyno.id, inside).await {
        Ok(entered) => entered,
        Err(error) => return refuse(to, &chain(&error)).await,
    };
    let about = About { app: pass.app, dyno: pass.dyno.clone(), email: pass.email, what: what.to_owned() };
    let _account = Account::open(context, about);
    let Entered { input, output, errors, resize, exit } = entered;
    let activity = Activity::new();
    let terminal = matches!(attach, Attach::Terminal { .. });
    let typed = async {
        let mut input = Some(input);
        loop {
            let message = from.wait().await;
            activity.note();
            // What follows a key that may have ended the input shows that it has not.
            if matches!(message, None | Some(ChannelMsg::Data { .. } | ChannelMsg::Eof | ChannelMsg::Close)) {
                course.input_ended.store(message.as_ref().is_none_or(ends_input), Relaxed);
            }
            let sent = match message {
                Some(ChannelMsg::Data { data }) => match &mut input {
                    Some(input) => input.write_all(&data).await,
                    None => Ok(()),
                },
                Some(ChannelMsg::Eof) => match input.as_mut().filter(|_| terminal) {
                    Some(input) => input.write_all(END).await,
                    None => {
                        input = None;
                        Ok(())
                    }
                },
                Some(ChannelMsg::WindowChange { col_width, row_height, .. }) => {
                    if let Some(resize) = &resize {
                        let (columns, rows) = size(col_width, row_height);
                        resize(columns, rows);
                    }
                    Ok(())
                }
                Some(ChannelMsg::Close) | None => return,
                Some(_) => Ok(()),
            };
            if sent.is_err() {
                input = None; // the process has closed it
            }
        }
    };
    let printed = async {
        let errors = async {
            match errors {
                Some(errors) => copy(errors, to.make_writer_ext(Some(ERRORS)), &activity, course).await,
                None => Ok(()),
            }
        };
        let _ = tokio::join!(copy(output, to.make_writer(), &activity, course), errors);
        exit.await
    };
    let idle = context.limits().attach_idle_seconds;
    // What has still to be told is not about the process any more: it ends with what waits for its end.
    let ended = tokio::select! {
        () = typed => return FAILED,
        ended = printed => Some(ended),
        () = activity.quiet(seconds(idle)) => None,
    };
    let Some(ended) = ended else {
        course.printed.store(true, Relaxed);
        return last_word(to, terminal, &format!("Nothing was typed or shown for {idle} seconds.")).await;
    };
    match ended {
        Ok(Some(exit)) => u32::try_from(Exit::status(exit)).unwrap_or(FAILED),
        Ok(None) => {
            course.printed.store(true, Relaxed);
            last_word(to, terminal, &format!("{} has stopped.", pass.dyno)).await
        }
        Err(reason) => refuse(to, &reason).await,
    }
}

/// Says why a session ends that its process did not.
async fn last_word(to: &ChannelWriteHalf<Msg>, terminal: bool, reason: &str) -> u32 {
    if terminal {
        // A terminal has one output, and clients show nothing else.
        let _ = to.make_writer().write_all(format!("\r\n{reason}\r\n").as_bytes()).await;
        return FAILED;
    }
    refuse(to, reason).await
}

async fn copy(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    to: impl AsyncWrite,
    activity: &Activity,
    course: &Course,
) -> std::io::Result<()> {
    tokio::pin!(to);
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece).await? {
            0 => return to.flush().await,
            count => {
                course.printed.store(true, Relaxed);
                to.write_all(&piece[..count]).await?;
            }
        }
        activity.note();
    }
}
