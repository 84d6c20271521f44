//! Logging in to a platform elsewhere, out again, and the forwarder for the official CLI.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    os::fd::AsFd,
    path::Path,
};

use data_encoding::BASE64;
use dozen_api::{client::Client, introduction};
use dozen_domain::config::Secret;
use http::{HeaderValue, Method, header};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Session;
use crate::{
    Error, Printer, arguments,
    connect::{self, Forwarder},
    environment::Place,
    login::{self, Login},
};

#[derive(Debug, Deserialize)]
struct Account {
    email: String,
}

#[derive(Debug, Deserialize)]
struct Authorization {
    id: String,
    access_token: Option<AccessToken>,
}

#[derive(Debug, Deserialize)]
struct AccessToken {
    token: Secret,
}

/// `dozen login URL`
///
/// # Errors
/// When the platform is not the one that was meant, or does not let this person in.
pub async fn login(
    wanted: &arguments::Login,
    directory: Option<&Path>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let directory =
        directory.ok_or_else(|| Error::Usage("there is no home directory: set XDG_CONFIG_HOME".to_owned()))?;
    let url = login::address(&wanted.url)?;
    let former = Login::load(directory)?;
    let shown = introduction::authority(&Client::new(&url)?).await?;
    let known = former.as_ref().filter(|former| former.url == url).and_then(|former| {
        let pem = std::fs::read_to_string(former.directory.join("ca.pem")).ok()?;
        login::der(&pem)
    });
    trust(wanted, &url, &shown, known.as_deref(), printer)?;
    let ca = login::pem(&shown);
    let api = Client::new(&url)?.trusting(ca.as_bytes())?;
    let secret = ask_secret(if wanted.email.is_some() { "Password:" } else { "API key:" }, printer)?;
    printer.begin(&format!("Logging in to {url}"));
    let (token, authorization) = match &wanted.email {
        Some(email) => authorize(&api, email, &secret).await?,
        None => (secret, None),
    };
    let account: Account = api.with_token(token.clone()).get("/account").await?;
    if let Some(former) = &former {
        connect::end(former)?;
        former.forget()?;
    }
    let login = Login { url, email: account.email, token, authorization, directory: directory.to_owned() };
    login.store(&ca)?;
    printer.done(&format!("done, as {}", login.email));
    match printer.is_json() {
        true => printer.json(&json!({ "email": login.email, "platform": login.url })),
        false => Ok(()),
    }
}

/// Whether this is the platform that is meant: by a fingerprint, by what was pinned before, or by a person's word.
fn trust(
    wanted: &arguments::Login,
    url: &str,
    shown: &[u8],
    known: Option<&[u8]>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let fingerprint = login::fingerprint(shown);
    if let Some(given) = &wanted.fingerprint {
        return match login::is_same(given, &fingerprint) {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "the authority at {url} has the fingerprint {fingerprint}, and not the one that was given: somebody may \
                 be listening in, or it is another platform"
            ))),
        };
    }
    match known {
        Some(known) if known == shown => return Ok(()),
        Some(_) => {
            return Err(Error::Usage(format!(
                "the authority at {url} is not the one of the last login: somebody may be listening in, or the platform \
                 was set up anew. If you know that it was, give --fingerprint {fingerprint}"
            )));
        }
        None => {}
    }
    printer.note(&format!("The certificate authority of {url} has the SHA-256 fingerprint\n  {fingerprint}"));
    printer.note("On that machine, `dozen fingerprint` prints the same if nobody is listening in.");
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!("nobody is here to compare it: give --fingerprint {fingerprint}")));
    }
    printer.ask("Trust it from now on? (yes/no)");
    let answer = line()?;
    match answer.trim() {
        "yes" | "y" => Ok(()),
        _ => Err(Error::Usage("not trusted: nothing was sent".to_owned())),
    }
}

fn line() -> Result<String, Error> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|source| Error::Io { operation: "read standard input".to_owned(), source })?;
    Ok(line)
}

/// A line of standard input, which a terminal does not show.
fn ask_secret(question: &str, printer: &mut Printer<'_>) -> Result<Secret, Error> {
    let text = match Hidden::enter() {
        Some(hidden) => {
            printer.ask(question);
            let text = typed(rustix::stdio::stdin());
            drop(hidden);
            printer.note("");
            text?
        }
        None => line()?,
    };
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Error::Usage(
            "nothing was given: standard input is the API key, or with --email the password".to_owned(),
        )),
        secret => Ok(Secret::new(secret)),
    }
}

/// The terminal, showing nothing that is typed; as it was when dropped.
struct Hidden(Termios);

