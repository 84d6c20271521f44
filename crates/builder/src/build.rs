//! What buildpacks are given: the facts for planning, and the workplace for building.
//!
//! A buildpack answers in two steps. [`Buildpack::plan`] reads and decides, without side effects, and finds every
//! mistake that can be found by reading; [`Plan::build`] then does the work. The type of the second step is only to be
//! had from the first, so no work can start before all buildpacks have planned.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use dozen_domain::{
    buildpack::BuildSpec,
    config::Vars,
    image::{Analysis, LayerPlan},
};

use crate::{
    command::{Command, Ended, Environment},
    error::{Error, Result},
    output::Output,
    roots::Roots,
    source::Source,
    toolchain::Versions,
};

/// The time that everything in an image claims to be from: the first that zip archives, and so Python's wheels, can say.
pub(crate) const EPOCH: &str = "315532800";

/// Config vars that never become environment of build steps, because they break the tools themselves
/// (Dev Center: buildpack-api, "ENV_DIR").
const NOT_EXPORTED: &[&str] = &[
    "PATH",
    "HOME",
    "GIT_DIR",
    "CPATH",
    "CPPATH",
    "LD_PRELOAD",
    "LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "JAVA_OPTS",
    "JAVA_TOOL_OPTIONS",
    "BUILD_DIR",
    "CACHE_DIR",
    "TMPDIR",
];

/// A built-in buildpack.
pub(crate) trait Buildpack {
    /// What the pusher reads: `Python`, `Node.js`.
    fn name(&self) -> &'static str;

    /// Says whether it takes the source.
    fn detect(&self, source: &Source) -> bool;

    /// Decides everything that can be decided by reading.
    fn plan(&self, context: &Context<'_>) -> Result<Box<dyn Plan>>;
}

/// What a buildpack has decided to do.
pub(crate) trait Plan {
    /// The layers it would make.
    fn layers(&self) -> Vec<LayerPlan>;

    /// Does it.
    fn build(&self, build: &mut Build<'_>) -> Result<Outcome>;
}

/// What planning may look at.
pub(crate) struct Context<'a> {
    /// Where things are.
    pub(crate) roots: &'a Roots,
    /// The source.
    pub(crate) source: &'a Source,
    /// The app's config vars.
    pub(crate) config: &'a Vars,
    /// The environment of foreign programs.
    pub(crate) environment: &'a Environment,
    /// Versions of the machine's programs.
    pub(crate) versions: &'a RefCell<Versions>,
}

impl Context<'_> {
    /// The version of a program of the machine.
    pub(crate) fn version(&self, program: &Path) -> Option<String> {
        self.version_by(program, "--version")
    }

    /// The same, for a program that has another word for it.
    pub(crate) fn version_by(&self, program: &Path, argument: &str) -> Option<String> {
        self.versions.borrow_mut().of(program, argument, self.environment)
    }

    /// The commit or other version of the source; empty when there is none.
    pub(crate) fn source_version(&self) -> &str {
        let version = self.environment.get("SOURCE_VERSION".as_ref() as &std::ffi::OsStr);
        version.and_then(|version| version.to_str()).unwrap_or_default()
    }

    /// A config var's value.
    pub(crate) fn config(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(|value| value.expose())
    }
}

/// What a buildpack leaves for the launch of processes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Commands by process type, for types that the `Procfile` does not declare.
    pub(crate) process_types: Vec<(String, String)>,
    /// Folders in front of `PATH`, first one first.
    pub(crate) launch_path: Vec<String>,
    /// Other variables of every process, below config vars.
    pub(crate) launch_env: BTreeMap<String, String>,
    /// Config vars set on the first deploy.
    pub(crate) config_defaults: BTreeMap<String, String>,
}

/// A build under way.
pub(crate) struct Build<'a> {
    /// Where things are.
    pub(crate) roots: &'a Roots,
    /// What was asked for.
    pub(crate) spec: &'a BuildSpec,
    /// The app's config vars.
    pub(crate) config: &'a Vars,
    /// The build's output.
    pub(crate) output: &'a mut Output,
    /// The environment of foreign programs; grows from buildpack to buildpack.
    pub(crate) environment: Environment,
    /// Time spent in foreign programs.
    pub(crate) spent: Duration,
    /// The first phase's answer and which of its layers are mounted.
    pub(crate) analysis: &'a Analysis,
    /// Names of mounted layers.
    pub(crate) restored: &'a BTreeSet<String>,
}

impl Build<'_> {
    /// Says whether a layer is there already, made with the same key.
    pub(crate) fn is_restored(&self, layer: &LayerPlan) -> bool {
        self.restored.contains(&layer.name) && self.analysis.layers.contains(layer)
    }

    /// A foreign program in `/app`, without the app's config vars.
    pub(crate) fn command(&self, program: impl Into<PathBuf>) -> Command {
        Command::new(program, &self.roots.app, &self.environment)
    }

    /// A step that belongs to the app (its scripts, `collectstatic`): it sees the config vars, as on Heroku.
    pub(crate) fn app_command(&self, program: impl Into<PathBuf>) -> Command {
        let mut environment = self.environment.clone();
        for (key, value) in self.config {
            if !NOT_EXPORTED.contains(&key.as_str()) {
                environment.insert(key.into(), value.expose().into());
            }
        }
        Command::new(program, &self.roots.app, &environment)
    }

    /// Runs a program, streaming its output.
    pub(crate) fn run(&mut self, command: Command) -> Result<Ended> {
        command.stream(self.output, &mut self.spent)
    }

    /// Runs a program, keeping its standard output.
    pub(crate) fn capture(&mut self, command: Command) -> Result<Ended> {
        command.capture(self.output, &mut self.spent)
    }

    /// Puts a folder in front of `PATH` for what is run from now on.
    pub(crate) fn prepend_path(&mut self, folder: &Path) {
        let mut path = OsString::from(folder);
        if let Some(old) = self.environment.get("PATH".as_ref() as &std::ffi::OsStr) {
            path.push(":");
            path.push(old);
        }
        self.environment.insert("PATH".into(), path);
    }

    /// Sets a variable for what is run from now on.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<OsString>) {
        self.environment.insert(key.into(), value.into());
    }

    /// A folder of the cache, made if need be.
    pub(crate) fn cache(&self, name: &str) -> Result<PathBuf> {
        let folder = self.roots.cache.join(name);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        Ok(folder)
    }

    /// Writes `.profile.d/<name>`, sourced before every process starts.
    pub(crate) fn profile(&self, name: &str, script: &str) -> Result<()> {
        let folder = self.roots.app.join(".profile.d");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let file = folder.join(name);
        fs::write(&file, script).map_err(Error::io("write", &file))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).map_err(Error::io("write", &file))
    }

    /// Empties a folder that is about to be made anew.
    pub(crate) fn remove(&self, folder: &Path) -> Result<()> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
            _ => Ok(()),
        }
    }
}

/// A line for `.profile.d` that puts folders in front of `PATH`, unless they are in it.
pub(crate) fn path_script(folders: &[String]) -> String {
    let mut script = String::new();
    for folder in folders.iter().rev() {
        script
            .push_str(&format!("case \":$PATH:\" in *\":{folder}:\"*) ;; *) export PATH=\"{folder}:$PATH\" ;; esac\n"));
    }
    script
}
