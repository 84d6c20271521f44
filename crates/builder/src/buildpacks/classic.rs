//! Runs classic buildpacks: `bin/detect`, `bin/compile BUILD_DIR CACHE_DIR ENV_DIR`, `bin/release`, `export`
//! (Dev Center: buildpack-api).
//!
//! They work directly in `/app`, which is `BUILD_DIR` and `HOME` alike, and see config vars as files in `ENV_DIR` only.
//! A Git or tarball buildpack is fetched anew for every build ([`fetch`]); one from the machine is mounted by the runtime. What they make is part of the app's own layer.

mod fetch;

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use dozen_domain::buildpack::Reference;
use yaml_rust2::{Yaml, YamlLoader};

use crate::{
    build::{Build, Outcome},
    command::{self, Command},
    error::{Error, Result},
};

/// Variables that a buildpack's `export` must not change for the next one: they say where that one is.
const NOT_TAKEN: &[&str] = &["HOME", "PWD", "OLDPWD", "SHLVL", "_", "STACK", "SOURCE_VERSION"];

/// A buildpack that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Classic {
    position: usize,
    reference: Reference,
    shown: String,
}

/// One that takes the app.
pub(crate) struct Detected {
    folder: PathBuf,
    /// What it calls the app.
    pub(crate) name: String,
    shown: String,
}

impl Classic {
    /// The buildpack at a position of the request, from 0.
    pub(crate) fn new(position: usize, reference: &Reference) -> Self {
        Self { position, reference: reference.clone(), shown: reference.to_string() }
    }

    /// As the owner wrote it.
    pub(crate) fn reference(&self) -> &str {
        &self.shown
    }

    /// Fetches it and asks whether it takes the app.
    pub(crate) fn detect(&self, build: &mut Build<'_>) -> Result<Detected> {
        let folder = fetch::fetch(build, self.position, &self.reference)?;
        for script in ["bin/detect", "bin/compile"] {
            if !command::is_executable(&folder.join(script)) {
                return Err(Error::explained(
                    format!("{} is no buildpack: it has no executable {script}.", self.shown),
                    vec![
                        String::new(),
                        "Check the URL with \"heroku buildpacks\"; set another with \"heroku buildpacks:set\"."
                            .to_owned(),
                    ],
                ));
            }
        }
        let detect = command(build, &folder, "bin/detect");
        let ended = build.capture(detect)?;
        if !ended.status.success() {
            build.output.heading(&format!("App not compatible with buildpack: {}", self.shown));
            build.output.foreign(&ended.stdout, true)?;
            build.output.foreign_end(true)?;
            return Err(Error::explained(
                format!("The buildpack {} does not take this app.", self.shown),
                vec![
                    String::new(),
                    "Remove it with \"heroku buildpacks:remove\", or push an app that it is made for.".to_owned(),
                ],
            ));
        }
        let answer = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        let name = answer.lines().next().filter(|name| !name.is_empty()).unwrap_or("Other").to_owned();
        Ok(Detected { folder, name, shown: self.shown.clone() })
    }
}

