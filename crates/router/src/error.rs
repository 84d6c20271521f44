//! Why a request failed: what happened (kind), whose fault it was (blame), and whether it may be tried again (retry).
//!
//! From that triple one `match`, [`Error::verdict`], makes everything that people see: code, severity, status, page.
//! Phases only make errors; they never choose a code, a status or a page.

use dozen_domain::codes::Code;

use crate::pages::Page;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No app answers to the host.
    NoSuchApp,
    /// The host is not of the app that the connection was opened for.
    Misdirected,
    /// The host is not named by the certificate that the connection was opened with.
    Uncertified,
    /// No route table is known yet.
    NoTable,
    /// The app is to be asked over HTTPS.
    Insecure,
    /// The app is in maintenance mode.
    Maintenance,
    /// Nothing was released yet.
    Blank,
    /// The app wants no web dynos.
    NoWebDynos,
    /// All web dynos have crashed.
    Crashed,
    /// Web dynos were starting for as long as a request may wait.
    Booting,
    /// Every web dyno refused connections lately, for as long as a request may wait.
    Quarantined,
    /// Too many requests wait for the app's answers.
    Backlog,
    /// Too many client connections are open.
    Connections,
    /// A dyno refused the connection.
    Refused,
    /// A dyno did not take the connection in time.
    ConnectTimeout,
    /// A dyno gave no byte of an answer in time.
    Unanswered,
    /// The connection ended before a byte of the response came.
    ClosedEarly,
    /// The connection ended in the middle.
    Closed,
    /// A client's HTTP/2 stream ended in a way that is not the client's leaving.
    Broken,
    /// Nothing moved for too long.
    Idle,
    /// A response that is not HTTP.
    Malformed,
    /// A response that breaks a limit.
    Restricted(Restriction),
    /// A request that is not HTTP, or breaks a limit.
    BadRequest(Flaw),
    /// Something that should not happen in the router or the system under it.
    Internal,
}

/// The limit that a response broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restriction {
    /// Content lengths that contradict each other, or are no number.
    ContentLength,
    /// A cookie over `router_cookie_bytes`.
    Cookie,
    /// A header line over `router_response_header_bytes`.
    Header,
    /// A status line over `router_status_line_bytes`.
    StatusLine,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The request line or a header breaks a rule or a limit.
    Header,
    /// The chunked encoding of the body is broken.
    Chunk,
    /// `Expect` holds something other than `100-continue`.
    Expect,
    /// The head did not come to its end in time.
    Slow,
}

/// Whose fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The client's.
    Client,
    /// The app's or its dyno's.
    Dyno,
    /// The router's.
    Router,
    /// Nobody's: the app's owner wants it so.
    Nobody,
}

/// What may be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nothing: the dyno may have seen the request.
    Never,
    /// Another dyno may be tried: this one saw nothing.
    OtherDyno,
    /// A kept connection was stale: a fresh one may be tried.
    FreshConnection,
}

/// A failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    pub(crate) blame: Blame,
    pub(crate) retry: Retry,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ({:?})", self.kind, self.blame)
    }
}

impl std::error::Error for Error {}

/// How loud an access line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// As the owner wants it.
    Info,
    /// The client's doing.
    Warning,
    /// Something is wrong.
    Error,
}

impl Severity {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What people see of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The code to look up; none for a host that is nobody's.
    pub(crate) code: Option<Code>,
    pub(crate) severity: Severity,
    /// Status of the answer and of the access line; none when the router itself cut the connection.
    pub(crate) status: Option<u16>,
    pub(crate) page: Page,
    /// Side whose socket ended, for the `sock` field.
    pub(crate) sock: Option<&'static str>,
    /// What follows the code's description.
    pub(crate) detail: &'static str,
    /// The `cause` field.
    pub(crate) cause: Option<&'static str>,
}

impl Error {
    pub(crate) const fn client(kind: Kind) -> Self {
        Self { kind, blame: Blame::Client, retry: Retry::Never }
    }

    pub(crate) const fn dyno(kind: Kind) -> Self {
        Self { kind, blame: Blame::Dyno, retry: Retry::Never }
    }

    pub(crate) const fn router(kind: Kind) -> Self {
        Self { kind, blame: Blame::Router, retry: Retry::Never }
    }

    pub(crate) const fn nobody(kind: Kind) -> Self {
        Self { kind, blame: Blame::Nobody, retry: Retry::Never }
    }

