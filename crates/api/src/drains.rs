//! Drains: where an app's stream goes besides its history. Control decides which there are; the logs role serves them.
//!
//! Control hands over the whole wanted state each time ([`replace`]), and the logs role keeps it, so that it drains on
//! while control is away and both may be told the same thing twice. [`Address`] is the one reading of a drain's URL,
//! used to refuse a bad one early and to serve a good one.

use std::{collections::BTreeMap, fmt, io, path::Path};

use dozen_domain::{
    config::Secret,
    ids::{AppId, DrainId},
};
use http::Uri;
use serde::{Deserialize, Serialize};

use crate::{frame, logs::Hello, outbound::Host, socket};

/// One drain of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Which.
    pub id: DrainId,
    /// Whose stream.
    pub app: AppId,
    /// The app's name.
    pub app_name: String,
    /// `d.` and a UUID: what receivers tell drains apart by.
    pub token: String,
    /// Where to.
    pub to: Destination,
}

/// Where a drain leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// A log drain's URL; it may hold a password.
    Log(Secret),
    /// An OpenTelemetry consumer.
    Telemetry(Telemetry),
}

/// An OpenTelemetry consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Its URL.
    pub endpoint: Secret,
    /// gRPC (`otlp`) instead of HTTP (`otlphttp`).
    pub grpc: bool,
    /// Sent with every request; they hold keys.
    pub headers: BTreeMap<String, Secret>,
    /// Spans of requests, as the router sees them.
    pub traces: bool,
    /// Lines.
    pub logs: bool,
    /// Measurements.
    pub metrics: bool,
}

/// A URL that no drain can have. The text says what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It cannot be read.
    #[error("is not a valid URL. Use one like {FORMS}")]
    Unreadable,
    /// Nothing is known to speak so.
    #[error("has the scheme {0}, which no drain speaks. Use one like {FORMS}")]
    Scheme(String),
    /// Nowhere to go.
    #[error("has no host. Use one like {FORMS}")]
    NoHost,
    /// Syslog has no standard port for this.
    #[error("has no port. Syslog servers listen on many: use one like syslog+tls://logs.example.com:6514")]
    NoPort,
    /// Syslog knows neither paths nor users.
    #[error(
        "has a path, query or user, which a syslog server never sees. Use one like syslog+tls://logs.example.com:6514"
    )]
    Surplus,
    /// Only one word is known there.
    #[error("has a # part that means nothing. Only TLS with a certificate that nobody checks has one: #insecure")]
    Fragment,
}

const FORMS: &str = "https://user:password@logs.example.com/path, syslog+tls://logs.example.com:6514 or \
                     syslog://logs.example.com:514";

/// A log drain's URL, read.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// How the other side is spoken to.
    pub protocol: Protocol,
    /// Whether over TLS.
    pub tls: Tls,
    /// Where it is.
    pub host: Host,
}

/// How a connection to a receiver is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    None,
    /// By TLS with the receiver's certificate verified.
    Verified,
    /// By TLS with whoever answers: a URL that ends in `#insecure`.
    Insecure,
}

impl Tls {
    /// Whether there is TLS.
    pub fn is_some(self) -> bool {
        self != Self::None
    }
}

/// How a receiver is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5424 over TCP with octet counting.
    Syslog,
    /// `application/logplex-1` in POST requests.
    Http {
        /// Path and query.
        target: String,
        /// The `authority` for the Host header, without user and password.
        authority: String,
        /// `user:password`, decoded.
        user: Option<Secret>,
    },
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without what may be secret in it: user, password, query.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.protocol {
            Protocol::Syslog => write!(f, "syslog{}://{}", if self.tls.is_some() { "+tls" } else { "" }, self.host)?,
            Protocol::Http { target, authority, .. } => {
                let path = target.split('?').next().unwrap_or_default();
                write!(f, "http{}://{authority}{path}", if self.tls.is_some() { "s" } else { "" })?
            }
        }
        if self.tls == Tls::Insecure { f.write_str("#insecure") } else { Ok(()) }
    }
}

