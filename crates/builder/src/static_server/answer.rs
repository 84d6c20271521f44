//! Answers one request with a file, a redirect or an error.
//!
//! Entity tags are digests of contents, computed once a file: times of files in an image say nothing, because layers
//! are made with one and the same time.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{self, HeaderName, HeaderValue},
};
use tokio::io::{AsyncRead, AsyncSeekExt, ReadBuf};

use super::{
    Error, content_type,
    locate::{Found, locate},
    settings::{Settings, matches},
};

/// Bytes read from a file at a time.
const BLOCK: usize = 64 * 1024;

/// A site that is served.
#[derive(Debug)]
pub(crate) struct Site {
    root: PathBuf,
    settings: Settings,
    tags: Mutex<HashMap<PathBuf, String>>,
}

impl Site {
    /// A site below the current folder.
    pub(super) fn open(settings: Settings) -> Result<Self, Error> {
        let root = PathBuf::from(&settings.root);
        match fs::canonicalize(&root) {
            Ok(root) if root.is_dir() => Ok(Self { root, settings, tags: Mutex::default() }),
            _ => Err(Error::Root(root)),
        }
    }

    /// The folder that is served.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Answers a request.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Content> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path();
        let mut response = match locate(&self.root, &self.settings, path) {
            Found::Malformed => plain(StatusCode::BAD_REQUEST),
            Found::Redirect(to, status) => redirect(&to, status, request.uri().query()),
            Found::Missing(None) => plain(StatusCode::NOT_FOUND),
            Found::Missing(Some(page)) => self.file(&page, StatusCode::NOT_FOUND, &HeaderMap::new()).await,
            Found::File(file) => self.file(&file, StatusCode::OK, request.headers()).await,
        };
        for (pattern, headers) in &self.settings.headers {
            if matches(pattern, path) {
                let valid = headers.iter().filter_map(|(name, value)| {
                    Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
                });
                response.headers_mut().extend(valid);
            }
        }
        if request.method() == Method::HEAD {
            let length = response.body().size_hint().exact().unwrap_or_default();
            response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
            *response.body_mut() = Content::Text(None);
        }
        response
    }

    async fn file(&self, path: &Path, status: StatusCode, asked: &HeaderMap) -> Response<Content> {
        let Ok((mut file, size, tag)) = self.open_file(path).await else { return plain(StatusCode::NOT_FOUND) };
        let mut headers = HeaderMap::new();
        if let Ok(tag) = HeaderValue::try_from(&tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0, must-revalidate"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type::of(&path.to_string_lossy())));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let same =
            |tags: &str| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*");
        let (mut status, mut start, mut length) = (status, 0, size);
        if text(header::IF_NONE_MATCH).is_some_and(same) {
            let mut response = Response::new(Content::Text(None));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            headers.remove(header::CONTENT_TYPE);
            *response.headers_mut() = headers;
            return response;
        }
        let still_same = text(header::IF_RANGE).is_none_or(|known| known == tag);
        match text(header::RANGE).filter(|_| still_same && status == StatusCode::OK).map(|asked| range(asked, size)) {
            Some(Range::Part(from, to)) => {
                (status, start, length) = (StatusCode::PARTIAL_CONTENT, from, to - from + 1);
                headers.insert(header::CONTENT_RANGE, value(&format!("bytes {from}-{to}/{size}")));
            }
            Some(Range::Outside) => {
                let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
                response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
                return response;
            }
            Some(Range::Whole) | None => {}
        }
        if start > 0 && file.seek(SeekFrom::Start(start)).await.is_err() {
            return plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let mut response = Response::new(Content::File { file: Box::new(file), left: length });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    async fn open_file(&self, path: &Path) -> io::Result<(tokio::fs::File, u64, String)> {
        let file = tokio::fs::File::open(path).await?;
        let size = file.metadata().await?.len();
        let known = self.tags.lock().ok().and_then(|tags| tags.get(path).cloned());
        let tag = match known {
            Some(tag) => tag,
            None => {
                let owned = path.to_owned();
                let tag = tokio::task::spawn_blocking(move || digest(&owned)).await.map_err(io::Error::other)??;
                if let Ok(mut tags) = self.tags.lock() {
                    tags.insert(path.to_owned(), tag.clone());
                }
                tag
            }
        };
        Ok((file, size, tag))
    }
}

fn digest(path: &Path) -> io::Result<String> {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut file, mut block) = (fs::File::open(path)?, vec![0; BLOCK]);
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => digest.update(&block[..read]),
        }
    }
    Ok(format!("\"{}\"", data_encoding::HEXLOWER.encode(&digest.finish().as_ref()[..16])))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

