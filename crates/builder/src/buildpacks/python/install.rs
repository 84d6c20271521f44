//! Fills the virtual environment: pip, uv, Poetry, or pip from a `Pipfile.lock`.
//!
//! uv and Poetry come from the package index, at versions fixed here, into environments of their own in the cache: the
//! app's environment holds the app's packages only.

use std::{fs, path::Path};

use super::{requirements::Requirements, version::Interpreter};
use crate::{
    build::Build,
    error::{Error, Result},
    source::Source,
};

/// Fixed so that the same source makes the same tree next year.
const UV_VERSION: &str = "0.13.9";
/// The same for Poetry.
const POETRY_VERSION: &str = "2.5.1";

/// Who installs packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manager {
    /// `requirements.txt`.
    Pip,
    /// `uv.lock`.
    Uv,
    /// `poetry.lock`.
    Poetry,
    /// `Pipfile.lock`: the lines of the requirements file that it amounts to.
    Pipfile(String),
}

/// Files that name a manager, in order of precedence (that of Heroku's Python buildpack).
const FILES: &[&str] = &["Pipfile.lock", "requirements.txt", "poetry.lock", "uv.lock"];

impl Manager {
    /// Chooses by the files there are.
    pub(super) fn choose(source: &Source) -> Result<Self> {
        match FILES.iter().find(|file| source.has(file)) {
            Some(&"Pipfile.lock") => pipfile_requirements(source).map(Self::Pipfile),
            Some(&"requirements.txt") => Ok(Self::Pip),
            Some(&"poetry.lock") => Ok(Self::Poetry),
            Some(&"uv.lock") if source.has("pyproject.toml") => Ok(Self::Uv),
            Some(_) => Err(Error::rejected(
                "There is a uv.lock, but no pyproject.toml.",
                ["", "Add the pyproject.toml that the lock file belongs to, commit it and push again."],
            )),
            None => Err(Error::rejected(
                "Couldn't find any supported Python package manager files.",
                [
                    "",
                    "A Python app must have either a 'requirements.txt', 'Pipfile.lock', 'poetry.lock' or 'uv.lock'",
                    "package manager file in the root directory of its source code.",
                    "",
                    "If your app already has a package manager file, check that it:",
                    "",
                    "1. Is in the top level directory (not a subdirectory).",
                    "2. Has the correct spelling (the filenames are case-sensitive).",
                    "3. Isn't listed in '.gitignore' or '.slugignore'.",
                    "4. Has been added to the Git repository using 'git add --all' and then committed using 'git commit'.",
                    "",
                    "Otherwise, add a package manager file to your app. If your app has no dependencies, create an",
                    "empty 'requirements.txt' file. A lock file is made with 'uv lock', 'poetry lock' or 'pipenv lock'.",
                ],
            )),
        }
    }