impl Hidden {
    /// `None` when standard input is no terminal.
    fn enter() -> Option<Self> {
        let before = rustix::termios::tcgetattr(io::stdin()).ok()?;
        let mut hidden = before.clone();
        // Ctrl-C is read like any key: who is ended by it leaves a terminal that shows nothing.
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that has gone needs no mending.
        _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// What is typed until Return, with the keys that people mend a line with.
fn typed(keys: impl AsFd) -> Result<String, Error> {
    let mut line = String::new();
    let mut held = Vec::new();
    let mut key = [0];
    loop {
        let read = loop {
            match rustix::io::read(&keys, &mut key) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read,
            }
        };
        let count =
            read.map_err(|error| Error::Io { operation: "read standard input".to_owned(), source: error.into() })?;
        match key[0] {
            _ if count == 0 => return Ok(line),
            b'\r' | b'\n' | CTRL_D => return Ok(line),
            CTRL_C => return Err(Error::Usage("given up: you are not logged in".to_owned())),
            BACKSPACE | DELETE => _ = line.pop(),
            CTRL_U => line.clear(),
            byte => {
                held.push(byte);
                // A letter may be several bytes.
                if let Ok(text) = std::str::from_utf8(&held) {
                    line.push_str(text);
                    held.clear();
                }
            }
        }
    }
}

/// A token for an e-mail address and a password; and the authorization that it belongs to.
async fn authorize(api: &Client, email: &str, password: &Secret) -> Result<(Secret, Option<String>), Error> {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let body = json!({ "description": format!("dozen login on {machine}"), "scope": ["global"] });
    let mut request = api.request(Method::POST, "/oauth/authorizations", Some(&body))?;
    let credentials = format!("Basic {}", BASE64.encode(format!("{email}:{}", password.expose()).as_bytes()));
    let wrong = || Error::Usage("the e-mail address or the password cannot be sent".to_owned());
    request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_str(&credentials).map_err(|_| wrong())?);
    let made: Authorization = super::read(api.exchange(request).await?.1)?;
    let token = made.access_token.ok_or_else(|| Error::Missing("the platform made no token".to_owned()))?;
    Ok((token.token, Some(made.id)))
}

/// `dozen logout`
///
/// # Errors
/// When there is no login, or its files cannot be removed.
pub async fn logout(place: Place, login: Login, printer: &mut Printer<'_>) -> Result<(), Error> {
    connect::end(&login)?;
    if let Some(authorization) = &login.authorization {
        let session = Session::open(place)?;
        let path = format!("/oauth/authorizations/{authorization}");
        let revoked: Result<Value, _> = session.api.call(Method::DELETE, &path, None::<&()>).await;
        if let Err(error) = revoked {
            printer.note(&format!("The token could not be revoked and is still good: {error}"));
        }
    }
    login.forget()?;
    printer.note(&format!("Logged out of {}", login.url));
    match printer.is_json() {
        true => printer.json(&json!({ "platform": login.url })),
        false => Ok(()),
    }
}

/// `dozen connect`
///
/// # Errors
/// When it cannot listen.
pub async fn connect(login: &Login, port: Option<u16>, printer: &mut Printer<'_>) -> Result<(), Error> {
    let forwarder = Forwarder::bind(login, port).await?;
    let port = forwarder.port().map_err(|source| Error::Io { operation: "ask for the port".to_owned(), source })?;
    match printer.is_json() {
        true => printer.json(&json!({ "url": format!("http://localhost:{port}"), "ssh": forwarder.ssh() }))?,
        false => printer.line(&format!("http://localhost:{port}"))?,
    }
    printer
        .note(&format!("is {} for the official CLI until Ctrl-C. In another shell: eval \"$(dozen env)\"", login.url));
    match forwarder.ssh() {
        Some(address) => printer.note(&format!("ps:exec and its family come in at {address}.")),
        None => printer.note(connect::NO_SSH),
    }
    forwarder.run().await;
    Ok(())
}

/// `dozen whoami`
pub(super) async fn whoami(session: &Session, printer: &mut Printer<'_>) -> Result<(), Error> {
    let account: Account = session.api.get("/account").await?;
    let url = session.place.api_url();
    match printer.is_json() {
        true => printer.json(&json!({ "email": account.email, "platform": url })),
        false => printer.line(&format!("{} at {url}", account.email)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_line_can_be_mended_and_given_up() {
        let typed = |keys: &str| {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            io::Write::write_all(&mut writer, keys.as_bytes()).expect("typed");
            drop(writer);
            super::typed(reader)
        };
        for (keys, expected) in [
            ("sesame\rmore", "sesame"),
            ("sesam\u{7f}\u{8}ame\n", "sesame"),
            ("wrong\u{15}gr\u{fc}\u{df}e\u{4}", "gr\u{fc}\u{df}e"),
            ("\u{7f}\u{7f}a", "a"),
        ] {
            assert_eq!(typed(keys).expect("a line"), expected, "{keys:?}");
        }
        assert!(typed("sesa\u{3}me\r").expect_err("given up").to_string().contains("not logged in"));
    }
}
