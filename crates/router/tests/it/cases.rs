//! The table of cases: what a client sends, what the dyno gets, what it answers, what the client gets, byte by byte.
//!
//! It re-expresses, in this project's terms, the behaviours that a public test suite of such a router covers: framing of
//! bodies both ways, lengths, interim answers, upgrades, both versions of HTTP/1, malformed heads.

use dozen_domain::limits::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};

use crate::harness::{LONG, Router, app, soon};

/// What a dyno does with the connection after its answer.
#[derive(Clone, Copy, PartialEq)]
enum After {
    Keep,
    Close,
}
use After::{Close, Keep};

/// One case.
struct Case {
    name: &'static str,
    /// All that the client sends; `{host}` stands for a host field.
    request: &'static str,
    /// What the dyno waits for before it answers; nothing when no dyno may hear of it.
    heard: &'static [&'static str],
    /// What the dyno must not get.
    unheard: &'static [&'static str],
    answer: &'static str,
    after: After,
    /// How what the client gets begins; and what else is in it.
    begins: &'static str,
    holds: &'static [&'static str],
    lacks: &'static [&'static str],
    /// How it ends.
    ends: &'static str,
    /// The router closes the client's connection.
    closed: bool,
}

const PLAIN: Case = Case {
    name: "",
    request: "GET / HTTP/1.1\r\n{host}\r\n",
    heard: &["GET / HTTP/1.1\r\n"],
    unheard: &[],
    answer: "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    after: Keep,
    begins: "HTTP/1.1 200 OK\r\n",
    holds: &[],
    lacks: &[],
    ends: "\r\n\r\nok",
    closed: false,
};

const BAD: Case = Case {
    heard: &[],
    begins: "HTTP/1.1 400 Bad Request\r\n",
    holds: &["connection: close", "<title>Bad request</title>"],
    ends: "</html>\n",
    closed: true,
    ..PLAIN
};

const HEAD: Case = Case { request: "HEAD / HTTP/1.1\r\n{host}\r\n", heard: &["HEAD / HTTP/1.1\r\n"], ..PLAIN };

/// A request that must be refused.
const fn bad(name: &'static str, request: &'static str) -> Case {
    Case { name, request, ..BAD }
}

/// An answer that must be refused with this status.
const fn wrong(name: &'static str, answer: &'static str, begins: &'static str) -> Case {
    Case {
        name,
        answer,
        begins,
        after: Close,
        holds: &["<title>Application error</title>"],
        ends: "</html>\n",
        ..PLAIN
    }
}

