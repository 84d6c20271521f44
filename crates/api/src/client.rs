//! A small client of the Platform API: JSON in and out, errors as the API words them, bodies as streams.
//!
//! The command line's own commands and the tests speak through it. It opens one connection a request, follows no
//! redirects and keeps no state but the token. It is no HTTP library: what the platform does not serve, it cannot ask.

use std::{io, sync::Arc};

use bytes::Bytes;
use dozen_domain::config::Secret;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Media type of the API's third version.
pub const ACCEPT: &str = "application/vnd.heroku+json; version=3";

/// Why a call gave no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no `http://` or `https://` URL.
    #[error("{0} is not an http:// or https:// address")]
    Address(String),
    /// The CA file holds no certificate.
    #[error("the CA bundle cannot be used: {0}")]
    Authority(String),
    /// No connection.
    #[error("cannot connect to {address}: is the platform running there?")]
    Connect {
        /// `host:port`.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody is there, whose certificate is not signed by whom is trusted.
    #[error(
        "{address} shows a certificate of another authority than the trusted one, so nothing was sent: somebody may be \
         listening in, or the platform was set up anew. If you know that it was, log in again (dozen login \
         https://{address})"
    )]
    Stranger {
        /// `host:port`.
        address: String,
        /// What is wrong with the certificate.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("{method} {path} got no answer")]
    Exchange {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API said no; `message` is meant for people.
    #[error("{message}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// The API's word for it: `not_found`, `invalid_params`.
        id: String,
        /// What the API tells the person.
        message: String,
    },
    /// The answer is not what was expected.
    #[error("{method} {path} answered something else than expected: {detail}")]
    Answer {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Both directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    tls: Option<Arc<rustls::ClientConfig>>,
    host: String,
    port: u16,
    token: Option<Secret>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `http://host:port` or `https://host:port`. The latter trusts nobody yet: see
    /// [`Client::trusting`].
    ///
    /// # Errors
    /// When the address is of another form.
    pub fn new(address: &str) -> Result<Self, Error> {
        let wrong = || Error::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let (secure, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let tls = if secure { Some(tls_config(rustls::RootCertStore::empty())?) } else { None };
        Ok(Self { tls, host, port: uri.port_u16().unwrap_or(default_port), token: None })
    }

    /// Sends this token with every request.
    #[must_use]
    pub fn with_token(mut self, token: Secret) -> Self {
        self.token = Some(token);
        self
    }

    /// Trusts the certificates in this PEM text, and no others.
    ///
    /// # Errors
    /// When there is none in it.
    pub fn trusting(mut self, ca_pem: &[u8]) -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            let certificate = certificate.map_err(|error| Error::Authority(error.to_string()))?;
            roots.add(certificate).map_err(|error| Error::Authority(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(Error::Authority("it holds no certificate".to_owned()));
        }
        if self.tls.is_some() {
            self.tls = Some(tls_config(roots)?);
        }
        Ok(self)
    }

    /// The server's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `host:port`
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Opens a TCP connection, without TLS whatever the address says.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect(&self) -> Result<TcpStream, Error> {
        let failed = |source| Error::Connect { address: self.address(), source };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }

    /// Opens a connection without saying anything on it.
    ///
    /// # Errors
    /// When there is none, or the server is not trusted.
    pub async fn open(&self) -> Result<Box<dyn Stream>, Error> {
        let failed = |source| Error::Connect { address: self.address(), source };
        let stream = self.connect().await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connected = TlsConnector::from(tls.clone()).connect(name, stream).await;
        Ok(Box::new(connected.map_err(|source| match is_stranger(&source) {
            true => Error::Stranger { address: self.address(), source },
            false => failed(source),
        })?))
    }

    /// Sends a request as it is, with `Host` added, and hands back the answer with its body still to be read. Any status
    /// is an answer.
    ///
    /// # Errors
    /// When there is no connection or no answer.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let (method, path) = (request.method().clone(), request.uri().to_string());
        let broken = |source: hyper::Error| Error::Exchange {
            method: method.clone(),
            path: path.clone(),
            source: Box::new(source),
        };
        if !request.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_str(&self.address());
            request.headers_mut().insert(header::HOST, host.map_err(|_| Error::Address(self.host.clone()))?);
        }
        let stream = self.open().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(broken)
    }

    /// Makes a request of the API: version header, token, body as JSON.
    ///
    /// # Errors
    /// When the path is no path, or the body cannot be written as JSON.
    pub fn request<B: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let wrong = |detail: String| Error::Answer { method: method.clone(), path: path.to_owned(), detail };
        let mut request = Request::builder().method(method.clone()).uri(path).header(header::ACCEPT, ACCEPT);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body).map_err(|error| wrong(error.to_string()))?)
            }
        };
        request.body(Full::new(bytes)).map_err(|error| wrong(error.to_string()))
    }

    /// Calls the API and reads its answer; lists are read to their end over all pages.
    ///
    /// # Errors
    /// [`Error::Refused`] when the API said no; otherwise as [`Client::send`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let mut items: Vec<serde_json::Value> = Vec::new();
        let mut range: Option<HeaderValue> = None;
        let value = loop {
            let mut request = self.request(method.clone(), path, body)?;
            if let Some(range) = range.take() {
                request.headers_mut().insert(header::RANGE, range);
            }
            let (next, value) = self.exchange(request).await?;
            match (value, next) {
                (serde_json::Value::Array(page), Some(next)) if method == Method::GET => {
                    items.extend(page);
                    range = Some(next);
                }
                (serde_json::Value::Array(page), None) if !items.is_empty() => {
                    items.extend(page);
                    break serde_json::Value::Array(items);
                }
                (value, _) => break value,
            }
        };
        serde_json::from_value(value).map_err(|error| Error::Answer {
            method,
            path: path.to_owned(),
            detail: error.to_string(),
        })
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Sends a request and reads its answer: one page of it, and where the next begins.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Option<HeaderValue>, serde_json::Value), Error> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = self.send(request).await?;
        let bytes = read(response.body_mut(), &method, &path).await?;
        if !response.status().is_success() {
            return Err(refused(&method, &path, response.status(), &bytes));
        }
        let json = serde_json::from_slice::<serde_json::Value>(&bytes);
        let json = if bytes.is_empty() { Ok(serde_json::Value::Null) } else { json };
        let json = json.map_err(|error| Error::Answer { method, path, detail: error.to_string() })?;
        Ok((response.headers().get("next-range").cloned(), json))
    }
}