impl Address {
    /// Reads a log drain's URL.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(url: &str) -> Result<Self, Invalid> {
        let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
        let uri: Uri = url.parse().map_err(|_| Invalid::Unreadable)?;
        let scheme = uri.scheme_str().ok_or(Invalid::Unreadable)?.to_ascii_lowercase();
        let (syslog, tls) = match scheme.as_str() {
            "syslog" => (true, false),
            "syslog+tls" => (true, true),
            "http" => (false, false),
            "https" => (false, true),
            _ => return Err(Invalid::Scheme(scheme)),
        };
        let tls = match (tls, fragment) {
            (true, None) => Tls::Verified,
            (true, Some("insecure")) => Tls::Insecure,
            (false, None) => Tls::None,
            (_, Some(_)) => return Err(Invalid::Fragment),
        };
        let authority = uri.authority().ok_or(Invalid::NoHost)?.as_str();
        let (user, authority) = authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
        let name = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if name.is_empty() {
            return Err(Invalid::NoHost);
        }
        // `host:` and ports over 65,535 are no ports; the parser lets them pass.
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        if has_port && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(Invalid::Unreadable);
        }
        if syslog {
            if user.is_some() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
                return Err(Invalid::Surplus);
            }
            let port = uri.port_u16().ok_or(Invalid::NoPort)?;
            return Ok(Self { protocol: Protocol::Syslog, tls, host: Host { name, port } });
        }
        let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let user = user.map(|user| Secret::new(decoded(user)));
        let protocol = Protocol::Http { target, authority: authority.to_owned(), user };
        Ok(Self { protocol, tls, host: Host { name, port } })
    }
}

/// Whether a log drain's URL, which need not be a good one, leads to a syslog server.
pub fn is_syslog(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("syslog"))
}

/// Percent-decodes; what is no such sequence stays, and bytes that are no UTF-8 become U+FFFD.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let hex = |at: usize| more.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Hands the logs role all drains of all apps; returns when it has them on disk and serves them.
///
/// # Errors
/// When the logs role does not answer; ask again, it may be done twice.
pub async fn replace(logs_socket: &Path, drains: Vec<Drain>) -> io::Result<()> {
    let mut connection = socket::connect(logs_socket).await?;
    frame::write(&mut connection, &Hello::Drains(drains)).await?;
    match frame::read_bytes(&mut connection).await? {
        Some(_) => Ok(()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_secrets() {
        let good = [
            ("syslog://logs.example.com:514", "syslog://logs.example.com:514", 514),
            ("SYSLOG+TLS://[2606:4700::1111]:6514/", "syslog+tls://[2606:4700::1111]:6514", 6514),
            ("https://me:se%40cret@logs.example.com/in?key=1", "https://logs.example.com/in", 443),
            ("http://logs.example.com:8080", "http://logs.example.com:8080/", 8080),
            ("syslog+tls://logs.example.com:6514#insecure", "syslog+tls://logs.example.com:6514#insecure", 6514),
            ("https://me:secret@logs.example.com/in?key=1#insecure", "https://logs.example.com/in#insecure", 443),
        ];
        for (url, shown, port) in good {
            let address = Address::parse(url).expect(url);
            assert_eq!((address.to_string().as_str(), address.host.port), (shown, port));
            assert!(!format!("{address:?}").contains("cret"), "{address:?}");
        }
        let Protocol::Http { target, user, .. } =
            Address::parse("https://me:se%40cret@a.b/in?key=1").expect("an address").protocol
        else {
            panic!("it is HTTP")
        };
        assert_eq!(target, "/in?key=1");
        assert_eq!(user.expect("a user").expose(), "me:se@cret");
    }

    #[test]
    fn what_cannot_be_a_drain_is_refused_with_a_reason() {
        let bad = [
            ("", Invalid::Unreadable),
            ("logs.example.com", Invalid::Unreadable),
            ("/path", Invalid::Unreadable),
            ("https://", Invalid::Unreadable),
            ("https://exa mple.com", Invalid::Unreadable),
            ("https://example.com:99999/", Invalid::Unreadable),
            ("https://example.com:0/", Invalid::Unreadable),
            ("syslog://example.com:x", Invalid::Unreadable),
            ("ftp://example.com", Invalid::Scheme("ftp".to_owned())),
            ("udp://example.com:514", Invalid::Scheme("udp".to_owned())),
            ("syslog://example.com", Invalid::NoPort),
            ("syslog+tls://me@example.com:6514", Invalid::Surplus),
            ("syslog+tls://example.com:6514/path", Invalid::Surplus),
            ("syslog+tls://example.com:6514#secure", Invalid::Fragment),
            ("syslog://example.com:514#insecure", Invalid::Fragment),
        ];
        for (url, why) in bad {
            assert_eq!(Address::parse(url), Err(why), "{url}");
        }
    }
}
