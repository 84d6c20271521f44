//! `.slugignore`: what is taken out of the source before buildpacks run (Dev Center: slug-compiler, "Ignoring files").
//!
//! Patterns read like those of `.gitignore`, without `!`: a pattern with a slash inside or in front is anchored at the
//! root, one without matches at any depth, one that ends in a slash matches folders only.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};

/// Folders and files that never reach a buildpack, at the root only (Dev Center: slug-compiler, "Compilation").
const ALWAYS: &[&str] = &[".git", ".gitmodules", "log", "tmp"];

/// What to leave out.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    /// Not an app's source: nothing is left out.
    nothing: bool,
    any: GlobSet,
    folders: GlobSet,
}

impl Ignored {
    /// Reads the patterns of a `.slugignore`.
    ///
    /// # Errors
    /// When a pattern cannot be read or is a negation, which slug compilers do not know.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (mut any, mut folders) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for (index, line) in text.lines().enumerate() {
            let pattern = line.trim();
            if pattern.is_empty() || pattern.starts_with('#') {
                continue;
            }
            let wrong = |problem: String| {
                Error::explained(
                    format!(".slugignore, line {}: {problem}", index + 1),
                    vec![String::new(), "Correct the pattern or remove the line.".to_owned()],
                )
            };
            if pattern.starts_with('!') {
                return Err(wrong(format!("\"{pattern}\" is a negation, which .slugignore does not have")));
            }
            let (inner, only_folders) = match pattern.strip_suffix('/') {
                Some(inner) => (inner, true),
                None => (pattern, false),
            };
            let anchored = inner.contains('/');
            let inner = inner.trim_start_matches('/');
            let full = if anchored { inner.to_owned() } else { format!("**/{inner}") };
            let glob = GlobBuilder::new(&full)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| wrong(error.kind().to_string()))?;
            if only_folders { &mut folders } else { &mut any }.add(glob);
        }
        let build = |set: GlobSetBuilder| {
            set.build().map_err(|error| Error::explained(format!(".slugignore: {}", error.kind()), Vec::new()))
        };
        Ok(Self { nothing: false, any: build(any)?, folders: build(folders)? })
    }

    /// Leaves nothing out: for archives that are no app's source.
    pub(crate) fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// Says whether `path` (relative, no trailing slash) or a folder around it is left out.
    pub(crate) fn matches(&self, path: &str, is_folder: bool) -> bool {
        if self.nothing {
            return false;
        }
        let root = path.split('/').next().unwrap_or(path);
        if ALWAYS.contains(&root) && (is_folder || path.contains('/') || root.starts_with(".git")) {
            return true;
        }
        if self.any.is_empty() && self.folders.is_empty() {
            return false;
        }
        let ancestors = path.match_indices('/').map(|(at, _)| (&path[..at], true));
        ancestors
            .chain([(path, is_folder)])
            .any(|(path, is_folder)| self.any.is_match(path) || (is_folder && self.folders.is_match(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_git_ignores() {
        let ignored = Ignored::parse("# docs\n*.psd\n/doc\nspec/\nassets/*.raw\n").expect("valid patterns");
        for gone in ["a.psd", "x/y/a.psd", "doc", "doc/index.md", "spec/a.rb", "x/spec/b.rb", "assets/a.raw"] {
            assert!(ignored.matches(gone, false), "{gone}");
        }
        for kept in ["a.psd2", "x/doc", "spec", "assets/x/a.raw", "readme"] {
            assert!(!ignored.matches(kept, false), "{kept}");
        }
        assert!(ignored.matches("spec", true));
    }

    #[test]
    fn what_only_git_needs_is_always_left_out() {
        let ignored = Ignored::default();
        for gone in [".git/config", ".git", ".gitmodules", "log/development.log", "tmp/cache/x"] {
            assert!(ignored.matches(gone, false), "{gone}");
        }
        for kept in ["log", "src/log/x", "tmpl/x", ".github/x", ".gitignore"] {
            assert!(!ignored.matches(kept, false), "{kept}");
        }
    }

    #[test]
    fn a_negation_is_refused_with_its_line() {
        let error = Ignored::parse("a\n!b\n").expect_err("a negation");
        assert_eq!(error.to_string(), ".slugignore, line 2: \"!b\" is a negation, which .slugignore does not have");
    }
}
