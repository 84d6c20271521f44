//! Heads of messages as they are on the wire: found, taken apart and judged here, kept in order and letter case.
//!
//! The rules are stricter than most servers': every line ends in CRLF, nothing is folded, no name has a space around
//! it, no value holds a control character. What two servers could read differently is refused before any of them sees
//! it. A request that breaks a rule is still read to its end where possible, so that the app that it names can be
//! told. This module knows nothing of connections; heads of HTTP/2 are written down as text and go through the same
//! gate.

use dozen_domain::limits::Limits;
use memchr::{memchr, memchr_iter};

use super::names::{Name, classify};
use crate::error::{Flaw, Kind, Restriction};

/// Fields of most heads fit in without growing.
const FIELDS: usize = 24;

/// Which protocol a message came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// Where one field is in its head's bytes.
#[derive(Debug, Clone, Copy)]
struct Place {
    name: Name,
    start: u32,
    colon: u32,
    value: (u32, u32),
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    /// Which, if the router has anything to do with it.
    pub(crate) known: Name,
    /// Its name as it was written.
    pub(crate) name: &'a [u8],
    /// Its value without the white space around it.
    pub(crate) value: &'a [u8],
}

/// How long a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Length {
    /// This many bytes.
    Known(u64),
    /// Chunks say.
    Chunked,
    /// Nothing says: no body for a request, until the connection's end for a response.
    #[default]
    Unsaid,
}

/// The head of a request or a response.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Method and target of a request, code and reason of a response.
    first: (u32, u32),
    second: (u32, u32),
    pub(crate) version: Version,
    pub(crate) length: Length,
    /// Status of a response.
    pub(crate) status: u16,
    /// A length was given beside chunks: whoever sent that is not to send another message over this connection.
    pub(crate) doubtful: bool,
}

/// How far a head has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// Its end has not come yet.
    More,
    /// It is this long, with the empty line.
    Whole(usize),
    /// It cannot become one.
    Hopeless,
}

/// Looks for the end of a head; `from` is where the line begins that was incomplete the last time (0 at first) and is
/// brought up to date. A line longer than `longest` is hopeless.
pub(crate) fn scan(bytes: &[u8], from: &mut usize, longest: usize) -> Scan {
    let base = *from;
    for at in memchr_iter(b'\n', &bytes[base..]) {
        let at = base + at;
        if at == *from || bytes[at - 1] != b'\r' || at - *from > longest {
            return Scan::Hopeless;
        }
        if at == *from + 1 {
            return Scan::Whole(at + 1);
        }
        *from = at + 1;
    }
    if bytes.len() - *from > longest + 1 { Scan::Hopeless } else { Scan::More }
}

impl Head {
    /// Reads a request's head, which ends in an empty line unless it was cut off. Returns the first rule it breaks.
    pub(crate) fn request(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Flaw> {
        self.take(bytes);
        let end = self.line(0).unwrap_or(self.bytes.len());
        let mut judged = if end as u64 > limits.router_request_line_bytes { Err(Flaw::Header) } else { Ok(()) };
        judged = judged.and(self.request_line(end, limits));
        let mut start = end + 2;
        while let Some(end) = self.line(start).filter(|end| *end > start) {
            let name = self.field(start, end);
            let long = (end - start) as u64 > limits.router_header_line_bytes;
            match name {
                Some(length) if !long && length as u64 <= limits.router_header_name_bytes => {}
                _ => judged = judged.and(Err(Flaw::Header)),
            }
            if self.places.len() as u64 > limits.router_headers {
                judged = judged.and(Err(Flaw::Header));
                break;
            }
            start = end + 2;
        }
        judged.and(self.request_length()).and(self.expectation())
    }

    /// Reads a response's head.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn response(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Kind> {
        self.take(bytes);
        let end = self.line(0).ok_or(Kind::Malformed)?;
        self.status_line(end)?;
        if end as u64 > limits.router_status_line_bytes {
            return Err(Kind::Restricted(Restriction::StatusLine));
        }
        let mut start = end + 2;
        while let Some(end) = self.line(start).filter(|end| *end > start) {
            self.field(start, end).ok_or(Kind::Malformed)?;
            let place = self.places[self.places.len() - 1];
            if place.name == Name::SetCookie && u64::from(place.value.1 - place.value.0) > limits.router_cookie_bytes {
                return Err(Kind::Restricted(Restriction::Cookie));
            }
            if (end - start) as u64 > limits.router_response_header_bytes {
                return Err(Kind::Restricted(Restriction::Header));
            }
            if self.places.len() as u64 > limits.router_headers {
                return Err(Kind::Malformed);
            }
            start = end + 2;
        }
        self.response_length()
    }