impl Client {
    /// Asks for the connection itself (`Upgrade: tcp`); what comes on it is not the API's any more.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn upgrade(&self, path: &str) -> Result<Box<dyn Stream>, Error> {
        let mut request = self.request(Method::GET, path, None::<&()>)?;
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let mut response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let bytes = read(response.body_mut(), &Method::GET, path).await?;
            return Err(refused(&Method::GET, path, response.status(), &bytes));
        }
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|source| Error::Exchange {
            method: Method::GET,
            path: path.to_owned(),
            source: Box::new(source),
        });
        Ok(Box::new(TokioIo::new(upgraded?)))
    }
}

/// Whether a handshake failed because nobody who is trusted has signed the certificate.
fn is_stranger(error: &io::Error) -> bool {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)))
}

/// What the API says when it says no.
fn refused(method: &Method, path: &str, status: StatusCode, body: &[u8]) -> Error {
    let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let text = |key: &str| json.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    Error::Refused {
        status,
        id: text("id").unwrap_or_default(),
        message: text("message").unwrap_or_else(|| format!("{method} {path}: {status}")),
    }
}

async fn read(body: &mut Incoming, method: &Method, path: &str) -> Result<Bytes, Error> {
    body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|source| Error::Exchange {
        method: method.clone(),
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn tls_config(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Authority(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one connection after the other with these texts and returns what was asked.
    async fn serve(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                stream.write_all(answer.as_bytes()).await.expect("sent");
                asked.push(String::from_utf8_lossy(&head).to_lowercase());
            }
            asked
        });
        (address, served)
    }

    fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn pages_are_joined_and_the_token_is_sent() {
        let pages = vec![answer("206 Partial Content\r\nNext-Range: id x..", "[1,2]"), answer("200 OK", "[3]")];
        let (address, served) = serve(pages).await;
        let client = Client::new(&address).expect("an address").with_token(Secret::new("sesame"));
        let items: Vec<u32> = client.get("/apps").await.expect("a list");
        assert_eq!(items, [1, 2, 3]);
        let asked = served.await.expect("served");
        assert!(asked.iter().all(|head| head.contains("authorization: bearer sesame\r\n")));
        assert!(!asked[0].contains("range:") && asked[1].contains("range: id x..\r\n"));
    }

    #[tokio::test]
    async fn a_refusal_carries_the_words_of_the_api() {
        let no = answer("404 Not Found", r#"{"id":"not_found","message":"Couldn't find that app."}"#);
        let (address, _served) = serve(vec![no]).await;
        let error = Client::new(&address).expect("an address").get::<()>("/apps/x").await.expect_err("refused");
        assert!(matches!(&error, Error::Refused { status, id, .. } if *status == 404 && id == "not_found"));
        assert_eq!(error.to_string(), "Couldn't find that app.");
    }

    #[test]
    fn other_addresses_are_refused() {
        for bad in ["localhost:5000", "ftp://localhost", "", "http://"] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
    }
}
