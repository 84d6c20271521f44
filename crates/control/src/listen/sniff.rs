//! Tells an HTTP request from a rendezvous secret and from SSH by the first bytes after the TLS handshake.
//!
//! A rendezvous client sends its secret as a line; secrets begin with a lower-case letter or a digit. An HTTP/1 request
//! begins with a method in capitals and a space. SSH clients speak first, and say `SSH-`: a forwarder on somebody's
//! machine brings them (`dozen connect`).

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// An HTTP/1 request.
    Http,
    /// An SSH client's first line.
    Ssh,
    /// Anything else: a rendezvous secret, if it is known.
    Rendezvous,
}

/// Longest method that is waited for: more capitals than any method has are still handed to HTTP, which refuses them.
const METHOD: usize = 24;

/// Judges a beginning; `None` while it may become one or the other.
pub(crate) fn judge(bytes: &[u8]) -> Option<Protocol> {
    if bytes.starts_with(b"SSH-") {
        return Some(Protocol::Ssh);
    }
    let capitals = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    match bytes.get(capitals) {
        None if capitals < METHOD => None,
        Some(b' ') if capitals > 0 => Some(Protocol::Http),
        // `M-SEARCH` and the like are HTTP's to refuse.
        _ if capitals > 0 => Some(Protocol::Http),
        _ => Some(Protocol::Rendezvous),
    }
}

/// Reads just enough to judge a connection; `None` when it ends before.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<(Protocol, Bytes)>> {
    let mut first = BytesMut::with_capacity(1024);
    loop {
        if let Some(protocol) = judge(&first) {
            return Ok(Some((protocol, first.freeze())));
        }
        if stream.read_buf(&mut first).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use dozen_api::replay::Replayed;

    use super::*;

    #[test]
    fn a_beginning_is_judged_as_soon_as_it_can_be() {
        for more in ["", "G", "POST", "DELETE"] {
            assert_eq!(judge(more.as_bytes()), None, "{more}");
        }
        for http in ["GET /", "POST /aaa.git", "PROPFIND ", "M-SEARCH *"] {
            assert_eq!(judge(http.as_bytes()), Some(Protocol::Http), "{http}");
        }
        assert_eq!(judge(b"SSH"), None);
        assert_eq!(judge(b"SSH-2.0-"), Some(Protocol::Ssh));
        for secret in ["0a1b2c", "abc", "\r\n", "\u{16}\u{3}"] {
            assert_eq!(judge(secret.as_bytes()), Some(Protocol::Rendezvous), "{secret}");
        }
    }

    #[tokio::test]
    async fn what_was_read_for_judging_comes_again() {
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\n").await.expect("a write");
        drop(client);
        let (protocol, first) = read(&mut server).await.expect("a read").expect("a beginning");
        assert_eq!(protocol, Protocol::Http);
        let mut all = String::new();
        Replayed::new(first, server).read_to_string(&mut all).await.expect("the rest");
        assert_eq!(all, "GET / HTTP/1.1\r\n");
    }
}
