//! `static.json`, the settings file of sites of plain files.
//!
//! Keys as in the classic static buildpack: `root`, `clean_urls`, `routes`, `redirects`, `error_page`, `headers`. Others
//! (`https_only`, `proxies`, ...) belong to a router or a proxy and are passed over.

use std::collections::BTreeMap;

use serde::Deserialize;

/// How a site is served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// The folder to serve, relative to the app.
    pub(crate) root: String,
    /// `/about` answers `about.html`.
    pub(crate) clean_urls: bool,
    /// The file answered, with status 404, for what is not there.
    pub(crate) error_page: Option<String>,
    /// Files answered for paths where no file is, by pattern: `"/**": "index.html"`.
    pub(crate) routes: BTreeMap<String, String>,
    /// Other addresses for paths, by pattern.
    pub(crate) redirects: BTreeMap<String, Redirect>,
    /// Response headers by pattern.
    pub(crate) headers: BTreeMap<String, BTreeMap<String, String>>,
}

/// Where a path has gone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Redirect {
    /// The new address.
    pub(crate) url: String,
    /// 301 unless said otherwise.
    #[serde(default = "moved_permanently")]
    pub(crate) status: u16,
}

fn moved_permanently() -> u16 {
    301
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "public_html".to_owned(),
            clean_urls: false,
            error_page: None,
            routes: BTreeMap::new(),
            redirects: BTreeMap::new(),
            headers: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads `static.json`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let outside = |path: &str| path.split('/').any(|part| part == "..");
        if outside(&settings.root)
            || settings.root.starts_with('/')
            || settings.error_page.as_deref().is_some_and(outside)
        {
            return Err("root and error_page must lie inside the app".to_owned());
        }
        Ok(settings)
    }
}

/// Says whether a pattern (`*` within a segment, `**` over segments) matches a path; both start with `/`.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    globset::GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .is_ok_and(|glob| glob.compile_matcher().is_match(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_classic_defaults() {
        assert_eq!(Settings::parse("{}"), Ok(Settings::default()));
        let settings = Settings::parse(r#"{"root": "dist", "routes": {"/**": "index.html"}, "https_only": true}"#);
        let settings = settings.expect("valid");
        assert_eq!((settings.root.as_str(), settings.routes.len()), ("dist", 1));
        assert!(Settings::parse(r#"{"root": "../etc"}"#).is_err());
        assert!(Settings::parse("{").is_err());
    }

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("/**", "/a/b") && matches("/*.html", "/a.html") && matches("/a/**", "/a/b/c"));
        assert!(!matches("/*.html", "/a/b.html") && !matches("/a", "/b"));
    }
}