    pub(crate) const fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The one place where a failure becomes a code, a status and a page.
    pub(crate) fn verdict(&self) -> Verdict {
        use Blame::{Client, Router};
        use Severity::{Error, Info, Warning};
        let plain = Verdict {
            code: Some(Code::H99),
            severity: Error,
            status: Some(503),
            page: Page::ApplicationError,
            sock: None,
            detail: "",
            cause: None,
        };
        let coded = |code| Verdict { code: Some(code), ..plain };
        match (self.kind, self.blame) {
            (Kind::NoSuchApp, _) => Verdict { code: None, status: Some(404), page: Page::NoSuchApp, ..plain },
            (Kind::Insecure, _) => {
                Verdict { code: None, severity: Info, status: Some(308), page: Page::Moved, ..plain }
            }
            (Kind::Misdirected, _) => Verdict { status: Some(421), page: Page::Misdirected, ..coded(Code::H31) },
            (Kind::Uncertified, _) => Verdict { status: Some(495), page: Page::Uncertified, ..coded(Code::H32) },
            (Kind::Maintenance, _) => Verdict { severity: Info, page: Page::Maintenance, ..coded(Code::H80) },
            // Old lines of H81 say 503 and a reading of 2026 says 502. 503 is right by the meaning of the two: the
            // app is not there yet, nothing upstream answered badly, and the client may come again.
            (Kind::Blank, _) => Verdict { severity: Info, page: Page::Blank, ..coded(Code::H81) },
            (Kind::Crashed, _) => coded(Code::H10),
            (Kind::Backlog, _) => coded(Code::H11),
            (Kind::Unanswered, _) => coded(Code::H12),
            (Kind::NoWebDynos, _) => coded(Code::H14),
            (Kind::Malformed, _) => coded(Code::H17),
            (Kind::ConnectTimeout, _) => coded(Code::H19),
            (Kind::Booting, _) => coded(Code::H20),
            (Kind::Refused, _) => coded(Code::H21),
            (Kind::Connections, _) => coded(Code::H22),
            (Kind::Closed | Kind::ClosedEarly, Router) => Verdict { status: None, ..coded(Code::H24) },
            (Kind::Closed | Kind::ClosedEarly, Client) => {
                Verdict { severity: Warning, status: Some(499), sock: Some("client"), ..coded(Code::H27) }
            }
            (Kind::ClosedEarly, _) => coded(Code::H13),
            (Kind::Closed, _) => Verdict { sock: Some("backend"), ..coded(Code::H18) },
            (Kind::Idle, Client) | (Kind::BadRequest(Flaw::Slow), _) => {
                Verdict { severity: Warning, status: Some(499), page: Page::TooSlow, ..coded(Code::H28) }
            }
            // Whose doing it was, the stream's end does not say.
            (Kind::Broken, _) => Verdict { status: Some(499), ..coded(Code::H33) },
            (Kind::Idle, _) => coded(Code::H15),
            (Kind::Restricted(restriction), _) => {
                let detail = match restriction {
                    Restriction::ContentLength => ": invalid content length",
                    Restriction::Cookie => ": oversized cookie",
                    Restriction::Header => ": oversized header",
                    Restriction::StatusLine => ": oversized status line",
                };
                Verdict { status: Some(502), detail, ..coded(Code::H25) }
            }
            (Kind::BadRequest(flaw), _) => {
                let (status, page, cause) = match flaw {
                    Flaw::Header | Flaw::Slow => (400, Page::BadRequest, "bad header"),
                    Flaw::Chunk => (400, Page::BadRequest, "bad chunk"),
                    Flaw::Expect => (417, Page::ExpectationFailed, "unsupported expect header value"),
                };
                Verdict { status: Some(status), page, cause: Some(cause), ..coded(Code::H26) }
            }
            (Kind::Quarantined, _) => coded(Code::H34),
            (Kind::NoTable | Kind::Internal, _) => plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: Error, code: Code, severity: Severity, status: Option<u16>) {
        let verdict = error.verdict();
        assert_eq!((verdict.code, verdict.severity, verdict.status), (Some(code), severity, status), "{error}");
    }

    #[test]
    fn the_side_that_is_to_blame_decides_the_code() {
        check(Error::client(Kind::Closed), Code::H27, Severity::Warning, Some(499));
        check(Error::dyno(Kind::Closed), Code::H18, Severity::Error, Some(503));
        check(Error::dyno(Kind::ClosedEarly), Code::H13, Severity::Error, Some(503));
        check(Error::router(Kind::Closed), Code::H24, Severity::Error, None);
        check(Error::client(Kind::Idle), Code::H28, Severity::Warning, Some(499));
        check(Error::dyno(Kind::Idle), Code::H15, Severity::Error, Some(503));
        check(Error::client(Kind::Broken), Code::H33, Severity::Error, Some(499));
        check(Error::client(Kind::BadRequest(Flaw::Slow)), Code::H28, Severity::Warning, Some(499));
    }

    #[test]
    fn restrictions_and_flaws_have_their_own_statuses() {
        check(Error::dyno(Kind::Restricted(Restriction::Cookie)), Code::H25, Severity::Error, Some(502));
        check(Error::client(Kind::BadRequest(Flaw::Expect)), Code::H26, Severity::Error, Some(417));
        check(Error::client(Kind::BadRequest(Flaw::Chunk)), Code::H26, Severity::Error, Some(400));
        check(Error::client(Kind::Misdirected), Code::H31, Severity::Error, Some(421));
        check(Error::client(Kind::Uncertified), Code::H32, Severity::Error, Some(495));
        check(Error::nobody(Kind::Maintenance), Code::H80, Severity::Info, Some(503));
        check(Error::nobody(Kind::Blank), Code::H81, Severity::Info, Some(503));
    }

    #[test]
    fn a_host_that_is_nobodys_has_no_code() {
        let verdict = Error::client(Kind::NoSuchApp).verdict();
        assert_eq!((verdict.code, verdict.status), (None, Some(404)));
    }
}