    /// Reads the fields at the end of a chunked body.
    pub(crate) fn trailers(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        self.take(bytes);
        let mut start = 0;
        while let Some(end) = self.line(start).filter(|end| *end > start) {
            self.field(start, end).ok_or(Flaw::Chunk)?;
            start = end + 2;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        *self = Self {
            bytes: std::mem::take(&mut self.bytes),
            places: std::mem::take(&mut self.places),
            ..Self::default()
        };
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.places.clear();
        self.places.reserve(FIELDS);
    }

    /// Forgets everything, and gives much memory back.
    pub(crate) fn clear(&mut self) {
        let keep = self.bytes.capacity() <= 2 << 10;
        let mut former = std::mem::take(self);
        if keep && former.places.capacity() <= 2 * FIELDS {
            former.bytes.clear();
            former.places.clear();
            self.bytes = former.bytes;
            self.places = former.places;
        }
    }

    /// Where the line from `start` ends, without its CRLF.
    fn line(&self, start: usize) -> Option<usize> {
        let rest = self.bytes.get(start..)?;
        memchr(b'\n', rest).filter(|at| *at > 0 && rest[*at - 1] == b'\r').map(|at| start + at - 1)
    }

    fn request_line(&mut self, end: usize, limits: &Limits) -> Result<(), Flaw> {
        let line = &self.bytes[..end];
        let method = memchr(b' ', line).ok_or(Flaw::Header)?;
        let target = memchr(b' ', &line[method + 1..]).ok_or(Flaw::Header)? + method + 1;
        self.first = (0, method as u32);
        self.second = (method as u32 + 1, target as u32);
        self.version = match &line[target + 1..] {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Err(Flaw::Header),
        };
        let (name, path) = (&line[..method], &line[method + 1..target]);
        let fits = !name.is_empty()
            && name.len() as u64 <= limits.router_method_bytes
            && name.iter().all(|byte| is_token(*byte))
            && name != b"CONNECT"
            && !path.is_empty()
            && path.iter().all(|byte| *byte > b' ' && *byte != 0x7f && *byte != b'#');
        let form = path.starts_with(b"/") || (path == b"*" && name == b"OPTIONS") || self.authority().is_some();
        if fits && form { Ok(()) } else { Err(Flaw::Header) }
    }

    fn status_line(&mut self, end: usize) -> Result<(), Kind> {
        let line = &self.bytes[..end];
        let (version, rest) = line.split_at_checked(8).ok_or(Kind::Malformed)?;
        self.version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Err(Kind::Malformed),
        };
        // The space before the reason must be there, the reason may be empty.
        let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', reason @ ..] = rest else {
            return Err(Kind::Malformed);
        };
        if has_control(reason) {
            return Err(Kind::Malformed);
        }
        self.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        self.first = (9, 12);
        self.second = (13, end as u32);
        Ok(())
    }

    /// Takes one field in; returns the length of its name, or nothing when it is none.
    fn field(&mut self, start: usize, end: usize) -> Option<usize> {
        let line = &self.bytes[start..end];
        let colon = line.iter().position(|byte| !is_token(*byte)).unwrap_or(line.len());
        if colon == 0 || line.get(colon) != Some(&b':') || has_control(&line[colon..]) {
            return None;
        }
        let value = &line[colon + 1..];
        let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let lead = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
        let tail = value.iter().rposition(|byte| !blank(byte)).map_or(lead, |at| at + 1);
        let base = (start + colon + 1) as u32;
        self.places.push(Place {
            name: classify(&line[..colon]),
            start: start as u32,
            colon: (start + colon) as u32,
            value: (base + lead as u32, base + tail as u32),
        });
        Some(colon)
    }

    fn request_length(&mut self) -> Result<(), Flaw> {
        let (length, coded) = (self.given_length().map_err(|()| Flaw::Header)?, self.coding());
        match coded {
            None => self.length = length.map_or(Length::Unsaid, Length::Known),
            // A coding that the router does not undo would be lost with the field that names it. HTTP/1.0 has none.
            Some(true) if self.version != Version::Http10 => {
                self.length = Length::Chunked;
                self.doubtful = length.is_some();
            }
            Some(_) => return Err(Flaw::Header),
        }
        Ok(())
    }

    fn response_length(&mut self) -> Result<(), Kind> {
        let length = self.given_length().map_err(|()| Kind::Restricted(Restriction::ContentLength))?;
        match self.coding() {
            None => self.length = length.map_or(Length::Unsaid, Length::Known),
            Some(true) => {
                self.length = Length::Chunked;
                self.doubtful = length.is_some();
            }
            Some(false) => return Err(Kind::Malformed),
        }
        Ok(())
    }

    /// The length that fields give; several may say the same.
    fn given_length(&self) -> Result<Option<u64>, ()> {
        let mut found = None;
        for value in self.all(Name::ContentLength) {
            let digits = !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit);
            let length =
                std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok()).ok_or(())?;
            if found.replace(length).is_some_and(|before: u64| before != length) {
                return Err(());
            }
        }
        Ok(found)
    }

    /// Whether a transfer coding is given, and if so, whether it is `chunked`, once and alone.
    fn coding(&self) -> Option<bool> {
        let mut codings = self.all(Name::TransferEncoding);
        let first = codings.next()?;
        Some(first.eq_ignore_ascii_case(b"chunked") && codings.next().is_none())
    }

    fn expectation(&self) -> Result<(), Flaw> {
        let met = self.all(Name::Expect).all(|value| value.eq_ignore_ascii_case(b"100-continue"));
        if met { Ok(()) } else { Err(Flaw::Expect) }
    }

    fn at(&self, (start, end): (u32, u32)) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Says whether a client wants to be told to go on before it sends its body. HTTP/1.0 knows no such thing.
    pub(crate) fn expects(&self) -> bool {
        self.version != Version::Http10 && self.first(Name::Expect).is_some()
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> &[u8] {
        self.at(self.first)
    }

    /// The target of a request as it was written.
    fn target(&self) -> &[u8] {
        self.at(self.second)
    }

    /// The reason of a response.
    pub(crate) fn reason(&self) -> &[u8] {
        self.at(self.second)
    }

    /// What follows the scheme in a target that has one.
    fn after_scheme(&self) -> Option<&[u8]> {
        let target = self.target();
        ["http://", "https://"].iter().find_map(|scheme| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
        })
    }

    /// The authority in a target that has a scheme.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        let rest = self.after_scheme()?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        Some(&rest[..end])
    }

    /// Path and query: what a dyno is asked for. It begins with `/` (or `?`, when [`Self::lacks_slash`]) or is `*`.
    pub(crate) fn path(&self) -> &[u8] {
        match self.authority() {
            None => self.target(),
            Some(authority) => match self.after_scheme().and_then(|rest| rest.get(authority.len()..)) {
                Some([]) | None if self.method() == b"OPTIONS" => b"*",
                Some([]) | None => b"/",
                Some(path) => path,
            },
        }
    }

    /// Says whether the path's first slash was left out (`http://host?query`).
    pub(crate) fn lacks_slash(&self) -> bool {
        self.path().starts_with(b"?")
    }

    /// All fields in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| Field {
            known: place.name,
            name: self.at((place.start, place.colon)),
            value: self.at(place.value),
        })
    }

    /// The values of the fields of one name, in order.
    pub(crate) fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.places.iter().filter(move |place| place.name == name).map(|place| self.at(place.value))
    }

    /// The first value of a name.
    pub(crate) fn first(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Says whether a list in the fields of one name holds a word.
    pub(crate) fn lists(&self, name: Name, word: &[u8]) -> bool {
        self.all(name).flat_map(tokens).any(|token| token.eq_ignore_ascii_case(word))
    }
}

