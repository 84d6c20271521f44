//! Answers that the router gives itself in an app's name: the token that a certificate authority looks for (HTTP-01),
//! and the redirect from plain HTTP to HTTPS.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, SERVER},
};

use super::certificates::Challenges as _;
use crate::{
    body::Reply,
    error::{Error, Kind},
    exchange::Exchange,
    table::View,
};

const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The answer for a certificate authority, when this request is one's and the token is known. Others' requests below
/// the same path go to the app.
pub(crate) fn challenge(exchange: &mut Exchange) -> Option<Response<Reply>> {
    let path = exchange.target.as_ref()?.path();
    if !path.starts_with(WELL_KNOWN) || exchange.client.tls {
        return None;
    }
    let app = exchange.router.table.find(&exchange.host)?;
    let answer = app.view().app.edge.token(&exchange.host, path).map(|text| Bytes::copy_from_slice(text.as_bytes()))?;
    exchange.status = StatusCode::OK.as_u16();
    exchange.app = Some(app);
    exchange.finish(None);
    let mut response = Response::new(Reply::Page(Some(answer)));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(SERVER, HeaderValue::from_static("Heroku"));
    Some(response)
}

/// Says whether a request is sent to HTTPS instead of to a dyno.
///
/// # Errors
/// When it is.
pub(crate) fn redirect(exchange: &Exchange, view: &View) -> Result<(), Error> {
    let wanted = view.app.edge.https_redirect && !exchange.client.tls && exchange.router.https_port.is_some();
    if wanted { Err(Error::nobody(Kind::Insecure)) } else { Ok(()) }
}

/// Says in such a request's answer where it is to go: the same address over HTTPS.
pub(crate) fn redirected(exchange: &Exchange, fields: &mut HeaderMap) {
    let port = exchange.router.https_port.filter(|port| *port != 443).map(|port| format!(":{port}"));
    let target = exchange.target.as_ref().map_or("/", |target| target.as_str());
    let location = format!("https://{}{}{target}", exchange.host, port.unwrap_or_default());
    if let Ok(location) = HeaderValue::from_str(&location) {
        fields.insert(LOCATION, location);
    }
}
