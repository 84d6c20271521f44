//! Which files a `requirements.txt` takes in, and whether it installs anything of the app's own.
//!
//! Only as much of pip's format is read as the layer's key needs; pip itself decides what a line means.

use std::collections::BTreeSet;

use crate::{error::Result, source::Source};

/// A `requirements.txt` and all it includes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    /// Files that were read, sorted.
    pub(super) files: BTreeSet<String>,
    /// Whether a line names a file or folder of the app.
    pub(super) local: bool,
}

impl Requirements {
    /// Follows `-r` and `-c` from `file` on.
    ///
    /// # Errors
    /// When a file is not text.
    pub(super) fn read(source: &Source, file: &str) -> Result<Self> {
        let mut requirements = Self::default();
        requirements.follow(source, file)?;
        Ok(requirements)
    }

    fn follow(&mut self, source: &Source, file: &str) -> Result<()> {
        if !self.files.insert(file.to_owned()) {
            return Ok(());
        }
        let Some(text) = source.text(file)? else {
            // Not there, or behind a link: pip will say so, or find it; the key must then cover everything.
            self.local = true;
            return Ok(());
        };
        let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
        for line in joined.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(other) = included(line) {
                let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
                match join(folder, other) {
                    Some(path) => self.follow(source, &path)?,
                    None => self.local = true,
                }
            } else if is_local(line) {
                self.local = true;
            }
        }
        Ok(())
    }
}

fn included(line: &str) -> Option<&str> {
    let rest = ["--requirement", "--constraint", "-r", "-c"].iter().find_map(|option| line.strip_prefix(option))?;
    let rest = rest.trim_start_matches(['=', ' ', '\t']);
    Some(rest.split(" #").next().unwrap_or(rest).trim())
}

fn is_local(line: &str) -> bool {
    let editable = ["--editable", "-e"].iter().find_map(|option| line.strip_prefix(option));
    let target = editable.unwrap_or(line).trim_start_matches(['=', ' ']).trim();
    if line.starts_with("--find-links") || line.starts_with("-f ") {
        return !line.contains("://");
    }
    let reference = target.split_once(" @ ").map_or(target, |(_, address)| address.trim());
    reference.starts_with(['.', '/'])
        || reference.starts_with("file:")
        || (editable.is_some() && !reference.contains("://"))
        || ((reference.ends_with(".whl") || reference.ends_with(".tar.gz")) && !reference.contains("://"))
        || (!reference.contains("://")
            && !target.starts_with('-')
            && target.split([' ', ';', '#']).next().is_some_and(|name| name.contains('/')))
}

/// Joins and normalises; nothing when it leaves the root.
fn join(folder: &str, other: &str) -> Option<String> {
    if other.starts_with('/') || other.contains("://") {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in other.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    #[test]
    fn included_files_are_followed() {
        let source = source_of(&[
            ("requirements.txt", "-r requirements/prod.txt\nflask==3.0 \\\n  --hash=sha256:aa\n"),
            ("requirements/prod.txt", "-c ../constraints.txt # pins\n--requirement=base.txt\n"),
            ("requirements/base.txt", "-r prod.txt\ngunicorn\n"),
            ("constraints.txt", "flask==3.0"),
        ]);
        let requirements = Requirements::read(&source, "requirements.txt").expect("readable");
        let files: Vec<_> = requirements.files.iter().map(String::as_str).collect();
        assert_eq!(files, ["constraints.txt", "requirements.txt", "requirements/base.txt", "requirements/prod.txt"]);
        assert!(!requirements.local);
    }

    #[test]
    fn requirements_of_the_apps_own_files_are_seen() {
        for line in
            ["-e .", "./lib", "mine @ file:///app/lib", "vendor/x-1.0.whl", "-r ../outside.txt", "-e lib", "libs/mine"]
        {
            let source = source_of(&[("requirements.txt", line)]);
            assert!(Requirements::read(&source, "requirements.txt").expect("readable").local, "{line}");
        }
        for line in [
            "flask",
            "-e git+https://example.com/x.git#egg=x",
            "a @ https://example.com/a.whl",
            "--index-url https://x/y",
            "a==1 ; python_version<'3' # a/b",
        ] {
            let source = source_of(&[("requirements.txt", line)]);
            assert!(!Requirements::read(&source, "requirements.txt").expect("readable").local, "{line}");
        }
    }
}
