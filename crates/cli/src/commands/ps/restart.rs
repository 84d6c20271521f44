//! Restarts and stops dynos, by name or by process type.

use http::Method;
use serde_json::Value;

use crate::{Error, Printer, commands::Session};

/// `web.1` is a dyno, `web` a process type.
fn path(app: &str, which: Option<&str>, rest: &str) -> String {
    match which {
        None => format!("/apps/{app}/dynos"),
        Some(dyno) if dyno.contains('.') => format!("/apps/{app}/dynos/{dyno}{rest}"),
        Some(process_type) => format!("/apps/{app}/formations/{process_type}{rest}"),
    }
}

pub(in crate::commands) async fn run(
    session: &Session,
    app: &str,
    which: Option<&str>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    act(session, Method::DELETE, &path(app, which, ""), ("Restarting", app, which), printer).await
}

pub(in crate::commands) async fn stop(
    session: &Session,
    app: &str,
    which: &str,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let path = path(app, Some(which), "/actions/stop");
    act(session, Method::POST, &path, ("Stopping", app, Some(which)), printer).await
}

async fn act(
    session: &Session,
    method: Method,
    path: &str,
    (verb, app, which): (&str, &str, Option<&str>),
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let dynos = which.map_or_else(|| "all dynos".to_owned(), str::to_owned);
    printer.begin(&format!("{verb} {dynos} on {app}"));
    let answer: Value = session.api.call(method, path, None::<&()>).await?;
    printer.done("done");
    if printer.is_json() { printer.json(&answer) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dyno_has_a_number_and_a_process_type_has_none() {
        assert_eq!(path("shop", None, ""), "/apps/shop/dynos");
        assert_eq!(path("shop", Some("web.1"), "/actions/stop"), "/apps/shop/dynos/web.1/actions/stop");
        assert_eq!(path("shop", Some("web"), ""), "/apps/shop/formations/web");
    }
}
