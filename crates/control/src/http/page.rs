//! Pagination by the `Range` header: `version ..; max=15, order=desc`.
//!
//! Read leniently, as clients write it: options in any order, separated by `;` or `,`, spaces anywhere, an empty header.
//! A page that is followed by another is answered 206 with `Next-Range`; the last one, or the only one, is 200, because
//! the official client goes on for as long as it sees 206.

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;

use super::answer::Reply;
use crate::{ops::Error, state::Context, store::Window};

const NEXT_RANGE: HeaderName = HeaderName::from_static("next-range");
const DEFAULT: usize = 200; // items a page (platform API reference, ranges)
const MOST: usize = 1_000; // the same

/// What a list is sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A number: a release's version.
    Number(u64),
    /// Anything else.
    Text(String),
}

impl Key {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A name by which a list can be sorted, and how to read it off an item. Its values must be unique within the list.
pub type Sort<T> = (&'static str, fn(&T) -> Key);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Start {
    value: String,
    exclusive: bool,
}

/// A parsed `Range` header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    key: Option<String>,
    start: Option<Start>,
    end: Option<String>,
    max: Option<usize>,
    descending: bool,
}

impl Range {
    /// Reads a header. What makes no sense is passed over.
    pub fn parse(text: &str) -> Self {
        let mut range = Self::default();
        for (index, part) in text.split([';', ',']).map(str::trim).enumerate() {
            if let Some((name, value)) = part.split_once('=') {
                match (name.trim().to_ascii_lowercase().as_str(), value.trim()) {
                    ("max", value) => range.max = value.parse().ok(),
                    ("order", value) => range.descending = value.eq_ignore_ascii_case("desc"),
                    _ => {}
                }
            } else if index == 0 && !part.is_empty() {
                let (key, bounds) = part.split_once(char::is_whitespace).unwrap_or((part, ".."));
                range.key = Some(key.to_owned());
                let (start, end) = bounds.trim().split_once("..").unwrap_or((bounds.trim(), ""));
                let exclusive = start.starts_with(']');
                let value = start.trim_start_matches([']', '[']);
                range.start = (!value.is_empty()).then(|| Start { value: value.to_owned(), exclusive });
                let end = end.trim_end_matches([']', '[']);
                range.end = (!end.is_empty()).then(|| end.to_owned());
            }
        }
        range
    }

    /// The part of a list that [`Range::page`] needs in place of the whole: the page, and one item more at either end.
    ///
    /// # Errors
    /// As [`Range::page`].
    pub fn window<T>(&self, sorts: &[Sort<T>]) -> Result<Window, Error> {
        let (key, _) = self.sort(sorts)?;
        let (start, end) = (self.start.as_ref().map(|start| start.value.clone()), self.end.clone());
        let (from, to) = if self.descending { (end, start) } else { (start, end) };
        let rows = i64::try_from(self.most() + 2).unwrap_or(i64::MAX);
        Ok(Window { key, from, to, descending: self.descending, rows })
    }

    fn most(&self) -> usize {
        self.max.unwrap_or(DEFAULT).clamp(1, MOST)
    }

    fn sort<T>(&self, sorts: &[Sort<T>]) -> Result<Sort<T>, Error> {
        let named = self.key.as_deref().and_then(|key| sorts.iter().find(|(name, _)| *name == key));
        match (named, &self.start, sorts.first()) {
            (Some(sort), ..) | (None, None, Some(sort)) => Ok(*sort),
            _ => {
                let names = sorts.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                Err(Error::BadRequest(format!("Range is not possible by this key; use one of: {names}.")))
            }
        }
    }

