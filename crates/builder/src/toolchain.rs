//! Which programs of the machine there are and which versions they have.
//!
//! Asking a program for its version costs tens of milliseconds; a file that has not changed still has the version it
//! had, so answers are kept in the cache by path, size and time of change. That identity is also what layer keys hold:
//! an upgrade of the system's Python makes new layers.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::command::Environment;

/// Remembered answers, `versions.json` in the cache.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    file: PathBuf,
    known: BTreeMap<String, String>,
}

/// A file as the kernel knows it: path, size, time of change.
pub(crate) fn identity(file: &Path) -> Option<String> {
    let real = fs::canonicalize(file).ok()?;
    let metadata = fs::metadata(&real).ok()?;
    Some(format!("{} {} {}.{}", real.display(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Versions {
    /// Reads what is remembered.
    pub(crate) fn load(cache: &Path) -> Self {
        let file = cache.join("versions.json");
        let known = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, known }
    }

    /// The version of a program: the first dotted number that it prints when run with this argument.
    pub(crate) fn of(&mut self, program: &Path, argument: &str, environment: &Environment) -> Option<String> {
        let identity = identity(program)?;
        if let Some(version) = self.known.get(&identity) {
            return Some(version.clone());
        }
        let answer = Command::new(program)
            .arg(argument)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .output()
            .ok()
            .filter(|answer| answer.status.success())?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned() + &String::from_utf8_lossy(&answer.stderr);
        let version = first_version(&text)?;
        self.known.insert(identity, version.clone());
        // A cache that cannot be written costs time in the next build, nothing else.
        let _ = serde_json::to_vec(&self.known).map(|bytes| fs::write(&self.file, bytes));
        Some(version)
    }
}

/// The first word of a text that looks like a version: `1.2`, `v1.2.3`, `1.2.3-beta`, `go1.22.1`.
fn first_version(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | '"')).find_map(|word| {
        let word = word.trim_start_matches("go").trim_start_matches('v');
        let numbers = word.split(['-', '+']).next().unwrap_or(word);
        let dotted = numbers.contains('.') && numbers.split('.').all(|part| part.parse::<u32>().is_ok());
        dotted.then(|| word.to_owned())
    })
}

/// The interpreter's C library and system, for keys of layers that hold compiled code.
pub(crate) fn host_identity() -> String {
    let library = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]
        .iter()
        .find_map(|path| identity(Path::new(path)))
        .unwrap_or_default();
    format!("{} {library}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (text, version) in [
            ("Python 3.11.2\n", "3.11.2"),
            ("v20.20.2\n", "20.20.2"),
            ("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", "1.95.0"),
            ("go version go1.22.1 linux/amd64", "1.22.1"),
            ("rustc 1.97.0-nightly (abc 2026-05-01)", "1.97.0-nightly"),
        ] {
            assert_eq!(first_version(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(first_version("no version here"), None);
    }

    #[test]
    fn an_unchanged_program_is_asked_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = folder.path().join("tool");
        let environment = Environment::from([("PATH".into(), "/usr/bin:/bin".into())]);
        fs::write(&program, "#!/bin/sh\necho tool 1.2.3\n").expect("written");
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("made executable");
        let version = Versions::load(folder.path()).of(&program, "--version", &environment);
        assert_eq!(version.as_deref(), Some("1.2.3"));
        let mut again = Versions::load(folder.path());
        assert!(again.known.values().any(|version| version == "1.2.3"));
        assert_eq!(again.of(&program, "--version", &Environment::new()).as_deref(), Some("1.2.3"));
    }
}
