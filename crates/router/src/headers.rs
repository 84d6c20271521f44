//! What the router adds to heads, takes from them, and reads in them.
//!
//! Hop-by-hop fields never pass in either direction, with those that `Connection` names. What the router says itself
//! (`X-Forwarded-*`, `X-Request-*`) replaces what the client said, but for the list of `X-Forwarded-For`, whose last
//! entry is always the router's own.

use bytes::{BufMut, BytesMut};
use dozen_api::clock;
use dozen_domain::limits::Limits;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderValue as Value, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, SERVER, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    response,
};

use crate::error::{Flaw, Restriction};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Some servers turn it into `HTTP_PROXY` for the programs that they start.
const PROXY: HeaderName = HeaderName::from_static("proxy");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const VIA_US: HeaderValue = HeaderValue::from_static("1.1 heroku-router");

/// Shortest and longest `X-Request-Id` that is passed on (heroku/erequest_id; frameworks want 20 at least).
const REQUEST_ID_LENGTH: std::ops::RangeInclusive<usize> = 20..=200;

/// Checks a request's head against the limits and the rules that the parser leaves open.
///
/// # Errors
/// The flaw.
pub(crate) fn check_request<B>(request: &Request<B>, limits: &Limits) -> Result<(), Flaw> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let target = target + uri.authority().map_or(0, |authority| authority.as_str().len() + "https://".len());
    let method = request.method();
    let line = method.as_str().len() + target + "  HTTP/1.1".len();
    if line as u64 > limits.router_request_line_bytes
        || method.as_str().len() as u64 > limits.router_method_bytes
        || method == http::Method::CONNECT
        || request.headers().len() as u64 > limits.router_headers
    {
        return Err(Flaw::Header);
    }
    for (name, value) in request.headers() {
        let line = name.as_str().len() + ": ".len() + value.len();
        if line as u64 > limits.router_header_line_bytes || name.as_str().len() as u64 > limits.router_header_name_bytes
        {
            return Err(Flaw::Header);
        }
    }
    // A coding that the router does not undo would be lost with the field that names it.
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|coding| !is(coding, b"chunked")) || codings.next().is_some() {
        return Err(Flaw::Header);
    }
    if request.headers().get_all(EXPECT).iter().any(|value| !is(value, b"100-continue")) {
        return Err(Flaw::Expect);
    }
    Ok(())
}

/// The host that a request is for, in lower case without port and final dot.
///
/// # Errors
/// When there is none, more than one, or two that differ.
pub(crate) fn host<B>(request: &Request<B>) -> Result<Box<str>, Flaw> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Flaw::Header);
    }
    let field = field.map(|value| plain_host(value.as_bytes()).ok_or(Flaw::Header)).transpose()?;
    let authority = request.uri().authority().map(|authority| authority.as_str());
    // User data before the host is no part of any address that the router serves.
    let authority = authority.map(|text| plain_host(text.as_bytes()).ok_or(Flaw::Header)).transpose()?;
    match (field, authority) {
        (Some(field), Some(authority)) if field != authority => Err(Flaw::Header),
        (Some(host), _) => Ok(host),
        // Only HTTP/2 may leave the field out.
        (None, Some(host)) if request.version() == Version::HTTP_2 => Ok(host),
        (None, _) => Err(Flaw::Header),
    }
}

fn plain_host(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let (name, port) = match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (&text[..colon], &text[colon + 1..]),
        _ => (text, ""),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    if name.is_empty() || !name.bytes().all(fits) || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(name.to_ascii_lowercase().into())
}

/// The client's request id where it is fit to be passed on, else a fresh one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fits = |value: &&HeaderValue| {
        let of = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'+' | b'/' | b'-');
        REQUEST_ID_LENGTH.contains(&value.len()) && value.as_bytes().iter().all(of)
    };
    headers.get(REQUEST_ID).filter(fits).cloned().unwrap_or_else(|| {
        let mut text = uuid::Uuid::encode_buffer();
        // Ids need to be different, not secret.
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// The addresses that a request came through: what the client sent, then the client.
pub(crate) fn forwarded(headers: &HeaderMap, client: &str) -> HeaderValue {
    let mut list = BytesMut::with_capacity(64);
    for value in headers.get_all(FORWARDED_FOR) {
        list.put_slice(value.as_bytes());
        list.put_slice(b", ");
    }
    list.put_slice(client.as_bytes());
    HeaderValue::from_maybe_shared(list.freeze()).unwrap_or(HeaderValue::from_static(""))
}

/// Says whether a request asks for another protocol that the router carries.
///
/// HTTP/2 in clear text by upgrade is not carried: what followed would pass the router's rules by.
pub(crate) fn wants_upgrade<B>(request: &Request<B>) -> bool {
    let asks = |value: &Value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let other = |value: &Value| tokens(value).all(|token| !token.eq_ignore_ascii_case(b"h2c"));
    let headers = request.headers();
    request.version() == Version::HTTP_11
        && headers.contains_key(UPGRADE)
        && headers.get_all(CONNECTION).iter().any(asks)
        && headers.get_all(UPGRADE).iter().all(other)
}

/// What the router knows of a request besides its head.
pub(crate) struct Origin<'a> {
    pub(crate) forwarded: &'a HeaderValue,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) port: &'a HeaderValue,
    pub(crate) tls: bool,
    /// The other protocol is to be asked for upstream too.
    pub(crate) upgrade: bool,
    /// The body's length is not known.
    pub(crate) chunked: bool,
}

/// Makes a client's head into the one that the dyno gets.
pub(crate) fn to_dyno(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let trailers = headers.get_all(TE).iter().flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    let upgrade = if origin.upgrade { headers.remove(UPGRADE) } else { None };
    strip(headers);
    for name in [EXPECT, HTTP2_SETTINGS, PROXY, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if origin.chunked {
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    join_cookies(headers);
    headers.insert(FORWARDED_FOR, origin.forwarded.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if origin.tls { "https" } else { "http" }));
    headers.insert(FORWARDED_PORT, origin.port.clone());
    headers.insert(REQUEST_START, HeaderValue::from(clock::now() / 1_000));
    headers.insert(REQUEST_ID, origin.request_id.clone());
    headers.append(VIA, VIA_US);
}

/// Makes a dyno's head into the one that the client gets.
pub(crate) fn to_client(headers: &mut HeaderMap, upgrade: bool) {
    // A chunked body has no length of its own; two claims about one length are how responses get split.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
        headers.insert(CONTENT_LENGTH, length);
    }
    let protocol = if upgrade { headers.remove(UPGRADE) } else { None };
    strip(headers);
    headers.remove(PROXY_AUTHENTICATE);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    headers.append(VIA, VIA_US);
    if !headers.contains_key(SERVER) {
        headers.insert(SERVER, HeaderValue::from_static("Heroku"));
    }
}

/// Checks a response's head against the limits that the parser leaves open.
///
/// # Errors
/// The limit that is broken.
pub(crate) fn check_response(parts: &response::Parts, limits: &Limits) -> Result<(), Restriction> {
    let reason = parts.extensions.get::<hyper::ext::ReasonPhrase>().map_or(0, |reason| reason.as_bytes().len());
    if (reason + "HTTP/1.1 200 ".len()) as u64 > limits.router_status_line_bytes {
        return Err(Restriction::StatusLine);
    }
    for (name, value) in &parts.headers {
        let length = value.len() as u64;
        if *name == SET_COOKIE && length > limits.router_cookie_bytes {
            return Err(Restriction::Cookie);
        }
        if name.as_str().len() as u64 + length > limits.router_response_header_bytes {
            return Err(Restriction::Header);
        }
    }
    Ok(())
}

/// Says whether a response is framed in a way that the router can undo.
pub(crate) fn is_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| is(coding, b"chunked") || is(coding, b"identity")) && codings.next().is_none()
}

