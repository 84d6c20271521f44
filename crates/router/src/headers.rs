//! What the router adds to heads, takes from them, and reads in them.
//!
//! Hop-by-hop fields never pass in either direction, with those that `Connection` names. What the router says itself
//! (`X-Forwarded-*`, `X-Request-*`) replaces what the client said, but for the list of `X-Forwarded-For`, whose last
//! entry is always the router's own. All other fields keep their order and the letter case of their names.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dozen_api::clock;

use crate::{
    error::Flaw,
    exchange::Exchange,
    wire::{
        head::{Head, Length, Version, tokens},
        http1::push_number,
        http2::Fields,
        names::Name,
    },
};

const VIA_US: &[u8] = b"1.1 heroku-router";

/// Shortest and longest `X-Request-Id` that is passed on (heroku/erequest_id; frameworks want 20 at least).
const REQUEST_ID_LENGTH: std::ops::RangeInclusive<usize> = 20..=200;

/// The host that a request is for, in lower case without port and final dot.
///
/// # Errors
/// When there is none, more than one, or two that differ.
pub(crate) fn host(head: &Head) -> Result<Box<str>, Flaw> {
    let mut fields = head.all(Name::Host);
    let field = fields.next().ok_or(Flaw::Header)?;
    if fields.next().is_some() {
        return Err(Flaw::Header);
    }
    let host = plain_host(field).ok_or(Flaw::Header)?;
    match head.authority() {
        // User data before the host is no part of any address that the router serves.
        Some(authority) if plain_host(authority).as_deref() != Some(&*host) => Err(Flaw::Header),
        _ => Ok(host),
    }
}

fn plain_host(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
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
pub(crate) fn request_id(head: &Head) -> Box<str> {
    let fits = |value: &&[u8]| {
        let of = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'+' | b'/' | b'-');
        REQUEST_ID_LENGTH.contains(&value.len()) && value.iter().all(of)
    };
    let given = head.first(Name::RequestId).filter(fits).and_then(|value| std::str::from_utf8(value).ok());
    given.map(Into::into).unwrap_or_else(|| {
        let mut text = uuid::Uuid::encode_buffer();
        // Ids need to be different, not secret.
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        (&*id.hyphenated().encode_lower(&mut text)).into()
    })
}

