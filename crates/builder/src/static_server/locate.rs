//! From a request's path to a file below the root. Pure but for asking which files there are.

use std::path::{Path, PathBuf};

use super::settings::{Settings, matches};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A file, to be answered with status 200.
    File(PathBuf),
    /// Another address and the status that says so.
    Redirect(String, u16),
    /// Nothing; the file that says so, if there is one.
    Missing(Option<PathBuf>),
    /// The path is no path.
    Malformed,
}

/// Finds what a path (as in the request line, without its query) leads to.
pub(super) fn locate(root: &Path, settings: &Settings, raw: &str) -> Found {
    let Some(path) = decode(raw) else { return Found::Malformed };
    for (pattern, redirect) in &settings.redirects {
        if matches(pattern, &path) {
            return Found::Redirect(redirect.url.clone(), redirect.status);
        }
    }
    let Some(inner) = safe(&path) else { return missing(root, settings) };
    let full = root.join(&inner);
    if full.is_file() && !path.ends_with('/') {
        if settings.clean_urls && path.ends_with(".html") {
            let clean = raw.strip_suffix("index.html").or_else(|| raw.strip_suffix(".html")).unwrap_or(raw);
            return Found::Redirect(local(clean), 301);
        }
        return within(root, full, settings);
    }
    let index = full.join("index.html");
    if index.is_file() {
        return if path.ends_with('/') {
            within(root, index, settings)
        } else {
            Found::Redirect(local(&format!("{raw}/")), 301)
        };
    }
    if settings.clean_urls {
        let page = root.join(format!("{}.html", inner.trim_end_matches('/')));
        if page.is_file() {
            return within(root, page, settings);
        }
    }
    for (pattern, file) in &settings.routes {
        let target = root.join(file.trim_start_matches('/'));
        if matches(pattern, &path) && target.is_file() {
            return within(root, target, settings);
        }
    }
    missing(root, settings)
}

/// Two slashes in front would name another host.
fn local(path: &str) -> String {
    format!("/{}", path.trim_start_matches(['/', '\\']))
}

fn missing(root: &Path, settings: &Settings) -> Found {
    let page = settings.error_page.as_deref().unwrap_or("404.html");
    let page = root.join(page.trim_start_matches('/'));
    Found::Missing(page.is_file().then_some(page))
}

/// A link may lead anywhere in the app, but not out of the folder that is served.
fn within(root: &Path, file: PathBuf, settings: &Settings) -> Found {
    match (root.canonicalize(), file.canonicalize()) {
        (Ok(root), Ok(real)) if real.starts_with(&root) => Found::File(file),
        _ => missing(root, settings),
    }
}

/// Percent-decodes; nothing for what is not UTF-8 or holds a NUL.
fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let path = String::from_utf8(bytes).ok()?;
    (path.starts_with('/') && !path.contains('\0')).then_some(path)
}

/// The path without its slash in front; nothing when it climbs or names a hidden file. `.well-known` is there to be seen.
fn safe(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let hidden = |part: &&str| part.starts_with('.') && *part != ".well-known";
    (!parts.iter().any(hidden) && !path.contains('\\')).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn site() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("site");
        for file in ["index.html", "about.html", "a b.txt", "docs/index.html", ".env", ".well-known/x", "404.html"] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, file).expect("written");
        }
        fs::write(folder.path().join("secret"), "secret").expect("written");
        std::os::unix::fs::symlink("../secret", root.join("link")).expect("linked");
        folder
    }

    fn check(settings: &Settings, cases: &[(&str, &str)]) {
        let folder = site();
        let root = folder.path().join("site");
        for (path, expected) in cases {
            let found = match locate(&root, settings, path) {
                Found::File(file) => file.strip_prefix(&root).expect("inside").display().to_string(),
                Found::Redirect(url, status) => format!("{status} {url}"),
                Found::Missing(page) => format!("404 {}", page.is_some()),
                Found::Malformed => "400".to_owned(),
            };
            assert_eq!(found, *expected, "{path}");
        }
    }

    #[test]
    fn files_and_indexes_are_found() {
        check(
            &Settings::default(),
            &[
                ("/", "index.html"),
                ("/about.html", "about.html"),
                ("/about", "404 true"),
                ("/a%20b.txt", "a b.txt"),
                ("/docs", "301 /docs/"),
                ("//docs", "301 /docs/"),
                ("/docs/", "docs/index.html"),
                ("/.well-known/x", ".well-known/x"),
            ],
        );
    }

    #[test]
    fn nothing_outside_the_root_is_found() {
        let nothing = "404 true";
        check(
            &Settings::default(),
            &[
                ("/../secret", nothing),
                ("/docs/../../secret", nothing),
                ("/%2e%2e/secret", nothing),
                ("/..%2fsecret", nothing),
                ("/..\\secret", nothing),
                ("/link", nothing),
                ("/.env", nothing),
                ("/%00", "400"),
                ("/%zz", "400"),
                ("*", "400"),
            ],
        );
    }

    #[test]
    fn clean_urls_routes_and_redirects_work_as_set() {
        let settings = Settings::parse(
            r#"{"clean_urls": true, "routes": {"/app/**": "index.html"}, "redirects": {"/old": {"url": "/new"}}}"#,
        );
        check(
            &settings.expect("valid"),
            &[
                ("/about", "about.html"),
                ("/about.html", "301 /about"),
                ("/app/x/y", "index.html"),
                ("/old", "301 /new"),
                ("/other", "404 true"),
            ],
        );
    }
}