    /// Files of managers that were not chosen.
    pub(super) fn others(source: &Source) -> Vec<&'static str> {
        FILES.iter().copied().filter(|file| source.has(file)).skip(1).collect()
    }

    /// For keys.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Uv => "uv",
            Self::Poetry => "poetry",
            Self::Pipfile(_) => "pipfile",
        }
    }

    /// The file that decides.
    pub(super) fn file(&self) -> &'static str {
        match self {
            Self::Pip => "requirements.txt",
            Self::Uv => "uv.lock",
            Self::Poetry => "poetry.lock",
            Self::Pipfile(_) => "Pipfile.lock",
        }
    }

    /// All files whose contents decide what is installed.
    pub(super) fn deciding_files(&self, source: &Source) -> Result<Vec<String>> {
        let fixed: &[&str] = match self {
            Self::Pip => return Ok(Requirements::read(source, "requirements.txt")?.files.into_iter().collect()),
            Self::Uv => &["uv.lock", "pyproject.toml", "uv.toml", "setup.py", "setup.cfg", ".python-version"],
            Self::Poetry => &["poetry.lock", "pyproject.toml", "poetry.toml", "setup.py", "setup.cfg"],
            Self::Pipfile(_) => &["Pipfile.lock"],
        };
        Ok(fixed.iter().filter(|file| source.has(file)).map(|file| (*file).to_owned()).collect())
    }

    /// Whether files of the app itself are copied into the environment.
    pub(super) fn installs_source(&self, source: &Source) -> Result<bool> {
        Ok(match self {
            Self::Pip => Requirements::read(source, "requirements.txt")?.local,
            // Installed as a link to /app; members of a workspace and other folders may be copied.
            Self::Uv => {
                let lock = source.text("uv.lock")?.unwrap_or_default();
                ["source = { directory =", "source = { path ="].iter().any(|kind| lock.contains(kind))
            }
            Self::Poetry => source.text("poetry.lock")?.unwrap_or_default().contains("type = \"directory\""),
            Self::Pipfile(lines) => lines.lines().any(|line| line.contains("file:") || line.starts_with(['.', '-'])),
        })
    }

    /// Installs the packages.
    pub(super) fn install(&self, build: &mut Build<'_>, interpreter: &Interpreter, folder: &Path) -> Result<()> {
        let pip = ["-m", "pip", "install", "--no-input", "--progress-bar", "off", "--no-compile"];
        let command = match self {
            Self::Pip => {
                build.output.heading("Installing dependencies using 'pip install -r requirements.txt'");
                build.app_command("python").arguments(pip).arguments(["-r", "requirements.txt"])
            }
            Self::Pipfile(lines) => {
                build.output.heading("Installing dependencies of Pipfile.lock using pip");
                let file = build.roots.build.join("pipfile-requirements.txt");
                fs::write(&file, lines).map_err(Error::io("write", &file))?;
                build.app_command("python").arguments(pip).arguments(["--no-deps", "-r"]).arguments([file])
            }
            Self::Uv => {
                let uv = tool(build, interpreter, "uv", UV_VERSION)?;
                build.output.heading("Installing dependencies using 'uv sync --locked --no-default-groups'");
                let cache = build.cache("uv")?;
                build
                    .app_command(uv)
                    .arguments(["sync", "--locked", "--no-default-groups", "--no-progress", "--color", "never"])
                    .with("UV_PROJECT_ENVIRONMENT", folder)
                    .with("UV_CACHE_DIR", cache)
                    .with("UV_PYTHON", folder.join("bin/python"))
                    .with("UV_PYTHON_DOWNLOADS", "never")
                    .with("UV_NO_MANAGED_PYTHON", "1")
                    // The cache is another mount than the app.
                    .with("UV_LINK_MODE", "copy")
                    .with("UV_SYSTEM_CERTS", "1")
            }
            Self::Poetry => {
                let poetry = tool(build, interpreter, "poetry", POETRY_VERSION)?;
                build.output.heading("Installing dependencies using 'poetry sync --only main'");
                let cache = build.cache("poetry")?;
                build
                    .app_command(poetry)
                    .arguments(["sync", "--only", "main", "--no-interaction", "--no-ansi"])
                    .with("POETRY_CACHE_DIR", cache)
                    .with("POETRY_VIRTUALENVS_CREATE", "false")
            }
        };
        let ended = build.run(command)?;
        if !ended.status.success() {
            return Err(Error::explained(
                format!("Unable to install dependencies using {} ({}).", self.installer(), ended.why()),
                vec![String::new(), "See the log output above for what went wrong.".to_owned(), self.hint().to_owned()],
            ));
        }
        remove_times(folder)
    }

    fn installer(&self) -> &'static str {
        match self {
            Self::Pip | Self::Pipfile(_) => "pip",
            Self::Uv => "uv",
            Self::Poetry => "Poetry",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Pip => "Check that each line of requirements.txt names a package and a version that exist.",
            Self::Uv => "If the lock file is out of date, run 'uv lock', commit uv.lock and push again.",
            Self::Poetry => "If the lock file is out of date, run 'poetry lock', commit poetry.lock and push again.",
            Self::Pipfile(_) => {
                "If the lock file is out of date, run 'pipenv lock', commit Pipfile.lock and push again."
            }
        }
    }
}

