//! Python: a virtual environment at `.heroku/python`, made from a Python of the machine, filled by pip, uv, Poetry or
//! from a `Pipfile.lock`; Django's static files.
//!
//! The environment is a layer of its own. Nothing in it depends on the app's own files, unless the requirements name
//! local folders: then the whole source is part of the layer's key. Byte code is compiled by us after installing, in
//! the form that neither records nor checks times, so that equal requirements make equal trees and nothing is compiled
//! again at boot. The isolation from the system's packages is the environment's own.

mod django;
mod install;
mod requirements;
mod version;

use std::collections::BTreeMap;

use dozen_domain::image::LayerPlan;

use self::{install::Manager, version::Interpreter};
use crate::{
    build::{Build, Buildpack, Context, Outcome, Plan, path_script},
    error::{Error, Result},
    layer::Key,
    roots::LAUNCH_APP,
    source::Source,
    toolchain,
};

/// Changes when layers made by an older version of this module must not be used any more.
const REVISION: u32 = 1;
/// Where the environment is, relative to `/app`.
const FOLDER: &str = ".heroku/python";
/// Config vars that decide what package managers install begin so.
const DECIDING_VARS: &[&str] = &["PIP_", "UV_", "POETRY_"];

/// The buildpack.
#[derive(Debug)]
pub(crate) struct Python;

impl Buildpack for Python {
    fn name(&self) -> &'static str {
        "Python"
    }

    fn detect(&self, source: &Source) -> bool {
        ["requirements.txt", "pyproject.toml", "uv.lock", "poetry.lock", "Pipfile.lock", "Pipfile", "setup.py"]
            .iter()
            .any(|file| source.has(file))
    }

    fn plan(&self, context: &Context<'_>) -> Result<Box<dyn Plan>> {
        let source = context.source;
        let manager = Manager::choose(source)?;
        let (interpreter, origin) = version::choose(context)?;
        let mut key = Key::new("python", REVISION)
            .with("version", &interpreter.version)
            .with("interpreter", toolchain::identity(&interpreter.program).unwrap_or_default())
            .with("host", toolchain::host_identity())
            .with("manager", manager.name());
        for file in manager.deciding_files(source)? {
            key = key.with(&file, source.bytes(&file).unwrap_or_default());
        }
        for hook in ["bin/pre_compile", "bin/post_compile"] {
            key = key.with(hook, source.bytes(hook).unwrap_or_default());
        }
        for (name, value) in context.config {
            if DECIDING_VARS.iter().any(|prefix| name.starts_with(prefix)) {
                key = key.with(name, value.expose());
            }
        }
        if manager.installs_source(source)? {
            key = key.with("source", source.digest()?);
        }
        Ok(Box::new(Planned {
            manager,
            interpreter,
            origin,
            layer: key.layer("python", FOLDER),
            others: Manager::others(source),
            manage: django::manage(source, context.config("DISABLE_COLLECTSTATIC")),
            hooks: ["bin/pre_compile", "bin/post_compile"].map(|hook| source.has(hook)),
        }))
    }
}

struct Planned {
    manager: Manager,
    interpreter: Interpreter,
    origin: version::Origin,
    layer: LayerPlan,
    others: Vec<&'static str>,
    manage: django::Manage,
    hooks: [bool; 2],
}

impl Plan for Planned {
    fn layers(&self) -> Vec<LayerPlan> {
        vec![self.layer.clone()]
    }

    fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        let folder = build.roots.app.join(FOLDER);
        let restored = build.is_restored(&self.layer);
        self.announce(build);
        build.prepend_path(&folder.join("bin"));
        build.set("VIRTUAL_ENV", &folder);
        build.set("PYTHONUNBUFFERED", "1");
        // What the build runs must not leave byte code with times in it beside the app's sources.
        build.set("PYTHONDONTWRITEBYTECODE", "1");
        build.set("PIP_CACHE_DIR", build.cache("pip")?);
        build.set("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        if restored {
            build.output.heading("Restoring cache");
            build.output.line(&format!("Using the installed packages again: {} has not changed.", self.manager.file()));
        } else {
            install::environment(build, &self.interpreter, &self.manager, &folder)?;
        }
        self.hook(build, 0)?;
        if !restored {
            self.manager.install(build, &self.interpreter, &folder)?;
            install::compile(build, &folder)?;
        }
        django::collect_static(build, &self.manage, &folder)?;
        self.hook(build, 1)?;
        launch(build)
    }
}

impl Planned {
    fn announce(&self, build: &mut Build<'_>) {
        let version = &self.interpreter.version;
        match &self.origin {
            version::Origin::File(file) => build.output.heading(&format!("Using Python {version} specified in {file}")),
            version::Origin::Default => {
                build.output.heading(&format!("No Python version was specified. Using the default, Python {version}"));
                let minor = &self.interpreter.minor;
                build
                    .output
                    .line("To use a certain version, create a .python-version file in the root of the app that");
                build.output.line(&format!("holds for example: {minor}"));
            }
        }
        if !self.others.is_empty() {
            build.output.warning(
                &format!("Warning: packages are installed from {}.", self.manager.file()),
                &[&format!("These files are not used: {}.", self.others.join(", "))],
            );
        }
    }

    fn hook(&self, build: &mut Build<'_>, index: usize) -> Result<()> {
        let (present, file) = (self.hooks[index], ["bin/pre_compile", "bin/post_compile"][index]);
        if !present {
            return Ok(());
        }
        build.output.heading(&format!("Running {file} hook"));
        let script = build.roots.app.join(file);
        // Run by its own first line where it is executable, as a shell script where that was forgotten.
        let command = if crate::command::is_executable(&script) {
            build.app_command(script)
        } else {
            build.app_command("bash").arguments([script])
        };
        let ended = build.run(command)?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Error::explained(
            format!("{file} failed with {}.", ended.why()),
            vec![String::new(), "See the output above, correct the script and push again.".to_owned()],
        ))
    }
}

/// What every process of a Python app is started with; as Heroku's own Python buildpack has it.
fn launch(build: &Build<'_>) -> Result<Outcome> {
    let path = vec![format!("{LAUNCH_APP}/{FOLDER}/bin")];
    build.profile("python.sh", &path_script(&path))?;
    // Under the name that Node.js' has: of several buildpacks the last one decides.
    build.profile("WEB_CONCURRENCY.sh", include_str!("web_concurrency.sh"))?;
    let launch_env = [
        ("LANG", "C.UTF-8"),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONPATH", LAUNCH_APP),
        // The router is the only one that can reach a dyno, and it sets the forwarded headers itself.
        ("FORWARDED_ALLOW_IPS", "*"),
        ("GUNICORN_CMD_ARGS", "--access-logfile -"),
    ];
    Ok(Outcome {
        launch_path: path,
        launch_env: launch_env
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        ..Outcome::default()
    })
}
