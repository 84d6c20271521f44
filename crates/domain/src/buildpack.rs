//! References to buildpacks as people write them, and what a build is asked to do (`spec.json`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Names of the buildpacks that are built in, in the order in which detection asks them (Dev Center: buildpacks,
/// "Buildpack detection": Node.js before Python).
pub const BUILT_IN: &[&str] = &["nodejs", "python", "rust", "go", "static", "procfile"];

/// Where a buildpack comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// One that is built in, by its name: `python`, `nodejs`, `rust`, `go`, `static`, `procfile`.
    BuiltIn(String),
    /// A git repository: its URL and, after `#`, a branch, tag or commit.
    Git {
        /// The repository's URL.
        url: String,
        /// Branch, tag or commit.
        revision: Option<String>,
    },
    /// A gzipped tarball.
    Tarball {
        /// Where it is.
        url: String,
        /// What the file's SHA-256 must be, 64 hexadecimal digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// A folder on the platform's machine.
    Path(String),
}

/// A text that names no buildpack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A short name that is not built in.
    #[error(
        "there is no built-in buildpack \"{0}\"; use one of nodejs, python, rust, go, static, procfile, or the URL of a buildpack"
    )]
    Unknown(String),
    /// Neither name nor URL.
    #[error(
        "\"{0}\" is no buildpack; use a built-in name, the URL of a git repository or of a .tgz, or an absolute path"
    )]
    Shape(String),
    /// What follows the `#` of a tarball's URL is no checksum.
    #[error("\"#{0}\" is no checksum of a tarball; write #sha256: and 64 hexadecimal digits, or leave it out")]
    Checksum(String),
}

impl FromStr for Reference {
    type Err = Invalid;

    /// Accepts `heroku/python`, `urn:buildpack:heroku/python`, `python`, `https://…​.git#v2`, `git@host:path`,
    /// `https://…​.tgz`, `https://…​.tgz#sha256:…`, `/a/folder` and `file:///a/folder`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let shape = || Invalid::Shape(text.to_owned());
        let name = text.strip_prefix("urn:buildpack:").unwrap_or(text);
        if text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(shape());
        }
        if let Some(path) = text.strip_prefix("file://").or(text.starts_with('/').then_some(text)) {
            return if path.starts_with('/') { Ok(Self::Path(path.to_owned())) } else { Err(shape()) };
        }
        let (address, revision) = match name.split_once('#') {
            Some((address, revision)) if !revision.is_empty() => (address, Some(revision.to_owned())),
            Some((address, _)) => (address, None),
            None => (name, None),
        };
        if let Some((scheme, _)) = address.split_once("://") {
            let tarball = [".tgz", ".tar.gz"].iter().any(|end| address.split('?').next().unwrap_or("").ends_with(end));
            return match scheme {
                "http" | "https" if tarball => {
                    let sha256 = revision.map(checksum).transpose()?;
                    Ok(Self::Tarball { url: address.to_owned(), sha256 })
                }
                "http" | "https" | "git" | "ssh" => Ok(Self::Git { url: address.to_owned(), revision }),
                _ => Err(shape()),
            };
        }
        if address.split_once(':').is_some_and(|(host, _)| host.contains('@')) {
            return Ok(Self::Git { url: address.to_owned(), revision });
        }
        let short = name.strip_prefix("heroku/").or_else(|| name.strip_prefix("dozen/")).unwrap_or(name);
        let short = match short {
            "node" | "node.js" => "nodejs",
            other => other,
        };
        if BUILT_IN.contains(&short) {
            Ok(Self::BuiltIn(short.to_owned()))
        } else if short.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b)) {
            Err(Invalid::Unknown(name.to_owned()))
        } else {
            Err(shape())
        }
    }
}

fn checksum(fragment: String) -> Result<String, Invalid> {
    let digits = fragment.strip_prefix("sha256:").or(fragment.strip_prefix("sha256=")).map(str::to_ascii_lowercase);
    let good = |digits: &String| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    digits.filter(good).ok_or(Invalid::Checksum(fragment))
}