/// Makes the virtual environment; only pip's users find pip inside.
pub(super) fn environment(
    build: &mut Build<'_>,
    interpreter: &Interpreter,
    manager: &Manager,
    folder: &Path,
) -> Result<()> {
    build.remove(folder)?;
    let with_pip = matches!(manager, Manager::Pip | Manager::Pipfile(_));
    let version = &interpreter.version;
    build.output.heading(&format!("Installing Python {version}{}", if with_pip { " and pip" } else { "" }));
    make(build, interpreter, folder, with_pip)
}

fn make(build: &mut Build<'_>, interpreter: &Interpreter, folder: &Path, with_pip: bool) -> Result<()> {
    let mut command = build.command(&interpreter.program).arguments(["-m", "venv"]);
    if !with_pip {
        command = command.arguments(["--without-pip"]);
    }
    let ended = build.run(command.arguments([folder]))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(Error::explained(
        format!("Python {} could not make a virtual environment ({}).", interpreter.version, ended.why()),
        vec![
            String::new(),
            "See the output above. Whoever runs the platform may have to repair its Python.".to_owned(),
        ],
    ))
}

/// uv or Poetry, from the cache or the package index.
fn tool(build: &mut Build<'_>, interpreter: &Interpreter, name: &str, version: &str) -> Result<std::path::PathBuf> {
    let folder = build.cache("python")?.join(format!("{name}-{version}-python{}", interpreter.minor));
    let (program, complete) = (folder.join("bin").join(name), folder.join("complete"));
    if complete.exists() && program.exists() {
        build.output.heading(&format!("Using cached {name} {version}"));
        return Ok(program);
    }
    build.output.heading(&format!("Installing {name} {version}"));
    build.remove(&folder)?;
    make(build, interpreter, &folder, true)?;
    let python = folder.join("bin/python");
    let command =
        build.app_command(python).arguments(["-m", "pip", "install", "--quiet", "--no-input", "--progress-bar", "off"]);
    let ended = build.run(command.arguments([format!("{name}=={version}")]))?;
    if !ended.status.success() {
        return Err(Error::explained(
            format!("{name} {version} could not be installed ({}).", ended.why()),
            vec![String::new(), "See the output above. The package index may be out of reach; try again.".to_owned()],
        ));
    }
    fs::write(&complete, "").map_err(Error::io("write", &complete))?;
    Ok(program)
}

/// Compiles what was installed to byte code that records no times.
pub(super) fn compile(build: &mut Build<'_>, folder: &Path) -> Result<()> {
    // Files that cannot be compiled are common: templates, tests of syntax errors. They are none of our business.
    let command = build.command(folder.join("bin/python")).arguments([
        "-W",
        "ignore",
        "-m",
        "compileall",
        "-q",
        "-q",
        "-f",
        "--invalidation-mode",
        "unchecked-hash",
    ]);
    build.run(command.arguments([folder.join("lib")])).map(drop)
}

