//! Fetches a build's source from an address that a client gave: HTTP or HTTPS, a few redirects, within a size.
//!
//! The platform stands where its users do not: on the machine's loopback and in the operator's networks, metadata
//! services among them. So it connects only to addresses of the internet and to networks that the operator allows. A
//! name is resolved once for each connection, and what is looked at is the address that is then connected to; each
//! redirect is a connection of its own.

use std::{
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use dozen_api::outbound;
use dozen_domain::{
    config::Vars,
    network::{self, Prefix},
};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use ring::digest;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Error, Result};
use crate::Context;

const REDIRECTS: usize = 5;
/// Longest silence of the other side.
const SILENCE: Duration = Duration::from_secs(30);

/// SHA-256 of a source.
pub type Checksum = [u8; digest::SHA256_OUTPUT_LEN];

/// Reads an address.
///
/// # Errors
/// When it is not an absolute HTTP or HTTPS one.
pub fn check(url: &str) -> Result<Uri> {
    let uri: Option<Uri> = url.parse().ok();
    let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    uri.ok_or_else(|| Error::invalid("source_blob.url must be an http or https address of a gzipped tar."))
}

/// Reads `SHA256:` and 64 hexadecimal digits.
///
/// # Errors
/// When it is something else.
pub fn parse_checksum(text: &str) -> Result<Checksum> {
    let hex = text.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("sha256")).map(|(_, hex)| hex);
    let bytes = hex.and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Error::invalid("checksum must be SHA256:<64 hex digits>."))
}

/// A checksum as the API writes it.
pub fn shown_checksum(checksum: Checksum) -> String {
    format!("SHA256:{}", HEXLOWER.encode(&checksum))
}

/// A file's checksum.
///
/// # Errors
/// When it cannot be read.
pub async fn checksum(path: &Path) -> Result<Checksum> {
    let failed = |error| Error::platform(format!("read {}", path.display()), error);
    let mut file = File::open(path).await.map_err(failed)?;
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece).await.map_err(failed)? {
            0 => break,
            n => sum.update(&piece[..n]),
        }
    }
    let mut checksum = Checksum::default();
    checksum.copy_from_slice(sum.finish().as_ref());
    Ok(checksum)
}

/// Compares a file with its checksum.
///
/// # Errors
/// When they differ or the file cannot be read.
pub async fn verify(path: &Path, expected: Checksum) -> Result<()> {
    if checksum(path).await? == expected {
        return Ok(());
    }
    Err(Error::invalid("The source does not have the checksum that was given for it. Upload it again."))
}

/// Fetches an address into a new file of at most `most` bytes. Of the operator's variables for builds `SSL_CERT_FILE` is
/// heeded.
///
/// # Errors
/// When the address is not one to fetch from; the other side does not answer, answers something else than 200, or too
/// much; or the disk fails.
pub async fn to_file(context: &Context, url: &Uri, path: &Path, most: u64) -> Result<()> {
    let mut response = request(context, url).await?;
    let failed = |error| Error::platform(format!("write {}", path.display()), error);
    let mut file = File::create(path).await.map_err(failed)?;
    let mut size = 0;
    while let Some(frame) = silence(url, response.frame()).await? {
        let frame = frame.map_err(|error| broken(url, &error))?;
        let Ok(piece) = frame.into_data() else { continue };
        size += piece.len() as u64;
        if size > most {
            return Err(Error::TooLarge(format!("The source at {} has more than {most} bytes.", shown(url))));
        }
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

async fn request(context: &Context, url: &Uri) -> Result<Response<Incoming>> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTS {
        let response = silence(&url, once(context, &url)).await??;
        match response.status() {
            StatusCode::OK => return Ok(response),
            status if status.is_redirection() => url = redirected(&url, &response)?,
            status => return Err(Error::invalid(format!("The source at {} was answered with {status}.", shown(&url)))),
        }
    }
    Err(Error::invalid(format!("The source was redirected more than {REDIRECTS} times.")))
}

fn redirected(from: &Uri, response: &Response<Incoming>) -> Result<Uri> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if location.starts_with('/') && !location.starts_with("//") {
        let base = format!("{}://{}", from.scheme_str().unwrap_or("http"), from.authority().map_or("", |a| a.as_str()));
        return check(&format!("{base}{location}"));
    }
    check(location)
}