impl fmt::Display for Reference {
    /// As the Platform API lists it: `heroku/python`, a URL, a path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => write!(f, "heroku/{name}"),
            Self::Git { url, revision: Some(revision) } => write!(f, "{url}#{revision}"),
            Self::Tarball { url, sha256: Some(sha256) } => write!(f, "{url}#sha256:{sha256}"),
            Self::Git { url, revision: None } | Self::Tarball { url, sha256: None } => f.write_str(url),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// What one build is asked to do. The runtime writes it to `/build/spec.json`, the builder reads it in both phases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// Buildpacks in order; empty: the first built-in one that takes the source.
    #[serde(default)]
    pub buildpacks: Vec<Reference>,
    /// Submodules that the source names but does not hold.
    #[serde(default)]
    pub submodules: Vec<Submodule>,
    /// Bounds of this build.
    pub limits: BuildLimits,
    /// The stack's name, `heroku-24`.
    pub stack: String,
    /// The commit or other version of the source (`SOURCE_VERSION`).
    #[serde(default)]
    pub source_version: String,
}

/// Bounds that the builder itself keeps; time, memory and disk are the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLimits {
    /// Output that the build may print.
    pub log_bytes: u64,
    /// Size of the unpacked source with its submodules.
    pub source_bytes: u64,
}

/// A git repository that belongs inside the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submodule {
    /// Where it belongs, relative to the root.
    pub path: String,
    /// Its repository.
    pub url: String,
    /// The commit.
    pub commit: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Reference, shown: &str) {
        let reference: Reference = text.parse().expect(text);
        assert_eq!(reference, expected, "{text}");
        assert_eq!(reference.to_string(), shown, "{text}");
    }

    fn git(url: &str, revision: Option<&str>) -> Reference {
        Reference::Git { url: url.to_owned(), revision: revision.map(str::to_owned) }
    }

    #[test]
    fn references_are_read_as_people_write_them() {
        for text in ["heroku/python", "python", "urn:buildpack:heroku/python"] {
            check(text, Reference::BuiltIn("python".to_owned()), "heroku/python");
        }
        check("heroku/nodejs", Reference::BuiltIn("nodejs".to_owned()), "heroku/nodejs");
        let url = "https://example.com/a/b";
        check(url, git(url, None), url);
        check(
            "https://example.com/a/b.git#v2",
            git("https://example.com/a/b.git", Some("v2")),
            "https://example.com/a/b.git#v2",
        );
        check("git@example.com:a/b.git", git("git@example.com:a/b.git", None), "git@example.com:a/b.git");
        let tarball = "https://example.com/a/b.tgz";
        let (url, sum) = (tarball.to_owned(), "0123456789abcdef".repeat(4));
        check(tarball, Reference::Tarball { url: url.clone(), sha256: None }, tarball);
        let pinned = format!("{tarball}#sha256:{sum}");
        check(&pinned, Reference::Tarball { url, sha256: Some(sum) }, &pinned);
        check("/srv/buildpacks/x", Reference::Path("/srv/buildpacks/x".to_owned()), "/srv/buildpacks/x");
        check("file:///srv/x", Reference::Path("/srv/x".to_owned()), "/srv/x");
    }

    #[test]
    fn what_names_no_buildpack_is_refused() {
        for text in ["heroku/cobol", "cobol", "someone/cobol"] {
            assert!(matches!(text.parse::<Reference>(), Err(Invalid::Unknown(_))), "{text}");
        }
        let tarball = "https://example.com/a.tgz";
        for text in
            [format!("{tarball}#v1"), format!("{tarball}#sha256:12"), format!("{tarball}#md5:{}", "0".repeat(64))]
        {
            assert!(matches!(text.parse::<Reference>(), Err(Invalid::Checksum(_))), "{text}");
        }
        for text in ["", "--upload-pack=x", "ext::sh -c x", "ftp://a/b", "file://relative", "a b", "?"] {
            assert!(matches!(text.parse::<Reference>(), Err(Invalid::Shape(_))), "{text}");
        }
    }
}