/// The addresses that a request came through: what the client sent, then the client.
pub(crate) fn forwarded(head: &Head, client: &str) -> Vec<u8> {
    let mut list = Vec::with_capacity(64);
    for value in head.all(Name::ForwardedFor) {
        list.extend_from_slice(value);
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(client.as_bytes());
    list
}

/// Says whether a request asks for another protocol that the router carries.
///
/// HTTP/2 in clear text by upgrade is not carried: what followed would pass the router's rules by. Nor is a request
/// with a body: where it ends and the other protocol begins is for the two ends alone to know.
pub(crate) fn wants_upgrade(head: &Head) -> bool {
    head.version == Version::Http11
        && head.first(Name::Upgrade).is_some()
        && head.lists(Name::Connection, b"upgrade")
        && !head.lists(Name::Upgrade, b"h2c")
}

/// Writes the fields that a dyno gets.
pub(crate) fn to_dyno(exchange: &Exchange, upgrade: bool, last: bool, output: &mut impl Fields) {
    let head = &exchange.head;
    let listed = listed(head);
    let mut cookies = head.all(Name::Cookie).nth(1).is_some();
    for field in head.fields() {
        match field.known {
            Name::Other
            | Name::Host
            | Name::ProxyAuthenticate
            | Name::Server
            | Name::SetCookie
            | Name::UserAgent
            | Name::Via => {
                // Nobody may take away what says where a message goes.
                if field.known == Name::Host || !is_listed(&listed, field.name) {
                    output.put(field.name, field.value);
                }
            }
            Name::Cookie if is_listed(&listed, field.name) => {}
            // Some servers take the first field for all of them.
            Name::Cookie if cookies => {
                cookies = false;
                output.put(field.name, &head.all(Name::Cookie).collect::<Vec<_>>().join(&b"; "[..]));
            }
            Name::Cookie if head.all(Name::Cookie).nth(1).is_none() => output.put(field.name, field.value),
            Name::Upgrade if upgrade => output.put(field.name, field.value),
            Name::Cookie
            | Name::Upgrade
            | Name::Disguised
            | Name::Connection
            | Name::ContentLength
            | Name::Date
            | Name::Expect
            | Name::Http2Settings
            | Name::KeepAlive
            | Name::Proxy
            | Name::ProxyAuthorization
            | Name::ProxyConnection
            | Name::Te
            | Name::TransferEncoding
            | Name::Forwarded
            | Name::ForwardedFor
            | Name::ForwardedPort
            | Name::ForwardedProto
            | Name::RequestId
            | Name::RequestStart => {}
        }
    }
    if head.lists(Name::Te, b"trailers") {
        output.put(b"te", b"trailers");
    }
    match head.length {
        Length::Known(length) => put_number(output, b"content-length", length),
        Length::Chunked => output.put(b"transfer-encoding", b"chunked"),
        Length::Unsaid => {}
    }
    if exchange.expects {
        output.put(b"expect", b"100-continue");
    }
    if let Some(client) = head.first(Name::Forwarded).map(|_| exchange.client.ip.to_canonical()) {
        // The same list in its standard form, which some frameworks ask first: what a client claims in it cannot be the
        // last entry either.
        let mut list = head.all(Name::Forwarded).collect::<Vec<_>>().join(&b", "[..]);
        let own = if client.is_ipv6() { format!(", for=\"[{client}]\"") } else { format!(", for={client}") };
        list.extend_from_slice(own.as_bytes());
        output.put(b"forwarded", &list);
    }
    if upgrade {
        output.put(b"connection", b"upgrade");
    } else if last {
        output.put(b"connection", b"close");
    }
    output.put(b"x-forwarded-for", &exchange.forwarded);
    output.put(b"x-forwarded-proto", if exchange.client.tls { b"https" } else { b"http" });
    output.put(b"x-forwarded-port", exchange.client.port.as_bytes());
    put_number(output, b"x-request-start", u64::try_from(clock::now() / 1_000).unwrap_or_default());
    output.put(b"x-request-id", exchange.request_id.as_bytes());
    output.put(b"via", VIA_US);
}

/// Writes the fields that a client gets of a dyno's answer.
pub(crate) fn to_client(head: &Head, upgrade: bool, output: &mut impl Fields) {
    let listed = listed(head);
    let (mut server, mut date) = (false, false);
    for field in head.fields() {
        match field.known {
            Name::Connection
            | Name::ContentLength
            | Name::Http2Settings
            | Name::KeepAlive
            | Name::ProxyAuthenticate
            | Name::ProxyConnection
            | Name::Te
            | Name::TransferEncoding => continue,
            Name::Upgrade if !upgrade => continue,
            Name::Upgrade => {}
            _ if is_listed(&listed, field.name) => continue,
            Name::Server => server = true,
            Name::Date => date = true,
            _ => {}
        }
        output.put(field.name, field.value);
    }
    if !date {
        with_date(|date| output.put(b"date", date));
    }
    if !server {
        output.put(b"server", b"Heroku");
    }
    output.put(b"via", VIA_US);
}

/// Writes the fields of a page of the router's own.
pub(crate) fn to_page(content_type: &[u8], output: &mut impl Fields) {
    output.put(b"content-type", content_type);
    output.put(b"cache-control", b"no-cache, no-store");
    with_date(|date| output.put(b"date", date));
    output.put(b"server", b"Heroku");
    output.put(b"via", VIA_US);
}

/// Says whether a response leaves its connection open for another request.
pub(crate) fn keeps_open(head: &Head) -> bool {
    head.version == Version::Http11 && !head.doubtful && !head.lists(Name::Connection, b"close")
}

/// The names that `Connection` lists and that are not known to be of one connection alone anyway.
fn listed(head: &Head) -> Vec<&[u8]> {
    let ordinary = |token: &&[u8]| {
        !["close", "keep-alive", "upgrade", "te"].iter().any(|word| token.eq_ignore_ascii_case(word.as_bytes()))
    };
    head.all(Name::Connection).flat_map(tokens).filter(ordinary).collect()
}

fn is_listed(listed: &[&[u8]], name: &[u8]) -> bool {
    listed.iter().any(|token| token.eq_ignore_ascii_case(name))
}

fn put_number(output: &mut impl Fields, name: &[u8], number: u64) {
    let mut text = Vec::with_capacity(20);
    push_number(&mut text, number);
    output.put(name, &text);
}

/// Hands out the date as HTTP writes it; it is written anew once a second.
fn with_date(use_it: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(written, text)| {
        if *written != now {
            *written = now;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
        }
        use_it(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use dozen_domain::limits::Limits;

    use super::*;

    fn request(text: &str) -> Head {
        let mut head = Head::default();
        head.request(text.as_bytes(), &Limits::default()).expect("a request");
        head
    }

    fn get(target: &str, fields: &str) -> Head {
        request(&format!("GET {target} HTTP/1.1\r\n{fields}\r\n"))
    }

    #[test]
    fn hosts_lose_port_case_and_final_dot() {
        let check = |field: &str, expected: Option<&str>| {
            let host = host(&get("/", &format!("host: {field}\r\n"))).ok();
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
        let refused = |uri: &str, fields: &str| host(&get(uri, fields)).is_err();
        assert!(refused("/", "host: a\r\nhost: a\r\n"));
        assert!(refused("http://b/", "host: a\r\n"));
        assert!(refused("http://b@a/", "host: a\r\n"));
        assert!(!refused("http://a:80/", "host: a\r\n"));
        assert!(refused("http://a/", ""));
    }

    #[test]
    fn request_ids_are_kept_when_they_are_fit() {
        let id = |value: &str| request_id(&get("/", &format!("x-request-id: {value}\r\n")));
        let kept = "abc/DEF+0123456789==";
        assert_eq!(&*id(kept), kept);
        for bad in ["short", "0123456789012345678 9", &"x".repeat(201), "012345678901234567_9"] {
            let fresh = id(bad);
            assert!(&*fresh != bad && fresh.len() == 36, "{bad}");
        }
    }

    #[test]
    fn the_last_entry_of_the_list_of_addresses_is_the_routers_own() {
        let head = get("/", "x-forwarded-for: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n");
        assert_eq!(forwarded(&head, "9.9.9.9"), b"1.2.3.4, 5.6.7.8, 9.9.9.9");
    }

    #[test]
    fn fields_that_a_response_lists_do_not_pass() {
        let mut head = Head::default();
        let text = "HTTP/1.1 200 OK\r\nConnection: X-Secret, close\r\nx-secret: 1\r\nServer: s\r\nKeep-Alive: 5\r\n\
                    content-length: 3\r\nX-Kept: 2\r\n\r\n";
        head.response(text.as_bytes(), &Limits::default()).expect("a response");
        let mut output = Vec::new();
        to_client(&head, false, &mut output);
        let output = String::from_utf8_lossy(&output);
        assert!(output.starts_with("Server: s\r\nX-Kept: 2\r\ndate: "), "{output}");
        assert!(output.ends_with(" GMT\r\nvia: 1.1 heroku-router\r\n"), "{output}");
    }
}
