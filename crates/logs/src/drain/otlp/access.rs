//! The router's line of a request, read back: what metrics and spans are made of.

/// One request as the router tells of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Access<'a> {
    text: &'a str,
    /// Seconds from the beginning to the end; `None` for a request that never reached a dyno.
    pub(crate) seconds: Option<f64>,
}

impl<'a> Access<'a> {
    /// Reads a line; `None` when it is none of a request.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut access = Self { text, seconds: None };
        access.get("method")?;
        let milliseconds = |name| access.get(name)?.strip_suffix("ms")?.parse::<f64>().ok();
        let service: Option<f64> = milliseconds("service");
        access.seconds = service.map(|service| (service + milliseconds("connect").unwrap_or(0.0)) / 1_000.0);
        Some(access)
    }

    /// A field's value without its quotes; `None` when there is no such field.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        fields(self.text).find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// The same; empty when there is none.
    pub(crate) fn text(&self, name: &str) -> &'a str {
        self.get(name).unwrap_or_default()
    }
}

/// Pairs of `name=value` or `name="value"`; within quotes there are no further ones.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = rest.trim_start_matches(' ').split_once('=')?;
        let (value, more) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        rest = more;
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_stands_in_quotes() {
        let line = "at=error code=H12 desc=\"Request timeout\" method=GET path=\"/?a= status=200\" host=shop.localhost \
                    request_id=1-2 fwd=\"1.2.3.4, 5.6.7.8\" dyno= connect=1ms service=699ms status=503 bytes=0";
        let access = Access::read(line).expect("a request");
        let all = ["code", "desc", "path", "fwd", "dyno", "status", "bytes"].map(|name| access.text(name));
        assert_eq!(all, ["H12", "Request timeout", "/?a= status=200", "1.2.3.4, 5.6.7.8", "", "503", "0"]);
        assert_eq!((access.seconds, access.get("sock")), (Some(0.7), None));
        assert_eq!(Access::read("at=error code=H14 method=GET dyno= connect= service=").expect("one").seconds, None);
        assert_eq!(Access::read("Shutting down"), None);
    }
}
