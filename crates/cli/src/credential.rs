//! Git's credential helper, for people without the official CLI: hands out the token for this platform's git host.

use std::io::BufRead;

use crate::{Error, Printer, environment::Place};

/// Answers `get` for this platform's host and stays silent for every other, so that git asks the next helper.
///
/// # Errors
/// When the question cannot be read, or the platform has never been started.
pub fn answer(
    operation: &str,
    question: &mut dyn BufRead,
    place: &Place,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    if operation != "get" {
        return Ok(());
    }
    let (mut protocol, mut host) = (String::new(), String::new());
    for line in question.lines() {
        let failed = |source| Error::Io { operation: "read git's question".to_owned(), source };
        match line.map_err(failed)?.split_once('=') {
            Some(("protocol", value)) => value.clone_into(&mut protocol),
            Some(("host", value)) => value.clone_into(&mut host),
            Some(_) => {}
            None => break,
        }
    }
    if protocol != "https" || host != place.git_host() {
        return Ok(());
    }
    let token = place.token()?;
    printer.line("username=heroku")?;
    printer.line(&format!("password={}", token.expose()))
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, path::PathBuf};

    use dozen_domain::config::Secret;

    use super::*;
    use crate::environment::Site;

    fn ask(host: &str) -> String {
        let place = Place {
            site: Site::Here {
                data_dir: PathBuf::from("/nowhere"),
                api: "127.0.0.1:5000".parse().expect("an address"),
                tls: "127.0.0.1:5443".parse().expect("an address"),
            },
            api_key: Some(Secret::new("sesame")),
            node_extra_ca_certs: None,
            git_ssl_cainfo: None,
            executable: PathBuf::from("dozen"),
        };
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        let mut question = Cursor::new(format!("protocol=https\nhost={host}\n\n"));
        answer("get", &mut question, &place, &mut Printer::new(&mut data, &mut notes)).expect("answered");
        String::from_utf8(data).expect("text")
    }

    #[test]
    fn the_token_goes_to_this_platform_alone() {
        assert_eq!(ask("localhost:5443"), "username=heroku\npassword=sesame\n");
        assert_eq!(ask("github.com"), "");
        assert_eq!(ask("localhost"), "");
    }
}
