//! A connection to a receiver: TCP, or TLS over it, with knowledge of how much of it has arrived.
//!
//! Syslog has no acknowledgements. What comes nearest is the kernel's: bytes that the other side's kernel has confirmed.
//! [`Link::unconfirmed`] asks for the rest, so that after a broken connection exactly what may not have arrived is
//! sent again.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use dozen_api::outbound::{self, Host};
use dozen_domain::reach::Reach;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// TCP.
    #[error(transparent)]
    Outbound(#[from] outbound::Error),
    /// The other side is not who it should be (L14).
    #[error("the certificate is not valid: {0}")]
    Certificate(rustls::Error),
    /// TLS otherwise.
    #[error("TLS with {0} failed")]
    Tls(String, #[source] io::Error),
}

/// Both directions of a connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection.
pub(crate) struct Link {
    /// What is read and written.
    pub(crate) stream: Box<dyn Stream>,
    socket: OwnedFd,
    sent: Arc<AtomicU64>,
}

impl Link {
    /// Connects within `limit`, TLS included. `tls` is what to trust.
    ///
    /// # Errors
    /// When there is no connection or nobody trustworthy at its end.
    pub(crate) async fn open(
        host: &Host,
        reach: &Reach,
        tls: Option<Arc<ClientConfig>>,
        limit: Duration,
    ) -> Result<Self, Error> {
        let connected = async {
            let tcp = outbound::connect(host, reach, limit).await?;
            let failed = |error: io::Error| outbound::Error::Refused(host.to_string(), error);
            tcp.set_nodelay(true).map_err(failed)?;
            let socket = tcp.as_fd().try_clone_to_owned().map_err(failed)?;
            let sent = Arc::new(AtomicU64::new(0));
            let counted = Counted { tcp, sent: sent.clone() };
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(counted),
                Some(config) => Box::new(secure(host, config, counted).await?),
            };
            Ok(Self { stream, socket, sent })
        };
        timeout(limit, connected).await.map_err(|_| outbound::Error::Late(host.to_string(), limit))?
    }

    /// Bytes handed to the kernel so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes of them that the other side's kernel has not confirmed. When the kernel does not say, none has been.
    pub(crate) fn unconfirmed(&self) -> u64 {
        unconfirmed(&self.socket).unwrap_or(u64::MAX)
    }
}

async fn secure(
    host: &Host,
    config: Arc<ClientConfig>,
    stream: Counted,
) -> Result<tokio_rustls::client::TlsStream<Counted>, Error> {
    let failed = |error| Error::Tls(host.to_string(), error);
    let name = ServerName::try_from(host.name.clone()).map_err(|error| failed(io::Error::other(error)))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(invalid @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
                Error::Certificate(invalid.clone())
            }
            _ => failed(error),
        }
    })
}

fn unconfirmed(socket: &OwnedFd) -> io::Result<u64> {
    /// `SIOCOUTQ`, which is `TIOCOUTQ` on every architecture that the platform runs on (tcp(7)).
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: the kernel writes one C int for this request, which is what the getter makes room for, and the
    // descriptor is a socket that is open for as long as it is borrowed.
    let bytes: std::ffi::c_int = unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<SIOCOUTQ, _>::new())? };
    u64::try_from(bytes).map_err(io::Error::other)
}

/// A TCP stream that counts what it hands to the kernel.
struct Counted {
    tcp: TcpStream,
    sent: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = &written {
            self.sent.fetch_add(*n as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(n)) = &written {
            self.sent.fetch_add(*n as u64, Ordering::Relaxed);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn what_a_receiver_that_resets_had_not_taken_is_known_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let host = Host { name: "127.0.0.1".to_owned(), port: listener.local_addr().expect("an address").port() };
        let link = Link::open(&host, &Reach::everything(), None, Duration::from_secs(60)).await;
        let mut link = link.expect("a connection");
        let (receiver, _) = listener.accept().await.expect("a connection");
        // It reads nothing: more is sent than its kernel takes.
        let filled = async {
            loop {
                link.stream.write_all(&[b'x'; 65_536]).await.expect("a write");
            }
        };
        let _still_waiting: Result<(), _> = timeout(Duration::from_millis(200), filled).await;
        let waiting = link.unconfirmed();
        assert!(waiting > 0 && waiting < link.sent(), "{waiting} of {}", link.sent());
        drop(receiver); // unread bytes make this a reset
        let error = loop {
            if let Err(error) = link.stream.write_all(b"x").await {
                break error;
            }
        };
        assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
        assert!(link.unconfirmed() > 0, "the kernel still knows after the reset");
    }
}