    /// Cuts the page out of a whole list, or of the part of it that [`Range::window`] is.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when it continues by a key that this list cannot be sorted by.
    pub fn page<T>(&self, mut items: Vec<T>, sorts: &[Sort<T>]) -> Result<Page<T>, Error> {
        let (name, key) = self.sort(sorts)?;
        items.sort_by_key(key);
        if self.descending {
            items.reverse();
        }
        let parse = |text: &str, like: &T| match key(like) {
            Key::Number(_) => text.parse().map_or_else(|_| Key::from(text), Key::Number),
            Key::Text(_) => Key::from(text),
        };
        let before = |one: &Key, other: &Key| if self.descending { one > other } else { one < other };
        if let Some(start) = &self.start {
            items.retain(|item| {
                let (own, start_key) = (key(item), parse(&start.value, item));
                before(&start_key, &own) || (!start.exclusive && own == start_key)
            });
        }
        if let Some(end) = &self.end {
            items.retain(|item| !before(&parse(end, item), &key(item)));
        }
        let max = self.most();
        let more = items.len() > max;
        items.truncate(max);
        let order = if self.descending { ", order=desc" } else { "" };
        let ends = items.first().zip(items.last()).map(|(first, last)| (key(first).text(), key(last).text()));
        let content = ends.as_ref().map(|(first, last)| format!("{name} {first}..{last}"));
        let next = ends.filter(|_| more).map(|(_, last)| format!("{name} ]{last}..; max={max}{order}"));
        let accept = sorts.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        Ok(Page { items, content, next, accept })
    }
}

impl FromRequestParts<Context> for Range {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Context) -> Result<Self, Self::Rejection> {
        let text = parts.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        Ok(text.map(Self::parse).unwrap_or_default())
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    items: Vec<T>,
    content: Option<String>,
    next: Option<String>,
    accept: String,
}

impl<T> Page<T> {
    /// Converts the items.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        let items = self.items.into_iter().map(convert).collect();
        Page { items, content: self.content, next: self.next, accept: self.accept }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let status = if self.next.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut response = Reply::with(status, &self.items).into_response();
        let headers: &mut HeaderMap = response.headers_mut();
        let fields = [
            (header::ACCEPT_RANGES, Some(self.accept)),
            (header::CONTENT_RANGE, self.content),
            (NEXT_RANGE, self.next),
        ];
        for (name, value) in fields {
            // A key with characters that no header may hold is left out; the page itself is whole.
            if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORTS: &[Sort<u64>] = &[("version", |n| Key::Number(*n)), ("id", |n| Key::Text(format!("{n:03}")))];

    fn check(header: &str, items: &[u64], next: Option<&str>) {
        let page = Range::parse(header).page((1..=12).collect(), SORTS).expect(header);
        assert_eq!(page.items, items, "{header:?}");
        assert_eq!(page.next.as_deref(), next, "{header:?}");
    }

    #[test]
    fn headers_are_read_as_clients_write_them() {
        let all: Vec<u64> = (1..=12).collect();
        check("", &all, None);
        check("version ..", &all, None);
        check("id ..; max=1000;", &all, None);
        check("version ..; max=2, order=desc", &[12, 11], Some("version ]11..; max=2, order=desc"));
        check("version ..; order=desc,max=1", &[12], Some("version ]12..; max=1, order=desc"));
        check("version ..; order=desc", &all.iter().rev().copied().collect::<Vec<_>>(), None);
        check("version..;max=2", &[1, 2], Some("version ]2..; max=2"));
        check("  id  ..  ; max = 3 ", &[1, 2, 3], Some("id ]003..; max=3"));
        check("nonsense", &all, None);
        check("version ..; max=x", &all, None);
    }

    #[test]
    fn next_range_leads_through_the_whole_list_once() {
        for order in ["", ", order=desc"] {
            let mut seen = Vec::new();
            let mut header = Some(format!("version ..; max=5{order}"));
            while let Some(text) = header {
                let page = Range::parse(&text).page((1..=12).collect(), SORTS).expect("a page");
                seen.extend(page.items);
                header = page.next;
            }
            seen.sort_unstable();
            assert_eq!(seen, (1..=12).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn bounds_are_inclusive_unless_they_say_otherwise() {
        check("version 10..", &[10, 11, 12], None);
        check("version ]10..", &[11, 12], None);
        check("version 2..4", &[2, 3, 4], None);
        check("version 4..2; order=desc", &[4, 3, 2], None);
    }

    #[test]
    fn a_page_cannot_go_on_by_an_unknown_key() {
        assert!(Range::parse("size 10..").page(vec![1], SORTS).is_err());
    }
}