impl Detected {
    /// Compiles, and takes over what the buildpack leaves for the next one and for the launch.
    pub(crate) fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        let (cache, env) = (build.cache("classic")?, build.roots.build.join("env"));
        fs::create_dir_all(&env).map_err(Error::io("create", &env))?;
        let compile = command(build, &self.folder, "bin/compile").arguments([cache, env]).unindented();
        let ended = build.run(compile)?;
        if !ended.status.success() {
            return Err(Error::explained(
                format!("The buildpack {} failed ({}).", self.shown, ended.why()),
                vec![String::new(), "See the output above.".to_owned()],
            ));
        }
        self.export(build)?;
        self.release(build)
    }

    /// Variables that the buildpack's `export` script sets become environment of the next buildpack.
    fn export(&self, build: &mut Build<'_>) -> Result<()> {
        let script = self.folder.join("export");
        if !script.is_file() {
            return Ok(());
        }
        let shell = "set +eu; . \"$1\" >&2; exec env -0";
        let command = classic(build, PathBuf::from("bash")).arguments(["-c", shell, "bash"]).arguments([script]);
        let ended = build.capture(command)?;
        if !ended.status.success() {
            return Err(Error::explained(
                format!("The export script of {} failed ({}).", self.shown, ended.why()),
                Vec::new(),
            ));
        }
        for variable in ended.stdout.split(|byte| *byte == 0).filter(|variable| !variable.is_empty()) {
            let Some(at) = variable.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = (OsStr::from_bytes(&variable[..at]), OsStr::from_bytes(&variable[at + 1..]));
            if !NOT_TAKEN.iter().any(|name| key == OsStr::new(name)) && !variable.starts_with(b"BASH_FUNC_") {
                build.environment.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    fn release(&self, build: &mut Build<'_>) -> Result<Outcome> {
        if !command::is_executable(&self.folder.join("bin/release")) {
            return Ok(Outcome::default());
        }
        let release = command(build, &self.folder, "bin/release");
        let ended = build.capture(release)?;
        let wrong = |why: String| {
            Error::explained(
                format!("bin/release of {} cannot be used: {why}.", self.shown),
                vec![
                    String::new(),
                    "It must print YAML with default_process_types. Report this to the buildpack's authors.".to_owned(),
                ],
            )
        };
        if !ended.status.success() {
            return Err(wrong(format!("it ended with {}", ended.why())));
        }
        parse_release(&String::from_utf8_lossy(&ended.stdout)).map_err(wrong)
    }
}

/// A script of the buildpack with `BUILD_DIR`, which is the app.
fn command(build: &Build<'_>, folder: &Path, script: &str) -> Command {
    classic(build, folder.join(script)).arguments([build.roots.app.clone()])
}

fn classic(build: &Build<'_>, program: PathBuf) -> Command {
    build.command(program).with("HOME", build.roots.app.clone()).with("REQUEST_ID", request_id(build))
}

/// Buildpacks only use it to tell builds apart in their own logs.
fn request_id(build: &Build<'_>) -> OsString {
    let version: String = build.spec.source_version.chars().take(40).collect();
    OsString::from(if version.is_empty() { "build".to_owned() } else { version })
}

/// Reads what `bin/release` prints.
fn parse_release(text: &str) -> std::result::Result<Outcome, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let mut outcome = Outcome::default();
    let Some(document) = documents.first() else { return Ok(outcome) };
    let scalar = |value: &Yaml| match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    };
    let section = |name: &str| -> std::result::Result<Vec<(String, String)>, String> {
        let pairs = match &document[name] {
            Yaml::Hash(pairs) => pairs,
            _ => return Ok(Vec::new()),
        };
        let text = |key: &Yaml, value: &Yaml| Some((scalar(key)?, scalar(value)?));
        let read = |(key, value)| text(key, value).ok_or_else(|| format!("{name} must map names to texts"));
        pairs.iter().map(read).collect()
    };
    outcome.process_types = section("default_process_types")?;
    outcome.config_defaults = section("config_vars")?.into_iter().collect();
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_release_prints_is_read() {
        let outcome = parse_release(
            "---\naddons:\n  - heroku-postgresql\ndefault_process_types:\n  web: bin/server -p $PORT\n  worker: 'a: b'\nconfig_vars:\n  WORKERS: 2\n",
        )
        .expect("valid");
        let types = [("web".to_owned(), "bin/server -p $PORT".to_owned()), ("worker".to_owned(), "a: b".to_owned())];
        assert_eq!(outcome.process_types, types);
        assert_eq!(outcome.config_defaults.get("WORKERS").map(String::as_str), Some("2"));
    }

    #[test]
    fn little_or_nothing_is_valid_too() {
        for text in ["", "--- {}\n", "---\naddons: []\ndefault_process_types: {}\n", "# nothing"] {
            assert!(parse_release(text).expect(text).process_types.is_empty());
        }
        assert!(parse_release("default_process_types:\n  web: [a]\n").is_err());
        assert!(parse_release("a: b: c").is_err());
    }
}
