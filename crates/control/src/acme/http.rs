//! HTTP for the ACME client: one connection a request, HTTPS only, bounded in time and size.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use dozen_api::outbound;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::Settings;

/// Longest time that one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer; a chain of certificates has some ten thousand bytes.
const MOST: usize = 1 << 20;

/// The client's way to an authority.
pub(super) struct Http {
    connector: TlsConnector,
}

impl Http {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let config = outbound::tls(settings.roots.as_deref()).map_err(other)?;
        Ok(Self { connector: TlsConnector::from(config) })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Http {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let connector = self.connector.clone();
        Box::pin(async move {
            let late = |_| Error::Str("no answer within 30 seconds");
            timeout(PATIENCE, exchange(connector, request)).await.map_err(late)?
        })
    }
}

async fn exchange(connector: TlsConnector, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
    let (mut parts, body) = request.into_parts();
    if parts.uri.scheme_str() != Some("https") {
        return Err(Error::Str("the directory's address must begin with https://"));
    }
    let host = parts.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), parts.uri.port_u16().unwrap_or(443))).await.map_err(other)?;
    let name = ServerName::try_from(host).map_err(other)?;
    let stream = connector.connect(name, stream).await.map_err(other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
    // It ends with the answer's body.
    tokio::spawn(connection);
    let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    parts.uri = target.parse()?;
    parts.headers.insert(header::HOST, authority.parse().map_err(other)?);
    let agent = concat!("dozen/", env!("CARGO_PKG_VERSION"));
    parts.headers.insert(header::USER_AGENT, header::HeaderValue::from_static(agent));
    let response = sender.send_request(Request::from_parts(parts, body)).await.map_err(other)?;
    let (parts, body) = response.into_parts();
    let bytes = Limited::new(body, MOST).collect().await.map_err(Error::Other)?.to_bytes();
    Ok(http::Response::from_parts(parts, Full::new(bytes)).into())
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Other(error.into())
}
