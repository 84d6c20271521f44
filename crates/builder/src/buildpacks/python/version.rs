//! Which Python: the one that `.python-version` or `runtime.txt` asks for, or the machine's default.
//!
//! Pythons are those of the system (`/usr/bin/python3.11`) and those that the operator provides
//! (`/opt/dozen/python-3.13/bin/python3.13`). A version that is not there is refused with the list of those that are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    build::Context,
    error::{Error, Result},
    source::Source,
};

/// A Python of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// `/usr/bin/python3.11`.
    pub(super) program: PathBuf,
    /// `3.11`.
    pub(super) minor: String,
    /// `3.11.2`.
    pub(super) version: String,
}

/// Who chose the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file of the app.
    File(&'static str),
    /// Nobody.
    Default,
}

/// Chooses the Python of this build.
pub(super) fn choose(context: &Context<'_>) -> Result<(Interpreter, Origin)> {
    let requested = requested(context.source)?;
    let mut there = found(context);
    there.sort_by_key(|(_, minor)| std::cmp::Reverse(number(minor)));
    if there.is_empty() {
        return Err(Error::rejected(
            "There is no Python on this machine.",
            ["", "Whoever runs the platform can install one, for example with: apt install python3 python3-venv"],
        ));
    }
    let chosen = match &requested {
        None => default(context, &there),
        Some((wanted, _)) => there
            .iter()
            .filter(|(_, minor)| *wanted == *minor || wanted.starts_with(&format!("{minor}.")) || wanted == "3")
            .find_map(|candidate| resolve(context, candidate))
            .filter(|found| wanted.matches('.').count() < 2 || found.version == *wanted),
    };
    match (chosen, requested) {
        (Some(interpreter), requested) => {
            check_complete(&interpreter)?;
            Ok((interpreter, requested.map_or(Origin::Default, |(_, file)| Origin::File(file))))
        }
        (None, Some((wanted, file))) => {
            let versions: Vec<_> =
                there.iter().filter_map(|one| resolve(context, one)).map(|one| one.version).collect();
            Err(Error::explained(
                format!("Python {wanted}, which {file} asks for, is not available."),
                vec![
                    String::new(),
                    format!("Available are: {}.", versions.join(", ")),
                    format!("Write one of them into {file} (for example {}), or ask whoever runs the", there[0].1),
                    "platform to install the version that you need.".to_owned(),
                ],
            ))
        }
        (None, None) => Err(Error::rejected(
            "The machine's Python cannot be run.",
            ["", "Tell whoever runs the platform: \"python3 --version\" fails inside a build."],
        )),
    }
}

/// What the app asks for and in which file; the version has one to three numbers.
fn requested(source: &Source) -> Result<Option<(String, &'static str)>> {
    let wrong = |file: &str, text: &str| {
        Error::explained(
            format!("{file} does not hold a Python version: \"{}\".", text.chars().take(40).collect::<String>()),
            vec![
                String::new(),
                format!(
                    "It must hold one version and nothing else, for example: {}",
                    match file {
                        "runtime.txt" => "python-3.12",
                        _ => "3.12",
                    }
                ),
            ],
        )
    };
    let is_version = |text: &str| {
        let parts: Vec<_> = text.split('.').collect();
        parts.len() <= 3 && parts[0] == "3" && parts.iter().all(|part| part.parse::<u16>().is_ok())
    };
    if let Some(text) = source.text(".python-version")? {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.next().unwrap_or_default();
        let version = first.strip_prefix("python-").unwrap_or(first);
        return match lines.next() {
            None if is_version(version) => Ok(Some((version.to_owned(), ".python-version"))),
            _ => Err(wrong(".python-version", text.trim())),
        };
    }
    if let Some(text) = source.text("runtime.txt")? {
        return match text.trim().strip_prefix("python-") {
            Some(version) if is_version(version) => Ok(Some((version.to_owned(), "runtime.txt"))),
            _ => Err(wrong("runtime.txt", text.trim())),
        };
    }
    Ok(None)
}

/// Programs called `python3.N` and their `3.N`.
fn found(context: &Context<'_>) -> Vec<(PathBuf, String)> {
    let mut folders = context.roots.system_bin.clone();
    if let Ok(entries) = fs::read_dir(&context.roots.toolchains) {
        let mut own: Vec<_> =
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("python")).collect();
        own.sort_by_key(fs::DirEntry::file_name);
        folders.extend(own.into_iter().map(|entry| entry.path().join("bin")));
    }
    let mut there: Vec<(PathBuf, String)> = Vec::new();
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(minor) = name.strip_prefix("python3.").filter(|minor| minor.parse::<u16>().is_ok()) else { continue };
        let minor = format!("3.{minor}");
        if !there.iter().any(|(_, known)| *known == minor) {
            there.push((entry.path(), minor));
        }
    }
    there
}

/// What `/usr/bin/python3` is, else the newest.
fn default(context: &Context<'_>, there: &[(PathBuf, String)]) -> Option<Interpreter> {
    let system = context.roots.system_bin.iter().find_map(|folder| fs::canonicalize(folder.join("python3")).ok());
    let same = |candidate: &&(PathBuf, String)| fs::canonicalize(&candidate.0).ok() == system;
    there.iter().find(same).into_iter().chain(there).find_map(|candidate| resolve(context, candidate))
}

fn resolve(context: &Context<'_>, (program, minor): &(PathBuf, String)) -> Option<Interpreter> {
    let version = context.version(program)?;
    Some(Interpreter { program: program.clone(), minor: minor.clone(), version })
}

fn number(minor: &str) -> u16 {
    minor.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Debian and Ubuntu ship `ensurepip`, which makes virtual environments, in a package of its own.
fn check_complete(interpreter: &Interpreter) -> Result<()> {
    let program = fs::canonicalize(&interpreter.program).unwrap_or_else(|_| interpreter.program.clone());
    let root = program.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    let minor = &interpreter.minor;
    let library = |name: &str| root.join(format!("lib/python{minor}/{name}/__init__.py")).exists();
    if !library("json") || library("ensurepip") {
        return Ok(());
    }
    Err(Error::explained(
        format!("Python {minor} on this machine cannot make virtual environments."),
        vec![
            String::new(),
            format!("Whoever runs the platform can install what is missing: apt install python{minor}-venv"),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    fn check(files: &[(&str, &str)], expected: Option<(&str, &'static str)>) {
        let requested = requested(&source_of(files)).expect("a readable version");
        assert_eq!(requested, expected.map(|(version, file)| (version.to_owned(), file)));
    }

    #[test]
    fn the_version_is_read_from_either_file() {
        check(&[(".python-version", "3.11\n")], Some(("3.11", ".python-version")));
        check(&[(".python-version", "# for CI\n\n3.11.2")], Some(("3.11.2", ".python-version")));
        check(&[("runtime.txt", "python-3.12.1\n")], Some(("3.12.1", "runtime.txt")));
        check(&[(".python-version", "3.11"), ("runtime.txt", "python-3.12.1")], Some(("3.11", ".python-version")));
        check(&[("requirements.txt", "")], None);
    }

    #[test]
    fn a_file_without_a_version_is_refused() {
        for (file, text) in [
            (".python-version", "latest"),
            (".python-version", ""),
            (".python-version", "3.11\n3.12"),
            ("runtime.txt", "3.11"),
            (".python-version", "2.7"),
        ] {
            let error = requested(&source_of(&[(file, text)])).expect_err(text);
            assert!(error.to_string().starts_with(&format!("{file} does not hold a Python version")), "{error}");
        }
    }
}
