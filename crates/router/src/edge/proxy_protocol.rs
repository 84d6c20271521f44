//! The PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): a load balancer in front of the platform says
//! at the beginning of a connection who is behind it.
//!
//! It is heeded only for connections from networks that the operator trusts, and required of those: whoever else sends
//! such a header sends a bad request. Not one byte behind the header is read.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
};

/// What the header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1, its line end included.
const LONGEST_TEXT: usize = 107;
/// Longest rest of a header of version 2. Certificates of clients, which it may carry, fit.
const LONGEST_BINARY: usize = 16 << 10;

/// Whom a connection is for, in place of what the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind {
    /// The client.
    pub(crate) source: SocketAddr,
    /// What it connected to.
    pub(crate) destination: SocketAddr,
    /// It spoke TLS to the load balancer.
    pub(crate) tls: bool,
}

/// Reads the header; none when the load balancer speaks for itself, such as for a health check.
///
/// # Errors
/// When there is no such header.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Option<Behind>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE { binary(stream).await } else { text(stream, &start).await }
}

async fn text(stream: &mut TcpStream, start: &[u8]) -> io::Result<Option<Behind>> {
    if !start.starts_with(b"PROXY ") {
        return Err(invalid("no header of the PROXY protocol"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        // What is there without a line end belongs to the header, so that nothing behind it is taken.
        let mut ahead = [0; LONGEST_TEXT];
        let room = LONGEST_TEXT - line.len();
        let there = stream.peek(&mut ahead[..room]).await?;
        if there == 0 {
            return Err(invalid("a header without an end"));
        }
        let ended = ahead[..there].iter().position(|byte| *byte == b'\n').map_or(there, |at| at + 1);
        let from = line.len();
        line.resize(from + ended, 0);
        stream.read_exact(&mut line[from..]).await?;
        if line.contains(&b'\n') && !line.ends_with(b"\r\n") {
            return Err(invalid("a bare line feed"));
        }
    }
    parse_text(&line)
}

/// Reads the line of version 1, its line end included.
pub(crate) fn parse_text(line: &[u8]) -> io::Result<Option<Behind>> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let words: Vec<&str> = line.ok_or_else(|| invalid("a header that is no text"))?.split(' ').collect();
    let address = |text: &str, v6: bool| -> io::Result<IpAddr> {
        let parsed = if v6 { text.parse().map(IpAddr::V6) } else { text.parse().map(IpAddr::V4) };
        parsed.map_err(|_| invalid("an address that is none"))
    };
    let port = |text: &str| -> io::Result<u16> {
        let plain =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain).ok_or_else(|| invalid("a port that is none"))
    };
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let v6 = *family == "TCP6";
            Ok(Some(Behind {
                source: SocketAddr::new(address(source, v6)?, port(from)?),
                destination: SocketAddr::new(address(destination, v6)?, port(to)?),
                tls: false,
            }))
        }
        _ => Err(invalid("a header with other words")),
    }
}