/// The words of a comma-separated value.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Characters that names and methods are made of (RFC 9110, 5.6.2).
pub(crate) const fn is_token(byte: u8) -> bool {
    const TOKENS: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric()
                || matches!(
                    byte as u8,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
            byte += 1;
        }
        table
    };
    TOKENS[byte as usize]
}

/// Says whether bytes hold a control character that no value may have; without branches, so that it is fast.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, byte| found | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> (Head, Result<(), Flaw>) {
        let mut head = Head::default();
        let judged = head.request(text.as_bytes(), &Limits::default());
        (head, judged)
    }

    fn response(text: &str) -> (Head, Result<(), Kind>) {
        let mut head = Head::default();
        let judged = head.response(text.as_bytes(), &Limits::default());
        (head, judged)
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let text = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nrest";
        for cut in 0..text.len() {
            let mut from = 0;
            let first = scan(&text[..cut], &mut from, 100);
            let second = scan(text, &mut from, 100);
            assert_eq!(
                (first, second),
                (if cut < 27 { Scan::More } else { Scan::Whole(27) }, Scan::Whole(27)),
                "{cut}"
            );
        }
    }

    #[test]
    fn bare_line_feeds_and_endless_lines_are_hopeless() {
        for text in ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nhost: a\n\n", "\n", "xxxxxxxxxxxxxxxxxxxxxxxxxxx"] {
            let mut from = 0;
            assert_eq!(scan(text.as_bytes(), &mut from, 20), Scan::Hopeless, "{text:?}");
        }
    }

    #[test]
    fn names_and_values_keep_order_and_case() {
        let (head, judged) = request("GET /a?b HTTP/1.1\r\nHost: x\r\nX-Odd:  a b \t\r\nx-ODD:\r\n\r\n");
        assert_eq!(judged, Ok(()));
        assert_eq!((head.method(), head.path()), (&b"GET"[..], &b"/a?b"[..]));
        let fields: Vec<_> = head.fields().map(|field| (field.name, field.value)).collect();
        assert_eq!(fields, [(&b"Host"[..], &b"x"[..]), (b"X-Odd", b"a b"), (b"x-ODD", b"")]);
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        for text in [
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET a HTTP/1.1\r\n\r\n",
            "GET * HTTP/1.1\r\n\r\n",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "GET ftp://x/ HTTP/1.1\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
            "GET / HTTP/1.1\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\na\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\n a: b\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\0c\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1,1\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: \r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 0x1\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: \"chunked\"\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding:\r\n\r\n",
            "GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(request(text).1, Err(Flaw::Header), "{text:?}");
        }
    }

    #[test]
    fn chunks_beat_a_length_and_equal_lengths_are_one() {
        let (head, judged) = request("GET / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: Chunked\r\n\r\n");
        assert_eq!((judged, head.length, head.doubtful), (Ok(()), Length::Chunked, true));
        let (head, judged) = request("GET / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 03\r\n\r\n");
        assert_eq!((judged, head.length, head.doubtful), (Ok(()), Length::Known(3), false));
    }

    #[test]
    fn a_target_with_a_scheme_gives_authority_and_path() {
        for (target, authority, path) in
            [("http://a.test:80/b?c", "a.test:80", "/b?c"), ("HTTPS://a", "a", "/"), ("http://a?b", "a", "?b")]
        {
            let (head, judged) = request(&format!("GET {target} HTTP/1.1\r\n\r\n"));
            assert_eq!(judged, Ok(()), "{target}");
            assert_eq!((head.authority(), head.path()), (Some(authority.as_bytes()), path.as_bytes()), "{target}");
        }
    }

    #[test]
    fn a_flawed_request_still_names_its_host() {
        let (head, judged) = request("GET / HTTP/1.1\r\nbad line\r\nhost: a\r\n\r\n");
        assert_eq!((judged, head.first(Name::Host)), (Err(Flaw::Header), Some(&b"a"[..])));
    }

    #[test]
    fn a_status_line_has_three_digits_and_room_for_a_reason() {
        for (line, status) in [
            ("HTTP/1.1 200 OK", Some(200)),
            ("HTTP/1.0 404 Not Found", Some(404)),
            ("HTTP/1.1 421 ", Some(421)),
            ("HTTP/1.1 421", None),
            ("HTTP/1.1 20 OK", None),
            ("HTTP/1.1 2000 OK", None),
            ("HTTP/1.1  200 OK", None),
            ("HTTP/2 200 OK", None),
            ("200 OK", None),
        ] {
            let (head, judged) = response(&format!("{line}\r\n\r\n"));
            assert_eq!(judged.ok().map(|()| head.status), status, "{line}");
        }
    }

    #[test]
    fn responses_with_uncertain_lengths_are_refused() {
        let lengths = response("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n").1;
        assert_eq!(lengths, Err(Kind::Restricted(Restriction::ContentLength)));
        assert_eq!(response("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n").1, Err(Kind::Malformed));
        assert_eq!(response("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n").1, Err(Kind::Malformed));
    }
}