/// Says whether a response leaves its connection open for another request.
pub(crate) fn keeps_open(parts: &response::Parts) -> bool {
    let closes = |value: &Value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"close"));
    parts.version == Version::HTTP_11 && !parts.headers.get_all(CONNECTION).iter().any(closes)
}

/// Removes what concerns one connection alone.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            // Nobody may take away what says where a message goes and where it ends.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        listed.iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// HTTP/2 may split a cookie field into several; HTTP/1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

fn is(value: &HeaderValue, expected: &[u8]) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(expected)
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn hosts_lose_port_case_and_final_dot() {
        let check = |field: &str, expected: Option<&str>| {
            let host = host(&request(Version::HTTP_11, "/", &[("host", field)])).ok();
            assert_eq!(host.as_deref(), expected, "{field}");
        };
        check("A.Example.COM:8080", Some("a.example.com"));
        check("a.example.com.", Some("a.example.com"));
        check("[::1]:80", Some("[::1]"));
        for bad in ["", "a b", "a/b", "a@b", "a:x", "a,b"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_second_host_or_one_that_differs_from_the_target_is_refused() {
        let refused = |uri: &str, fields: &[(&str, &str)]| host(&request(Version::HTTP_11, uri, fields)).is_err();
        assert!(refused("/", &[("host", "a"), ("host", "a")]));
        assert!(refused("http://b/", &[("host", "a")]));
        assert!(!refused("http://a:80/", &[("host", "a")]));
        assert!(refused("http://a/", &[]));
        assert!(host(&request(Version::HTTP_2, "https://a/", &[])).is_ok());
    }

    #[test]
    fn request_ids_are_kept_when_they_are_fit() {
        let id = |value: &str| request_id(request(Version::HTTP_11, "/", &[("x-request-id", value)]).headers());
        let kept = "abc/DEF+0123456789==";
        assert_eq!(id(kept), kept);
        for bad in ["short", "0123456789012345678 9", &"x".repeat(201), "012345678901234567_9"] {
            let fresh = id(bad);
            assert!(fresh != bad && fresh.len() == 36, "{bad}");
        }
    }

    #[test]
    fn fields_that_connection_names_do_not_pass() {
        let mut headers = request(
            Version::HTTP_11,
            "/",
            &[
                ("connection", "close, x-secret, host"),
                ("x-secret", "1"),
                ("host", "a"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers, gzip"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-for", "5.6.7.8"),
                ("x-forwarded-proto", "https"),
                ("proxy", "http://evil"),
                ("via", "1.0 other"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
            ],
        )
        .headers()
        .clone();
        let forwarded = forwarded(&headers, "9.9.9.9");
        let (id, port) = (HeaderValue::from_static("id"), HeaderValue::from_static("80"));
        let origin =
            Origin { forwarded: &forwarded, request_id: &id, port: &port, tls: false, upgrade: false, chunked: false };
        to_dyno(&mut headers, &origin);
        let mut lines: Vec<String> = headers
            .iter()
            .filter(|(name, _)| **name != REQUEST_START)
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "cookie: a=1; b=2",
                "host: a",
                "te: trailers",
                "via: 1.0 other",
                "via: 1.1 heroku-router",
                "x-forwarded-for: 1.2.3.4, 5.6.7.8, 9.9.9.9",
                "x-forwarded-port: 80",
                "x-forwarded-proto: http",
                "x-request-id: id",
            ]
        );
    }

    #[test]
    fn a_length_beside_chunks_does_not_pass() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        to_client(&mut headers, false);
        assert!(!headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING));
        assert_eq!(headers[SERVER], "Heroku");
    }
}