/// Connects to the first address of the host that may be connected to and answers.
async fn connect(url: &Uri, host: &str, port: u16, allowed: &[Prefix]) -> Result<TcpStream> {
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| broken(url, &error))?;
    let mut failure = None;
    for address in found.filter(|address| may_be_fetched_from(address.ip(), allowed)) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(match failure {
        Some(error) => broken(url, &error),
        None => Error::invalid(format!(
            "The source at {} is not fetched: {host} is no address of the internet. Upload the source (POST /sources), \
             or ask the platform's operator to allow its network (DOZEN_FETCH_ALLOW_NETWORKS).",
            shown(url)
        )),
    })
}

fn may_be_fetched_from(address: IpAddr, allowed: &[Prefix]) -> bool {
    // An address that can be bound is this machine's own, whatever network it is of.
    let is_own = || UdpSocket::bind((address, 0)).is_ok();
    allowed.iter().any(|network| network.contains(address)) || network::is_public(address) && !is_own()
}

async fn once(context: &Context, url: &Uri) -> Result<Response<Incoming>> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = connect(url, &host, port, &context.settings.fetch_allow_networks).await?;
    if !tls {
        return send(url, stream).await;
    }
    let name = ServerName::try_from(host).map_err(|error| broken(url, &error))?;
    let connector = tokio_rustls::TlsConnector::from(trust(&context.settings.build_env)?);
    send(url, connector.connect(name, stream).await.map_err(|error| broken(url, &error))?).await
}

async fn send<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(url: &Uri, stream: S) -> Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(url, &error))?;
    // It ends with the response's body.
    tokio::spawn(connection);
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(
            header::HOST,
            url.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or("")),
        )
        .header(header::USER_AGENT, concat!("dozen/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(url, &error))?;
    sender.send_request(request).await.map_err(|error| broken(url, &error))
}

fn trust(env: &Vars) -> Result<Arc<ClientConfig>> {
    let own = env.get("SSL_CERT_FILE").map(|path| PathBuf::from(path.expose()));
    outbound::tls(own.as_deref()).map_err(|error| Error::platform("set up TLS", error))
}

async fn silence<T>(url: &Uri, waited: impl Future<Output = T>) -> Result<T> {
    let late =
        |_| Error::invalid(format!("The source at {} did not come within {} seconds.", shown(url), SILENCE.as_secs()));
    timeout(SILENCE, waited).await.map_err(late)
}

fn broken(url: &Uri, error: &dyn std::error::Error) -> Error {
    Error::invalid(format!("The source at {} could not be fetched: {error}.", shown(url)))
}

/// An address without what may be secret in it: user, password, query.
fn shown(url: &Uri) -> String {
    let host = url.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or(""));
    format!("{}://{host}{}", url.scheme_str().unwrap_or("http"), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        let url = check("https://user:pass@example.com/a.tgz?token=x").expect("an address");
        assert_eq!(shown(&url), "https://example.com/a.tgz");
        for bad in ["ftp://example.com/a", "/a.tgz", "", "file:///etc/passwd"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_internet_and_what_is_allowed_is_fetched_from() {
        let allowed = ["10.1.0.0/16".parse().expect("a network")];
        let may = |text: &str| may_be_fetched_from(text.parse().expect("an address"), &allowed);
        for closed in ["127.0.0.1", "10.2.0.1", "169.254.169.254", "::ffff:127.0.0.1", "::1", "fd00::1", "0.0.0.0"] {
            assert!(!may(closed), "{closed}");
        }
        assert!(may("10.1.2.3") && may("1.1.1.1"));
    }

    #[test]
    fn checksums_need_their_name_and_length() {
        let hex = "0".repeat(64);
        assert!(parse_checksum(&format!("SHA256:{hex}")).is_ok());
        assert!(parse_checksum(&hex).is_err());
        assert!(parse_checksum("SHA256:00").is_err());
    }
}