/// uv notes beside each package when it looked at it.
fn remove_times(folder: &Path) -> Result<()> {
    for library in fs::read_dir(folder.join("lib")).into_iter().flatten().flatten() {
        for package in fs::read_dir(library.path().join("site-packages")).into_iter().flatten().flatten() {
            let note = package.path().join("uv_cache.json");
            match fs::remove_file(&note) {
                Err(error) if note.exists() => return Err(Error::io("remove", &note)(error)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The requirements file that a `Pipfile.lock` amounts to; its hashes are checked by pip.
fn pipfile_requirements(source: &Source) -> Result<String> {
    let text = source.text("Pipfile.lock")?.unwrap_or_default();
    let wrong = |why: String| {
        Error::explained(
            format!("Pipfile.lock cannot be read: {why}."),
            vec![String::new(), "Run 'pipenv lock', commit Pipfile.lock and push again.".to_owned()],
        )
    };
    let lock: serde_json::Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let packages = lock.get("default").and_then(|default| default.as_object());
    let packages = packages.ok_or_else(|| wrong("there is no \"default\" section".to_owned()))?;
    let field = |package: &serde_json::Value, name: &str| package.get(name).and_then(|v| v.as_str()).map(str::to_owned);
    let mut lines = String::new();
    // pip wants hashes of all packages or of none.
    let hashed = packages.values().all(|package| package.get("version").is_some() && package.get("hashes").is_some());
    for (name, package) in packages {
        let extras: Vec<_> =
            package.get("extras").and_then(|v| v.as_array()).into_iter().flatten().filter_map(|v| v.as_str()).collect();
        let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
        let markers = field(package, "markers").map(|markers| format!(" ; {markers}")).unwrap_or_default();
        let line = if let Some(version) = field(package, "version") {
            let hashes =
                package.get("hashes").and_then(|v| v.as_array()).into_iter().flatten().filter_map(|v| v.as_str());
            let hashes: String = hashes.filter(|_| hashed).map(|hash| format!(" --hash={hash}")).collect();
            format!("{name}{extras}{version}{markers}{hashes}")
        } else if let Some(url) = field(package, "git") {
            let revision = field(package, "ref").map(|revision| format!("@{revision}")).unwrap_or_default();
            format!("{name}{extras} @ git+{url}{revision}{markers}")
        } else if let Some(path) = field(package, "path") {
            format!("{path}{extras}{markers}")
        } else if let Some(url) = field(package, "file") {
            format!("{name}{extras} @ {url}{markers}")
        } else {
            return Err(wrong(format!("package \"{name}\" has neither version nor origin")));
        };
        lines.push_str(&line);
        lines.push('\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    #[test]
    fn the_manager_follows_from_the_files() {
        let check = |files: &[(&str, &str)], expected: &str| {
            assert_eq!(Manager::choose(&source_of(files)).expect("a manager").name(), expected);
        };
        check(&[("requirements.txt", "")], "pip");
        check(&[("pyproject.toml", ""), ("uv.lock", "")], "uv");
        check(&[("pyproject.toml", ""), ("poetry.lock", "")], "poetry");
        check(&[("Pipfile.lock", "{\"default\":{}}"), ("requirements.txt", "")], "pipfile");
        let error = Manager::choose(&source_of(&[("pyproject.toml", "")])).expect_err("no lock file");
        assert_eq!(error.to_string(), "Couldn't find any supported Python package manager files.");
    }

    #[test]
    fn a_pipfile_lock_becomes_requirements_with_hashes_if_all_have_them() {
        let lock = r#"{"default": {
            "flask": {"version": "==3.0.0", "hashes": ["sha256:aa", "sha256:bb"], "markers": "python_version >= '3.8'"},
            "mine": {"git": "https://example.com/mine.git", "ref": "abc"}
        }, "develop": {"pytest": {"version": "==8.0"}}}"#;
        let lines = pipfile_requirements(&source_of(&[("Pipfile.lock", lock)])).expect("readable");
        assert_eq!(lines, "flask==3.0.0 ; python_version >= '3.8'\nmine @ git+https://example.com/mine.git@abc\n");
        let lock = r#"{"default": {"flask": {"version": "==3.0.0", "hashes": ["sha256:aa", "sha256:bb"]}}}"#;
        let lines = pipfile_requirements(&source_of(&[("Pipfile.lock", lock)])).expect("readable");
        assert_eq!(lines, "flask==3.0.0 --hash=sha256:aa --hash=sha256:bb\n");
    }
}
