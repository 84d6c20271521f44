//! Answers that the router gives itself in an app's name: the token that a certificate authority looks for (HTTP-01),
//! and the redirect from plain HTTP to HTTPS.

use bytes::Bytes;

use super::certificates::Challenges as _;
use crate::{
    error::{Error, Kind},
    exchange::Exchange,
    table::View,
};

const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The answer for a certificate authority, when this request is one's and the token is known. Others' requests below
/// the same path go to the app.
pub(crate) fn challenge(exchange: &mut Exchange) -> Option<Bytes> {
    let path = exchange.head.path();
    if !path.starts_with(WELL_KNOWN.as_bytes()) || exchange.client.tls {
        return None;
    }
    let path = path.split(|byte| *byte == b'?').next().and_then(|path| std::str::from_utf8(path).ok())?;
    let app = exchange.router.table.find(&exchange.host)?;
    let answer = app.view().app.edge.token(&exchange.host, path).map(|text| Bytes::copy_from_slice(text.as_bytes()))?;
    exchange.app = Some(app);
    Some(answer)
}

/// Says whether a request is sent to HTTPS instead of to a dyno.
///
/// # Errors
/// When it is.
pub(crate) fn redirect(exchange: &Exchange, view: &View) -> Result<(), Error> {
    let wanted = view.app.edge.https_redirect && !exchange.client.tls && exchange.router.https_port.is_some();
    if wanted { Err(Error::nobody(Kind::Insecure)) } else { Ok(()) }
}

/// Where such a request is to go: the same address over HTTPS.
pub(crate) fn redirected(exchange: &Exchange) -> Vec<u8> {
    let port = exchange.router.https_port.filter(|port| *port != 443).map(|port| format!(":{port}"));
    let slash = if exchange.head.lacks_slash() { "/" } else { "" };
    let mut location = format!("https://{}{}{slash}", exchange.host, port.unwrap_or_default()).into_bytes();
    location.extend_from_slice(exchange.head.path());
    location
}