const SPLIT: &str = "HTTP/1.1 503 Service Unavailable\r\n";
const LIMIT: &str = "HTTP/1.1 502 Bad Gateway\r\n";

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Round trips.
    Case { name: "a plain request", ..PLAIN },
    Case { name: "order and case of fields", request: "GET / HTTP/1.1\r\nB-Second: 1\r\n{host}A-First: 2\r\nb-second: 3\r\n\r\n", heard: &["B-Second: 1\r\n", "A-First: 2\r\nb-second: 3\r\n"], answer: "HTTP/1.1 200 OK\r\nX-Zeta: 1\r\nAlpha: 2\r\nx-zeta: 3\r\nContent-Length: 0\r\n\r\n", holds: &["X-Zeta: 1\r\nAlpha: 2\r\nx-zeta: 3\r\n", "content-length: 0\r\n"], ends: "\r\n\r\n", ..PLAIN },
    Case { name: "an empty value", request: "GET / HTTP/1.1\r\n{host}x-empty:\r\n\r\n", heard: &["x-empty: \r\n"], ..PLAIN },
    Case { name: "white space around a value", request: "GET / HTTP/1.1\r\n{host}x:  \t a b \t \r\n\r\n", heard: &["x: a b\r\n"], ..PLAIN },
    Case { name: "bytes beyond ASCII in a value", request: "GET / HTTP/1.1\r\n{host}x: \u{e9}\r\n\r\n", heard: &["x: \u{e9}\r\n"], ..PLAIN },
    Case { name: "a method of one's own", request: "BREW / HTTP/1.1\r\n{host}\r\n", heard: &["BREW / HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "a method in lower case", request: "get / HTTP/1.1\r\n{host}\r\n", heard: &["get / HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "a query", request: "GET /a/../b?c=d&e={%20} HTTP/1.1\r\n{host}\r\n", heard: &["GET /a/../b?c=d&e={%20} HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "two slashes at the start", request: "GET //x/y HTTP/1.1\r\n{host}\r\n", heard: &["GET //x/y HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "a target with scheme and authority", request: "GET http://case.apps.test/a?b HTTP/1.1\r\n{host}\r\n", heard: &["GET /a?b HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "an authority without path", request: "GET http://case.apps.test HTTP/1.1\r\n{host}\r\n", heard: &["GET / HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "an authority with a query alone", request: "GET http://case.apps.test?q HTTP/1.1\r\n{host}\r\n", heard: &["GET /?q HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "an authority with its port", request: "GET http://case.apps.test:80/ HTTP/1.1\r\n{host}\r\n", ..PLAIN },
    Case { name: "options of the server", request: "OPTIONS * HTTP/1.1\r\n{host}\r\n", heard: &["OPTIONS * HTTP/1.1\r\n"], ..PLAIN },
    Case { name: "empty lines before a request", request: "\r\n\r\nGET / HTTP/1.1\r\n{host}\r\n", ..PLAIN },
    Case { name: "a host in upper case with port and dot", request: "GET / HTTP/1.1\r\nHOST: CASE.apps.test.:8080\r\n\r\n", heard: &["HOST: CASE.apps.test.:8080\r\n"], ..PLAIN },
    Case { name: "an error of the app passes untouched", answer: "HTTP/1.1 500 Oh No\r\ncontent-length: 4\r\n\r\noops", begins: "HTTP/1.1 500 Oh No\r\n", ends: "oops", ..PLAIN },
    Case { name: "a 404 of the app passes untouched", answer: "HTTP/1.1 404 Nope\r\ncontent-length: 4\r\n\r\nnope", begins: "HTTP/1.1 404 Nope\r\n", ends: "nope", ..PLAIN },
    Case { name: "a status that nobody knows", answer: "HTTP/1.1 799 Odd One\r\ncontent-length: 0\r\n\r\n", begins: "HTTP/1.1 799 Odd One\r\n", ends: "\r\n\r\n", ..PLAIN },
    Case { name: "a reason that is empty", answer: "HTTP/1.1 421 \r\ncontent-length: 0\r\n\r\n", begins: "HTTP/1.1 421 ", ends: "\r\n\r\n", ..PLAIN },

    // What the router adds and takes away.
    Case { name: "what a dyno is told", heard: &["x-forwarded-for: 127.0.0.1\r\n", "x-forwarded-proto: http\r\n", "x-forwarded-port: ", "x-request-start: 1", "x-request-id: ", "via: 1.1 heroku-router\r\n"], ..PLAIN },
    Case { name: "a list of addresses goes on", request: "GET / HTTP/1.1\r\n{host}X-Forwarded-For: 1.2.3.4\r\n\r\n", heard: &["x-forwarded-for: 1.2.3.4, 127.0.0.1\r\n"], unheard: &["X-Forwarded-For"], ..PLAIN },
    Case { name: "a scheme cannot be claimed", request: "GET / HTTP/1.1\r\n{host}X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\r\n", heard: &["x-forwarded-proto: http\r\n"], unheard: &["https", ": 443"], ..PLAIN },
    Case { name: "underscores disguise nothing", request: "GET / HTTP/1.1\r\n{host}X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\nContent_Length: 5\r\nx_mine: 1\r\n\r\n", heard: &["x_mine: 1\r\n"], unheard: &["6.6.6.6", "https", "Content_Length"], ..PLAIN },
    Case { name: "X-Forwarded-Host stays", request: "GET / HTTP/1.1\r\n{host}X-Forwarded-Host: a\r\n\r\n", heard: &["X-Forwarded-Host: a\r\n"], ..PLAIN },
    Case { name: "a request id that fits", request: "GET / HTTP/1.1\r\n{host}X-Request-Id: abcdefghij0123456789\r\n\r\n", heard: &["x-request-id: abcdefghij0123456789\r\n"], ..PLAIN },
    Case { name: "a request id that is too short", request: "GET / HTTP/1.1\r\n{host}X-Request-Id: abc\r\n\r\n", unheard: &["x-request-id: abc\r\n"], ..PLAIN },
    Case { name: "a request id with other characters", request: "GET / HTTP/1.1\r\n{host}X-Request-Id: abcdefghij 0123456789\r\n\r\n", unheard: &["abcdefghij 0123456789"], ..PLAIN },
    Case { name: "a chain of proxies", request: "GET / HTTP/1.1\r\n{host}Via: 1.0 fred\r\n\r\n", heard: &["Via: 1.0 fred\r\n", "via: 1.1 heroku-router\r\n"], answer: "HTTP/1.1 200 OK\r\nVia: 1.1 barney\r\ncontent-length: 2\r\n\r\nok", holds: &["Via: 1.1 barney\r\n", "via: 1.1 heroku-router\r\n"], ..PLAIN },
    Case { name: "fields of one connection towards the dyno", request: "GET / HTTP/1.1\r\n{host}Connection: keep-alive, X-Mine\r\nKeep-Alive: 5\r\nX-Mine: 1\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nTE: gzip\r\nProxy: http://evil\r\nTrailer: z\r\n\r\n", heard: &["Trailer: z\r\n"], unheard: &["Keep-Alive", "X-Mine", "Proxy", "gzip", "onnection"], ..PLAIN },
    Case { name: "fields of one connection towards the client", answer: "HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nKeep-Alive: 5\r\nX-Mine: 1\r\nProxy-Authenticate: y\r\nTrailer: z\r\nContent-Length: 2\r\n\r\nok", holds: &["Trailer: z\r\n"], lacks: &["Keep-Alive", "X-Mine", "Proxy-", "onnection"], ..PLAIN },
    Case { name: "Connection cannot take the host away", request: "GET / HTTP/1.1\r\n{host}Connection: host, content-length, close\r\n\r\n", heard: &["host: case.apps.test\r\n"], closed: true, holds: &["connection: close\r\n"], ..PLAIN },
    Case { name: "trailers are announced", request: "GET / HTTP/1.1\r\n{host}TE: gzip, trailers\r\n\r\n", heard: &["te: trailers\r\n"], unheard: &["gzip"], ..PLAIN },
    Case { name: "cookies in several fields are joined", request: "GET / HTTP/1.1\r\n{host}Cookie: a=1\r\nx: y\r\nCookie: b=2\r\n\r\n", heard: &["Cookie: a=1; b=2\r\n"], unheard: &["Cookie: b=2"], ..PLAIN },
    Case { name: "set cookies are not joined", answer: "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok", holds: &["Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"], ..PLAIN },
    Case { name: "a date where the app gives none", holds: &["date: ", " GMT\r\n", "server: Heroku\r\n"], ..PLAIN },
    Case { name: "the app's own date and server", answer: "HTTP/1.1 200 OK\r\nDate: yesterday\r\nServer: mine\r\nContent-Length: 2\r\n\r\nok", holds: &["Date: yesterday\r\nServer: mine\r\n"], lacks: &["GMT", "Heroku\r\n"], ..PLAIN },
    Case { name: "HTTP/2 by upgrade is not asked for", request: "GET / HTTP/1.1\r\n{host}Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", unheard: &["pgrade", "ettings"], ..PLAIN },

    // Bodies of requests.
    Case { name: "a body with a length", request: "POST / HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello", heard: &["POST / HTTP/1.1\r\n", "content-length: 5\r\n", "\r\n\r\nhello"], ..PLAIN },
    Case { name: "a body without a byte", request: "POST / HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n", heard: &["POST / HTTP/1.1\r\n", "content-length: 0\r\n"], ..PLAIN },
    Case { name: "a post without a length has no body", request: "POST / HTTP/1.1\r\n{host}\r\n", heard: &["POST / HTTP/1.1\r\n"], unheard: &["length", "chunked"], ..PLAIN },
    Case { name: "equal lengths are one", request: "POST / HTTP/1.1\r\n{host}Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello", heard: &["content-length: 5\r\n", "hello"], unheard: &["Content-Length"], ..PLAIN },
    Case { name: "chunks are written anew", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: Chunked\r\n\r\n0005;x=\"y\"\r\nhello\r\n0\r\n\r\n", heard: &["transfer-encoding: chunked\r\n", "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"], unheard: &["x=", "0005"], ..PLAIN },
    Case { name: "chunks without a byte", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", heard: &["\r\n\r\n0\r\n\r\n"], ..PLAIN },
    Case { name: "many small chunks", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", heard: &["1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"], ..PLAIN },
    Case { name: "trailers of a request", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\ncontent-length: 3\r\nhost: evil\r\n\r\n", heard: &["0\r\nx-sum: 7\r\n\r\n"], unheard: &["evil", "ontent-length"], ..PLAIN },
    Case { name: "chunks beat a length and end the connection", request: "POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", heard: &["transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"], unheard: &["ontent-"], closed: true, ..PLAIN },
    Case { name: "a get with a body", request: "GET / HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc", heard: &["content-length: 3\r\n", "\r\n\r\nabc"], ..PLAIN },
    Case { name: "a delete with chunks", request: "DELETE / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", heard: &["3\r\nabc\r\n0\r\n\r\n"], ..PLAIN },

    // Bodies of answers.
    Case { name: "chunks of an answer", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", holds: &["transfer-encoding: chunked\r\n"], ends: "2\r\nok\r\n0\r\n\r\n", ..PLAIN },
    Case { name: "chunks beat a length in an answer", answer: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", lacks: &["ontent-"], ends: "2\r\nok\r\n0\r\n\r\n", ..PLAIN },
    Case { name: "extensions of chunks do not pass", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0;c\r\n\r\n", ends: "\r\n\r\n2\r\nok\r\n0\r\n\r\n", ..PLAIN },
    Case { name: "trailers of an answer", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nok\r\n0\r\nx: 1\r\n\r\n", ends: "0\r\nx: 1\r\n\r\n", ..PLAIN },
    Case { name: "equal lengths of an answer are one", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", holds: &["content-length: 2\r\n"], lacks: &["Content-Length"], ..PLAIN },
    Case { name: "an answer until the connection ends", answer: "HTTP/1.1 200 OK\r\n\r\nok", after: Close, holds: &["transfer-encoding: chunked\r\n"], ends: "2\r\nok\r\n0\r\n\r\n", ..PLAIN },
    Case { name: "an answer of HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", after: Close, ..PLAIN },
    Case { name: "an answer of HTTP/1.0 without length", answer: "HTTP/1.0 200 OK\r\n\r\nok", after: Close, ends: "2\r\nok\r\n0\r\n\r\n", ..PLAIN },
    Case { name: "a dyno that closes keeps the client", answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", after: Close, lacks: &["onnection"], ..PLAIN },
    Case { name: "an answer without a byte", answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", holds: &["content-length: 0\r\n"], ends: "\r\n\r\n", ..PLAIN },
    Case { name: "an answer before the request's body", request: "POST / HTTP/1.1\r\n{host}Content-Length: 100\r\n\r\npart", heard: &["part"], answer: "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig", begins: "HTTP/1.1 413 Too Large\r\n", holds: &["connection: close\r\n"], ends: "big", closed: true, ..PLAIN },

    // No body where none belongs.
    Case { name: "head with a length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n", holds: &["content-length: 42\r\n"], ends: "\r\n\r\n", ..HEAD },
    Case { name: "head without a length", answer: "HTTP/1.1 200 OK\r\n\r\n", lacks: &["length", "chunked"], ends: "\r\n\r\n", ..HEAD },
    Case { name: "head with chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ends: "\r\n\r\n", ..HEAD },
    Case { name: "head with a body all the same", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", holds: &["content-length: 2\r\n"], lacks: &["\r\n\r\nok"], ends: "\r\n\r\n", ..HEAD },
    Case { name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n", begins: "HTTP/1.1 204 No Content\r\n", lacks: &["length", "chunked"], ends: "\r\n\r\n", ..PLAIN },
    Case { name: "204 with a length", answer: "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", begins: "HTTP/1.1 204 No Content\r\n", lacks: &["ength", "\r\n\r\nok"], ends: "\r\n\r\n", ..PLAIN },
    Case { name: "204 with chunks", answer: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", begins: "HTTP/1.1 204 No Content\r\n", lacks: &["chunked"], ends: "\r\n\r\n", ..PLAIN },
    Case { name: "304 with a length", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\n\r\n", begins: "HTTP/1.1 304 Not Modified\r\n", holds: &["content-length: 42\r\n"], ends: "\r\n\r\n", ..PLAIN },
    Case { name: "304 with a body all the same", answer: "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", begins: "HTTP/1.1 304 Not Modified\r\n", lacks: &["ok\r\n"], ends: "\r\n\r\n", ..PLAIN },

    // HTTP/1.0 clients.
    Case { name: "1.0 ends its connection", request: "GET / HTTP/1.0\r\n{host}\r\n", heard: &["GET / HTTP/1.1\r\n"], holds: &["connection: close\r\n"], closed: true, ..PLAIN },
    Case { name: "1.0 may keep its connection", request: "GET / HTTP/1.0\r\n{host}Connection: Keep-Alive\r\n\r\n", holds: &["connection: keep-alive\r\n"], ..PLAIN },
    Case { name: "1.0 gets no chunks", request: "GET / HTTP/1.0\r\n{host}Connection: keep-alive\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n", holds: &["connection: close\r\n"], lacks: &["chunked"], ends: "\r\n\r\nok", closed: true, ..PLAIN },
    Case { name: "1.0 and an answer until the end", request: "GET / HTTP/1.0\r\n{host}\r\n", answer: "HTTP/1.1 200 OK\r\n\r\nok", after: Close, ends: "\r\n\r\nok", closed: true, ..PLAIN },
    Case { name: "1.0 gets no interim answer", request: "GET / HTTP/1.0\r\n{host}\r\n", answer: "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", lacks: &["103", "100 C"], closed: true, ..PLAIN },
    Case { name: "1.0 expects nothing", request: "POST / HTTP/1.0\r\n{host}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", heard: &["hi"], unheard: &["xpect"], lacks: &["100 C"], closed: true, ..PLAIN },
    Case { name: "1.1 may end its connection", request: "GET / HTTP/1.1\r\n{host}Connection: Close\r\n\r\n", holds: &["connection: close\r\n"], unheard: &["lose"], closed: true, ..PLAIN },
    Case { name: "1.1 may say that it keeps its connection", request: "GET / HTTP/1.1\r\n{host}Connection: keep-alive\r\n\r\n", lacks: &["onnection"], ..PLAIN },

    // Interim answers.
    Case { name: "the router says 100", request: "POST / HTTP/1.1\r\n{host}Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n", heard: &["content-length: 5\r\n"], unheard: &["xpect"], answer: "", begins: "HTTP/1.1 100 Continue\r\n\r\n", ends: "Continue\r\n\r\n", ..PLAIN },
    Case { name: "no 100 when the body is there", request: "POST / HTTP/1.1\r\n{host}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", heard: &["hello"], lacks: &["100 C"], closed: true, ..PLAIN },
    Case { name: "no 100 without a body", request: "GET / HTTP/1.1\r\n{host}Expect: 100-continue\r\n\r\n", unheard: &["xpect"], lacks: &["100 C"], ..PLAIN },
    Case { name: "a 100 that nobody asked for passes", answer: "HTTP/1.1 100 Continue\r\nx: y\r\nconnection: close\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", begins: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", lacks: &["x: y", "onnection"], ..PLAIN },
    Case { name: "two of them do not", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", begins: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n", ends: "</html>\n", ..PLAIN },
    Case { name: "early hints pass", answer: "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", begins: "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n", ..PLAIN },
    Case { name: "several interim answers pass", answer: "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", begins: "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n", ..PLAIN },
    Case { name: "another expectation", request: "POST / HTTP/1.1\r\n{host}Expect: a-miracle\r\nContent-Length: 5\r\n\r\nhello", begins: "HTTP/1.1 417 Expectation Failed\r\n", holds: &["<title>Expectation failed</title>"], ..BAD },
    Case { name: "an expectation with more to it", request: "POST / HTTP/1.1\r\n{host}Expect: 100-continue; x=y\r\nContent-Length: 5\r\n\r\nhello", begins: "HTTP/1.1 417 Expectation Failed\r\n", holds: &[], ..BAD },
    Case { name: "an empty expectation", request: "GET / HTTP/1.1\r\n{host}Expect:\r\n\r\n", begins: "HTTP/1.1 417 Expectation Failed\r\n", holds: &[], ..BAD },

    // Upgrades.
    Case { name: "an upgrade", request: "GET / HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", heard: &["Upgrade: websocket\r\n", "connection: upgrade\r\n"], answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello", begins: "HTTP/1.1 101 Switching Protocols\r\n", holds: &["Upgrade: websocket\r\n", "connection: upgrade\r\n"], ends: "\r\n\r\nhello", after: Close, closed: false, ..PLAIN },
    Case { name: "an upgrade of another verb to another protocol", request: "POST / HTTP/1.1\r\n{host}Connection: upgrade\r\nUpgrade: odd/1\r\nContent-Length: 0\r\n\r\n", heard: &["Upgrade: odd/1\r\n"], answer: "HTTP/1.1 101 Go\r\nUpgrade: odd/1\r\n\r\nraw", begins: "HTTP/1.1 101 Go\r\n", ends: "raw", ..PLAIN },
    Case { name: "an upgrade of head", request: "HEAD / HTTP/1.1\r\n{host}Connection: upgrade\r\nUpgrade: odd\r\n\r\n", heard: &["HEAD"], answer: "HTTP/1.1 101 Go\r\nUpgrade: odd\r\n\r\nraw", begins: "HTTP/1.1 101 Go\r\n", ends: "raw", ..PLAIN },
    Case { name: "an upgrade after 100", request: "GET / HTTP/1.1\r\n{host}Connection: upgrade\r\nUpgrade: odd\r\n\r\n", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Go\r\nUpgrade: odd\r\n\r\nraw", begins: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Go\r\n", ends: "raw", ..PLAIN },
    Case { name: "an upgrade that is declined", request: "GET / HTTP/1.1\r\n{host}Connection: upgrade\r\nUpgrade: odd\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nUpgrade: odd\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nok", lacks: &["pgrade"], ..PLAIN },
    wrong("a switch that nobody asked for", "HTTP/1.1 101 Go\r\nUpgrade: odd\r\n\r\n", SPLIT),
    Case { name: "an upgrade that Connection does not name", request: "GET / HTTP/1.1\r\n{host}Upgrade: websocket\r\n\r\n", unheard: &["pgrade"], ..PLAIN },
    Case { name: "an upgrade of 1.0", request: "GET / HTTP/1.0\r\n{host}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", unheard: &["pgrade"], closed: true, ..PLAIN },

    // Malformed requests.
    bad("no host", "GET / HTTP/1.1\r\n\r\n"),
    bad("no host in 1.0", "GET / HTTP/1.0\r\n\r\n"),
    bad("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    bad("two hosts", "GET / HTTP/1.1\r\n{host}Host: other.apps.test\r\n\r\n"),
    bad("the same host twice", "GET / HTTP/1.1\r\n{host}{host}\r\n"),
    bad("a host that differs from the target", "GET http://other.apps.test/ HTTP/1.1\r\n{host}\r\n"),
    bad("user data in the target", "GET http://user@case.apps.test/ HTTP/1.1\r\n{host}\r\n"),
    bad("a host with a path", "GET / HTTP/1.1\r\nHost: case.apps.test/x\r\n\r\n"),
    bad("a host with user data", "GET / HTTP/1.1\r\nHost: a@case.apps.test\r\n\r\n"),
    bad("a host with a word for a port", "GET / HTTP/1.1\r\nHost: case.apps.test:x\r\n\r\n"),
    bad("two hosts in one field", "GET / HTTP/1.1\r\nHost: case.apps.test, other\r\n\r\n"),
    bad("a folded host", "GET / HTTP/1.1\r\nHost: case.apps.test\r\n x\r\n\r\n"),
    bad("connect", "CONNECT case.apps.test:443 HTTP/1.1\r\n{host}\r\n"),
    bad("HTTP/0.9", "GET /\r\n\r\n"),
    bad("HTTP/2 in the request line", "GET / HTTP/2.0\r\n{host}\r\n"),
    bad("HTTP/1.2", "GET / HTTP/1.2\r\n{host}\r\n"),
    bad("a version in lower case", "GET / http/1.1\r\n{host}\r\n"),
    bad("a version of five parts", "GET / HTTP/1.10\r\n{host}\r\n"),
    bad("two spaces after the method", "GET  / HTTP/1.1\r\n{host}\r\n"),
    bad("two spaces before the version", "GET /  HTTP/1.1\r\n{host}\r\n"),
    bad("a space at the end of the line", "GET / HTTP/1.1 \r\n{host}\r\n"),
    bad("a space at its start", " GET / HTTP/1.1\r\n{host}\r\n"),
    bad("a tab in it", "GET\t/ HTTP/1.1\r\n{host}\r\n"),
    bad("a space in the target", "GET /a b HTTP/1.1\r\n{host}\r\n"),
    bad("a fragment in the target", "GET /a#b HTTP/1.1\r\n{host}\r\n"),
    bad("a control character in the target", "GET /a\u{1}b HTTP/1.1\r\n{host}\r\n"),
    bad("a target without a slash", "GET a HTTP/1.1\r\n{host}\r\n"),
    bad("a star for another method", "GET * HTTP/1.1\r\n{host}\r\n"),
    bad("another scheme", "GET ftp://case.apps.test/ HTTP/1.1\r\n{host}\r\n"),
    bad("a method with a bracket", "GE(T / HTTP/1.1\r\n{host}\r\n"),
    bad("no method", " / HTTP/1.1\r\n{host}\r\n"),
    bad("bare line feeds", "GET / HTTP/1.1\nHost: case.apps.test\n\n"),
    bad("one bare line feed", "GET / HTTP/1.1\r\nHost: case.apps.test\nx: y\r\n\r\n"),
    bad("a bare line feed at the end", "GET / HTTP/1.1\r\nHost: case.apps.test\r\n\n"),
    bad("a bare carriage return", "GET / HTTP/1.1\r\n{host}x: a\rb\r\n\r\n"),
    bad("a carriage return twice", "GET / HTTP/1.1\r\n{host}x: a\r\r\n\r\n"),
    bad("a zero byte", "GET / HTTP/1.1\r\n{host}x: a\0b\r\n\r\n"),
    bad("a folded line", "GET / HTTP/1.1\r\n{host}x: a\r\n b\r\n\r\n"),
    bad("a line folded with a tab", "GET / HTTP/1.1\r\n{host}x: a\r\n\tb\r\n\r\n"),
    bad("a folded first line", "GET / HTTP/1.1\r\n x: a\r\n{host}\r\n"),
    bad("a space before the colon", "GET / HTTP/1.1\r\n{host}x : a\r\n\r\n"),
    bad("no colon", "GET / HTTP/1.1\r\n{host}nonsense\r\n\r\n"),
    bad("no name", "GET / HTTP/1.1\r\n{host}: x\r\n\r\n"),
    bad("a name beyond ASCII", "GET / HTTP/1.1\r\n{host}\u{e9}: x\r\n\r\n"),
    bad("lengths that differ", "POST / HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    bad("lengths in one field", "POST / HTTP/1.1\r\n{host}Content-Length: 5, 5\r\n\r\nhello"),
    bad("a negative length", "POST / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"),
    bad("a length with a sign", "POST / HTTP/1.1\r\n{host}Content-Length: +5\r\n\r\nhello"),
    bad("a length in hexadecimal", "POST / HTTP/1.1\r\n{host}Content-Length: 0x5\r\n\r\nhello"),
    bad("a length with a space in it", "POST / HTTP/1.1\r\n{host}Content-Length: 5 5\r\n\r\nhello"),
    bad("a length that is no number", "POST / HTTP/1.1\r\n{host}Content-Length: five\r\n\r\nhello"),
    bad("a length without a digit", "POST / HTTP/1.1\r\n{host}Content-Length:\r\n\r\n"),
    bad("a length that nobody can count to", "POST / HTTP/1.1\r\n{host}Content-Length: 99999999999999999999\r\n\r\n"),
    bad("another coding", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"),
    bad("two codings", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    bad("chunks twice in one field", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    bad("chunks in two fields", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    bad("chunks and identity", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    bad("chunks in quotes", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    bad("something like chunks", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    bad("a control character before chunks", "POST / HTTP/1.1\r\n{host}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"),
    bad("an empty coding", "POST / HTTP/1.1\r\n{host}Transfer-Encoding:\r\n\r\n"),
    bad("chunks of 1.0", "POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    bad("chunks with a space before the colon", "POST / HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    bad("no HTTP at all", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\n\r\n"),
    bad("another protocol", "SSH-2.0-x\r\n\r\n"),

    // Broken chunks, with their head: no dyno hears of it.
    Case { name: "a chunk without a size", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n\r\nhello", ..BAD },
    Case { name: "a size that is no number", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nxyz\r\n", ..BAD },
    Case { name: "a size with a sign", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n-1\r\n", ..BAD },
    Case { name: "a size with a prefix", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", ..BAD },
    Case { name: "a size that overflows", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", ..BAD },
    Case { name: "a size with a bare line feed", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", ..BAD },
    Case { name: "a line feed in an extension", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", ..BAD },
    Case { name: "a chunk that is longer than its size", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n", ..BAD },
    Case { name: "a trailer that is none", request: "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\nnonsense\r\n\r\n", ..BAD },

    // Malformed answers.
    wrong("an answer that is no HTTP", "hello, world\r\n\r\n", SPLIT),
    wrong("an answer without a reason", "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", SPLIT),
    wrong("a status of two digits", "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", SPLIT),
    wrong("a status of four digits", "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n", SPLIT),
    wrong("a status of letters", "HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n", SPLIT),
    wrong("another version", "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", SPLIT),
    wrong("bare line feeds in an answer", "HTTP/1.1 200 OK\ncontent-length: 0\n\n", SPLIT),
    wrong("a bare line feed in a value", "HTTP/1.1 200 OK\r\nlocation: /\nset-cookie: evil=1\r\n\r\n", SPLIT),
    wrong("a bare carriage return in a value", "HTTP/1.1 200 OK\r\nlocation: /\rset-cookie: evil=1\r\n\r\n", SPLIT),
    wrong("a folded line in an answer", "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n", SPLIT),
    wrong("a space before the colon in an answer", "HTTP/1.1 200 OK\r\nx : a\r\n\r\n", SPLIT),
    wrong("a zero byte in an answer", "HTTP/1.1 200 OK\r\nx: a\0\r\n\r\n", SPLIT),
    wrong("another coding of an answer", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", SPLIT),
    wrong("chunks twice in an answer", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", SPLIT),
    wrong("lengths of an answer that differ", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", LIMIT),
    wrong("lengths of an answer in one field", "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nab", LIMIT),
    wrong("a negative length of an answer", "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nab", LIMIT),
    wrong("no answer", "", SPLIT),
    wrong("half a head", "HTTP/1.1 200 OK\r\ncontent-le", SPLIT),
];

/// Plays one case; says what was otherwise than expected.
async fn play(case: &Case) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, mut heard) = mpsc::unbounded_channel();
    let (wanted, answer, after) = (case.heard, case.answer, case.after);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut all = Vec::new();
            let whole = |all: &[u8]| {
                let text = String::from_utf8_lossy(all);
                text.contains("\r\n\r\n") && wanted.iter().all(|part| text.contains(part))
            };
            while !whole(&all) {
                match stream.read_buf(&mut all).await {
                    Ok(1..) => {}
                    _ => break,
                }
            }
            let _ = tell.send(String::from_utf8_lossy(&all).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
            if after == Keep {
                while stream.read_buf(&mut all).await.is_ok_and(|count| count > 0) {}
            }
        }
    });
    let (router, _control) = Router::start(Limits::default(), &[&app("case", &[address])]).await;
    let mut stream = router.send("").await;
    let request = case.request.replace("{host}", "host: case.apps.test\r\n");
    stream.write_all(request.as_bytes()).await.expect("the router reads");
    let (mut got, mut wrong) = (Vec::new(), Vec::new());
    let complete = |got: &[u8]| {
        let text = String::from_utf8_lossy(got);
        text.starts_with(case.begins) && text.ends_with(case.ends) && case.holds.iter().all(|part| text.contains(part))
    };
    let closed = timeout(LONG, async {
        while case.closed || !complete(&got) {
            if !stream.read_buf(&mut got).await.is_ok_and(|count| count > 0) {
                return true;
            }
        }
        false
    })
    .await
    .unwrap_or(!case.closed);
    let text = String::from_utf8_lossy(&got).into_owned();
    if !complete(&got) || closed != case.closed || case.lacks.iter().any(|part| text.contains(part)) {
        wrong.push(format!("the client got (closed: {closed}) {text:?}"));
    }
    let told = if case.heard.is_empty() {
        heard.try_recv().ok()
    } else {
        Some(soon(case.name, heard.recv()).await.unwrap_or_default())
    };
    let told = told.unwrap_or_default();
    let fits = match case.heard {
        [] => told.is_empty(),
        heard => heard.iter().all(|part| told.contains(part)) && !case.unheard.iter().any(|part| told.contains(part)),
    };
    if !fits {
        wrong.push(format!("the dyno heard {told:?}"));
    }
    wrong
}

#[tokio::test]
async fn every_case_goes_as_the_table_says() {
    let mut failed = Vec::new();
    for case in CASES {
        failed.extend(play(case).await.into_iter().map(|what| format!("{}: {what}", case.name)));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