fn plain(status: StatusCode) -> Response<Content> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Content::Text(Some(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn redirect(to: &str, status: u16, query: Option<&str>) -> Response<Content> {
    let to = query.map_or_else(|| to.to_owned(), |query| format!("{to}?{query}"));
    let Ok(location) = HeaderValue::try_from(to) else { return plain(StatusCode::BAD_REQUEST) };
    let status = StatusCode::from_u16(status).ok().filter(|status| status.is_redirection());
    let mut response = plain(status.unwrap_or(StatusCode::MOVED_PERMANENTLY));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From one byte to another, both included.
    Part(u64, u64),
    /// Everything: no range, several, or one we do not understand (RFC 9110, 14.2 lets a server ignore them).
    Whole,
    /// Bytes that there are not.
    Outside,
}

fn range(asked: &str, size: u64) -> Range {
    let Some((from, to)) = asked.trim().strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Range::Whole;
    };
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from > to => Range::Whole,
        (Ok(from), _) if from >= size && (to.is_empty() || to.parse::<u64>().is_ok()) => Range::Outside,
        (Ok(from), Ok(to)) => Range::Part(from, to.min(size - 1)),
        (Ok(from), Err(_)) if to.is_empty() => Range::Part(from, size - 1),
        (Err(_), Ok(0)) if from.is_empty() => Range::Outside,
        (Err(_), Ok(last)) if from.is_empty() && size > 0 => Range::Part(size.saturating_sub(last), size - 1),
        _ => Range::Whole,
    }
}

/// A response's body.
pub(super) enum Content {
    /// A short text, or nothing.
    Text(Option<Bytes>),
    /// A file and how many bytes of it are still to be sent.
    File {
        /// Open at the next byte.
        file: Box<tokio::fs::File>,
        /// Bytes left.
        left: u64,
    },
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::File { left: 0, .. } => Poll::Ready(None),
            Self::File { file, left } => {
                let mut block = vec![0; usize::try_from(*left).unwrap_or(BLOCK).min(BLOCK)];
                let mut buffer = ReadBuf::new(&mut block);
                ready!(Pin::new(file.as_mut()).poll_read(context, &mut buffer))?;
                let read = buffer.filled().len();
                if read == 0 {
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                *left -= read as u64;
                block.truncate(read);
                Poll::Ready(Some(Ok(Frame::data(block.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(None) | Self::File { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Text(text) => text.as_ref().map_or(0, |text| text.len() as u64),
            Self::File { left, .. } => *left,
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn check(headers: &[(&str, &str)], path: &str, status: u16, body: &str) -> HeaderMap {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("a.txt"), "0123456789").expect("written");
        let root = folder.path().to_string_lossy().into_owned();
        let site = Site::open(Settings { root, ..Settings::default() }).expect("a site");
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = site.answer(&request.body(()).expect("a request")).await;
        assert_eq!(response.status().as_u16(), status, "{path} {headers:?}");
        let (parts, content) = response.into_parts();
        assert_eq!(content.collect().await.expect("a body").to_bytes(), body);
        parts.headers
    }

    #[tokio::test]
    async fn a_file_is_answered_whole_in_part_or_not_again() {
        let headers = check(&[], "/a.txt", 200, "0123456789").await;
        let tag = headers[header::ETAG].to_str().expect("text").to_owned();
        assert_eq!(headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        check(&[("if-none-match", &tag)], "/a.txt", 304, "").await;
        check(&[("if-none-match", "\"other\"")], "/a.txt", 200, "0123456789").await;
        let headers = check(&[("range", "bytes=2-4")], "/a.txt", 206, "234").await;
        assert_eq!(headers[header::CONTENT_RANGE], "bytes 2-4/10");
        check(&[("range", "bytes=-3")], "/a.txt", 206, "789").await;
        check(&[("range", "bytes=20-")], "/a.txt", 416, "416 Range Not Satisfiable\n").await;
        check(&[], "/b.txt", 404, "404 Not Found\n").await;
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        assert_eq!(range("bytes=0-", 10), Range::Part(0, 9));
        assert_eq!(range("bytes=5-100", 10), Range::Part(5, 9));
        assert_eq!(range("bytes=-100", 10), Range::Part(0, 9));
        for whole in ["bytes=5-2", "items=0-1", "bytes=a-b", "bytes=0-1,3-4", "bytes=-"] {
            assert_eq!(range(whole, 10), Range::Whole, "{whole}");
        }
        for outside in ["bytes=10-", "bytes=-0"] {
            assert_eq!(range(outside, 10), Range::Outside, "{outside}");
        }
        assert_eq!(range("bytes=0-", 0), Range::Outside);
    }
}
