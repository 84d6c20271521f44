//! The plain pages that the router shows in place of an app's answer.
//!
//! A page says what a visitor can understand and what the owner can do; the code and its cause are in the app's logs
//! alone. An owner's own page (`ERROR_PAGE_URL`, `MAINTENANCE_PAGE_URL`) is shown in a frame, so that the router never
//! fetches anything while it answers.

use bytes::Bytes;

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// Something went wrong in the app or on the way to it.
    ApplicationError,
    /// The host is nobody's.
    NoSuchApp,
    /// The same is to be had over HTTPS.
    Moved,
    /// The connection was opened for another host.
    Misdirected,
    /// The connection's certificate does not name the host.
    Uncertified,
    /// The owner has put the app away for a while.
    Maintenance,
    /// Nothing was deployed yet.
    Blank,
    /// The request breaks HTTP's rules.
    BadRequest,
    /// The request did not come in time.
    TooSlow,
    /// The request expects what the router cannot do.
    ExpectationFailed,
}

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
const STYLE: &str = "</title>\n<style>\nhtml{height:100%;font:16px/1.6 system-ui,sans-serif;color:#3a3347;background:#fff}\n\
main{max-width:34rem;margin:14vh auto;padding:0 1.5rem}\nh1{font-size:1.5rem;font-weight:600}\np{color:#605a6e}\n\
code{font-size:.9em;background:#f3f1f7;padding:.1em .35em;border-radius:3px}\n</style>\n</head>\n<body>\n<main>\n<h1>";

impl Page {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ApplicationError => (
                "Application error",
                "<p>This app could not answer your request. Please try again in a moment.</p>\n\
                 <p>If it is yours, its logs say why: <code>heroku logs --tail</code></p>",
            ),
            Self::NoSuchApp => (
                "No such app",
                "<p>No app answers at this address. It may have been renamed or removed, or its domain is not set up yet.</p>",
            ),
            Self::Moved => ("Moved", "<p>This address is served over HTTPS.</p>"),
            Self::Misdirected => (
                "Misdirected request",
                "<p>This connection was opened for another address. A new one to the address that you want will do.</p>",
            ),
            Self::Uncertified => (
                "Certificate mismatch",
                "<p>The certificate of this connection is not one for the address that you want.</p>\n\
                 <p>If the app is yours: <code>heroku certs</code></p>",
            ),
            Self::Maintenance => {
                ("Offline for maintenance", "<p>This app is being worked on. Please come back in a while.</p>")
            }
            Self::Blank => (
                "Nothing here, yet",
                "<p>This app was created, and nothing has been deployed to it so far.</p>\n\
                 <p>If it is yours: <code>git push heroku main</code></p>",
            ),
            Self::BadRequest => ("Bad request", "<p>This request is not one that can be passed on to an app.</p>"),
            Self::TooSlow => ("Request timeout", "<p>This request did not arrive in time. Please try again.</p>"),
            Self::ExpectationFailed => {
                ("Expectation failed", "<p>Of all expectations, only <code>100-continue</code> can be met here.</p>")
            }
        }
    }

    /// The built-in page, or the owner's in a frame around `own`.
    pub(crate) fn html(self, own: Option<&str>) -> Bytes {
        let (title, text) = self.words();
        match own.filter(|url| url.starts_with("http://") || url.starts_with("https://")) {
            Some(url) => Bytes::from(framed(title, url)),
            None => Bytes::from([HEAD, title, STYLE, title, "</h1>\n", text, "\n</main>\n</body>\n</html>\n"].concat()),
        }
    }
}

fn framed(title: &str, url: &str) -> String {
    let mut page = [
        HEAD,
        title,
        "</title>\n<style>\nhtml,body,iframe{margin:0;border:0;padding:0;width:100%;height:100%}\n</style>\n",
    ]
    .concat();
    page.push_str("</head>\n<body>\n<iframe src=\"");
    for character in url.chars() {
        match character {
            '"' => page.push_str("&quot;"),
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            _ => page.push(character),
        }
    }
    page.push_str("\"></iframe>\n</body>\n</html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owners_page_is_framed_and_cannot_leave_the_attribute() {
        let page = Page::ApplicationError.html(Some("https://x.example/\"><script>"));
        let page = String::from_utf8_lossy(&page);
        assert!(page.contains("<iframe src=\"https://x.example/&quot;&gt;&lt;script&gt;\">"), "{page}");
    }

    #[test]
    fn a_url_of_another_scheme_is_passed_over() {
        let page = Page::Maintenance.html(Some("javascript:alert(1)"));
        assert_eq!(page, Page::Maintenance.html(None));
    }
}