async fn binary<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Behind>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > LONGEST_BINARY {
        return Err(invalid("a header that is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    parse_binary(head[0], head[1], &rest)
}

/// Reads what follows the signature of version 2: version and command, family and transport, and all behind the length.
pub(crate) fn parse_binary(command: u8, family: u8, rest: &[u8]) -> io::Result<Option<Behind>> {
    match command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(invalid("a version or command that is not known")),
    }
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let short = || invalid("a header with too few addresses");
    let (behind, more) = match family {
        0x11 => {
            let (own, more) = rest.split_at_checked(12).ok_or_else(short)?;
            let at = |from: usize| IpAddr::from(Ipv4Addr::new(own[from], own[from + 1], own[from + 2], own[from + 3]));
            let (source, destination) = (at(0), at(4));
            ((SocketAddr::new(source, port(&own[8..])), SocketAddr::new(destination, port(&own[10..]))), more)
        }
        0x21 => {
            let (own, more) = rest.split_at_checked(36).ok_or_else(short)?;
            let at = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
            let (source, destination) = (at(&own[..16]).map_err(|_| short())?, at(&own[16..32]).map_err(|_| short())?);
            ((SocketAddr::new(source, port(&own[32..])), SocketAddr::new(destination, port(&own[34..]))), more)
        }
        // Nothing that an address could be made of; the connection counts as the load balancer's own.
        _ => return Ok(None),
    };
    Ok(Some(Behind { source: behind.0, destination: behind.1, tls: spoke_tls(more)? }))
}

/// Looks for the extension that says that the client spoke TLS.
fn spoke_tls(mut extensions: &[u8]) -> io::Result<bool> {
    const SSL: u8 = 0x20;
    const CLIENT_SSL: u8 = 0x01;
    let mut tls = false;
    while let Some((head, rest)) = extensions.split_at_checked(3) {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (value, rest) = rest.split_at_checked(length).ok_or_else(|| invalid("an extension without its end"))?;
        tls |= head[0] == SSL && value.first().is_some_and(|flags| flags & CLIENT_SSL != 0);
        extensions = rest;
    }
    if extensions.is_empty() { Ok(tls) } else { Err(invalid("an extension without its end")) }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(source: &str, destination: &str) -> Option<Behind> {
        Some(Behind {
            source: source.parse().expect("one"),
            destination: destination.parse().expect("one"),
            tls: false,
        })
    }

    #[test]
    fn lines_of_version_1_are_read_strictly() {
        let good = |line: &str, expected| assert_eq!(parse_text(line.as_bytes()).expect(line), expected, "{line}");
        good("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", behind("192.0.2.1:56324", "198.51.100.2:443"));
        good("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", behind("[2001:db8::1]:1", "[2001:db8::2]:65535"));
        good("PROXY UNKNOWN\r\n", None);
        good("PROXY UNKNOWN ff:: ff:: 1 2\r\n", None);
        for bad in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.2 56324 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 443\n",
            "PROXY tcp4 192.0.2.1 198.51.100.2 1 443\r\n",
            "PROXY \r\n",
            "\r\n",
        ] {
            assert!(parse_text(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn headers_of_version_2_are_read_with_their_extensions() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];
        let plain = behind("192.0.2.1:56324", "198.51.100.2:443");
        assert_eq!(parse_binary(0x21, 0x11, &v4).expect("a header"), plain);
        assert_eq!(parse_binary(0x20, 0x00, &[]).expect("a health check"), None);
        assert_eq!(parse_binary(0x21, 0x31, &[0; 216]).expect("a Unix socket"), None);
        let with = |extension: &[u8]| parse_binary(0x21, 0x11, &[&v4[..], extension].concat());
        assert_eq!(with(&[0x04, 0, 2, 9, 9]).expect("padding"), plain);
        assert!(with(&[0x20, 0, 5, 1, 0, 0, 0, 0]).expect("TLS").is_some_and(|behind| behind.tls));
        assert!(with(&[0x20, 0, 5, 0, 0, 0, 0, 0]).expect("no TLS").is_some_and(|behind| !behind.tls));
        for (command, family, rest) in
            [(0x21, 0x11, &v4[..11]), (0x21, 0x21, &v4[..]), (0x22, 0x11, &v4[..]), (0x11, 0x11, &v4[..])]
        {
            assert!(parse_binary(command, family, rest).is_err());
        }
        assert!(with(&[0x20, 0, 9, 1]).is_err() && with(&[0x20]).is_err());
    }

    #[test]
    fn no_bytes_whatever_break_the_parser() {
        let mut random = fastrand::Rng::with_seed(7);
        let good = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
        for _ in 0..20_000 {
            let mut line = good.to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..line.len());
                line[at] = random.u8(..);
            }
            line.truncate(random.usize(..=line.len()));
            crate::fuzzing::proxy(&line);
            let length = random.usize(..64);
            let head = [random.u8(0x1f..0x23), [0x11, 0x21, 0x31, 0x00][random.usize(..4)]];
            let rest = std::iter::repeat_with(|| random.u8(..)).take(length);
            crate::fuzzing::proxy(&head.into_iter().chain(rest).collect::<Vec<_>>());
        }
    }
}
