//! Node.js: modules by npm, Yarn or pnpm, the app's build script, development dependencies pruned at the end.
//!
//! Two layers: `.heroku/node` holds what the machine does not have (another Node.js, another package manager), and
//! `node_modules` holds the modules. The second is only a layer where modules depend on nothing but the lock file;
//! an app with a build or install script, or made of several packages, has them in its own layer and installs them
//! every time, from the package manager's cache.

mod manifest;
mod package_manager;
mod version;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use dozen_domain::image::LayerPlan;
use nodejs_semver::{Range, Version};

use self::{manifest::Manifest, package_manager::Manager, version::Node};
use crate::{
    build::{Build, Buildpack, Context, Outcome, Plan, path_script},
    error::{Error, Result},
    layer::Key,
    roots::{LAUNCH_APP, LAUNCH_EXECUTABLE},
    source::Source,
    toolchain,
};

/// Changes when layers made by an older version of this module must not be used any more.
const REVISION: u32 = 1;
/// Where Node.js and package managers are, relative to `/app`.
const TOOLS: &str = ".heroku/node";
/// npm's own requirements (`engines.node` of each major version), newest first.
const NPM_FOR: &[(&str, &str)] = &[
    ("11", "^20.17.0 || >=22.9.0"),
    ("10", "^18.17.0 || >=20.5.0"),
    ("9", "^14.17.0 || ^16.13.0 || >=18.0.0"),
    ("8", "^12.13.0 || ^14.15.0 || >=16"),
    ("6", "*"),
];
/// Sets `WEB_CONCURRENCY` by the dyno's memory before a process starts.
const WEB_CONCURRENCY: &str = include_str!("web_concurrency.sh");

/// The buildpack.
#[derive(Debug)]
pub(crate) struct NodeJs;

impl Buildpack for NodeJs {
    fn name(&self) -> &'static str {
        "Node.js"
    }

    fn detect(&self, source: &Source) -> bool {
        source.has("package.json")
    }

    fn plan(&self, context: &Context<'_>) -> Result<Box<dyn Plan>> {
        let source = context.source;
        let manifest = Manifest::read(source)?;
        let manager = Manager::choose(source)?;
        let node = version::choose(context, &manifest)?;
        let packages = packages(context, &manifest, &manager, &node);
        let production = Production::read(context);
        let mut planned = Planned {
            checked_in: source.has_below("node_modules"),
            server: source.has("server.js"),
            reuse: context.config("NODE_MODULES_CACHE") != Some("false"),
            workspace: source.has("pnpm-workspace.yaml"),
            manifest,
            manager,
            node,
            packages,
            production,
            tools: None,
            modules: None,
        };
        planned.tools = planned.has_tools().then(|| planned.tools_layer());
        if planned.is_layered() {
            let mut key = planned.key("node_modules").with("dependencies", planned.manifest.dependencies());
            for file in planned.manager.deciding_files() {
                key = key.with(file, source.bytes(file).unwrap_or_default());
            }
            for (name, value) in context.config {
                if ["NPM_", "YARN_", "PNPM_", "NODE_"].iter().any(|prefix| name.starts_with(prefix)) {
                    key = key.with(name, value.expose());
                }
            }
            planned.modules = Some(key.layer("node_modules", "node_modules"));
        }
        Ok(Box::new(planned))
    }
}

/// What becomes of development dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Production {
    /// Installed for the build, then pruned.
    Prune,
    /// Never installed (`NPM_CONFIG_PRODUCTION=true`).
    Only,
    /// Kept; the variable that says so.
    Keep(&'static str),
}

impl Production {
    fn read(context: &Context<'_>) -> Self {
        for name in ["NPM_CONFIG_PRODUCTION", "YARN_PRODUCTION", "PNPM_SKIP_PRUNING"] {
            match (name, context.config(name)) {
                ("PNPM_SKIP_PRUNING", Some("true")) | ("NPM_CONFIG_PRODUCTION" | "YARN_PRODUCTION", Some("false")) => {
                    return Self::Keep(name);
                }
                (_, Some("true")) => return Self::Only,
                _ => {}
            }
        }
        match context.config("NODE_ENV") {
            None | Some("production") => Self::Prune,
            Some(_) => Self::Keep("NODE_ENV"),
        }
    }
}

/// Package managers that must be installed: `npm@10`, `yarn@1.22.22`.
fn packages(context: &Context<'_>, manifest: &Manifest, manager: &Manager, node: &Node) -> Vec<String> {
    let mut packages = Vec::from_iter(manager.package(manifest));
    let path = context.environment.get("PATH".as_ref() as &std::ffi::OsStr).cloned().unwrap_or_default();
    let machine = crate::command::locate(Path::new("npm"), &path).and_then(|program| npm_manifest(&program));
    let machine = machine.and_then(|npm| {
        let version = Version::parse(npm.get("version")?.as_str()?).ok()?;
        Some((version, npm.get("engines")?.get("node")?.as_str()?.to_owned()))
    });
    let named = manifest.package_manager().filter(|(name, _)| *name == "npm").map(|(_, version)| version);
    if let Some(wanted) = named.or_else(|| manifest.engine("npm")) {
        let range = Range::parse(wanted).ok();
        let fits = machine.as_ref().zip(range).is_some_and(|((version, _), range)| version.satisfies(&range));
        if !fits {
            packages.push(format!("npm@{wanted}"));
        }
        return packages;
    }
    // An npm that the chosen Node.js cannot run is of no use.
    let version = match node {
        Node::Machine { version, .. } | Node::Registry { version: Some(version), .. } => Version::parse(version).ok(),
        Node::Registry { range, version: None } => Range::parse(range).ok().and_then(|range| range.min_version()),
    };
    let runs = |engines: &str| match (&version, Range::parse(engines)) {
        (Some(version), Ok(range)) => version.satisfies(&range),
        _ => true,
    };
    if !machine.is_some_and(|(_, engines)| runs(&engines)) {
        let major = NPM_FOR.iter().find(|(_, engines)| runs(engines)).map_or("10", |(major, _)| major);
        packages.push(format!("npm@{major}"));
    }
    packages
}

fn npm_manifest(program: &Path) -> Option<serde_json::Value> {
    let real = fs::canonicalize(program).ok()?;
    let text = fs::read(real.parent()?.parent()?.join("package.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

struct Planned {
    manifest: Manifest,
    manager: Manager,
    node: Node,
    packages: Vec<String>,
    production: Production,
    /// Modules are part of the source.
    checked_in: bool,
    /// There is a `server.js`, which `npm start` runs by itself.
    server: bool,
    /// The owner did not forbid to use anything again.
    reuse: bool,
    /// pnpm's several packages.
    workspace: bool,
    tools: Option<LayerPlan>,
    modules: Option<LayerPlan>,
}

impl Planned {
    fn key(&self, layer: &str) -> Key {
        Key::new("nodejs", REVISION)
            .with("layer", layer)
            .with("node", self.node.identity())
            .with("host", toolchain::host_identity())
            .with("packages", self.packages.join(" "))
            .with("production", format!("{:?}", self.production))
    }

    fn has_tools(&self) -> bool {
        matches!(self.node, Node::Registry { .. })
            || !self.packages.is_empty()
            || matches!(self.manager, Manager::YarnBerry { checked_in: Some(_), .. })
    }

    fn tools_layer(&self) -> LayerPlan {
        let checked_in = match &self.manager {
            Manager::YarnBerry { checked_in: Some(path), .. } => path,
            _ => "",
        };
        self.key("tools").with("checked in", checked_in).layer("node", TOOLS)
    }

    fn is_layered(&self) -> bool {
        self.reuse
            && !self.checked_in
            && !self.workspace
            && self.manager.fills_node_modules_only()
            && !self.manifest.has_touching_scripts()
            && !self.manifest.has_local_packages()
    }
}

impl Plan for Planned {
    fn layers(&self) -> Vec<LayerPlan> {
        self.tools.iter().chain(&self.modules).cloned().collect()
    }

    fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        self.environment(build)?;
        self.tools(build)?;
        let modules = build.roots.app.join("node_modules");
        if self.modules.as_ref().is_some_and(|layer| build.is_restored(layer)) {
            build.output.heading("Restoring cache");
            build.output.line("Using the installed modules again: what decides them has not changed.");
        } else if self.modules.is_some() {
            build.remove(&modules)?;
            self.install(build, self.production == Production::Prune || self.production == Production::Only)?;
        } else {
            let folders = self.manifest.cached_folders();
            copy_folders(build, &folders, Direction::Restore, self.reuse)?;
            self.script(build, "heroku-prebuild")?;
            self.install(build, self.production == Production::Only)?;
            let script = ["heroku-postbuild", "build"].into_iter().find(|script| self.manifest.has_script(script));
            if let Some(script) = script {
                build.output.heading("Build");
                self.script(build, script)?;
            }
            copy_folders(build, &folders, Direction::Save, self.reuse)?;
            self.prune(build)?;
            self.script(build, "heroku-cleanup")?;
        }
        remove_notes(&modules)?;
        self.launch(build)
    }
}

impl Planned {
    fn environment(&self, build: &mut Build<'_>) -> Result<()> {
        build.output.heading("Creating runtime environment");
        let environment = match build.config.get("NODE_ENV") {
            Some(environment) => environment.expose().to_owned(),
            None => "production".to_owned(),
        };
        build.output.line(&format!("NODE_ENV={environment}"));
        build.set("NODE_ENV", environment);
        for (name, value) in [
            ("npm_config_audit", "false"),
            ("npm_config_fund", "false"),
            ("npm_config_progress", "false"),
            ("npm_config_update_notifier", "false"),
            ("npm_config_logs_max", "0"),
            ("COREPACK_ENABLE_STRICT", "0"),
            ("YARN_ENABLE_TELEMETRY", "0"),
            ("NEXT_TELEMETRY_DISABLED", "1"),
        ] {
            build.set(name, value);
        }
        let (npm, yarn, pnpm) = (build.cache("npm")?, build.cache("yarn")?, build.cache("pnpm")?);
        build.set("npm_config_cache", npm);
        match &self.manager {
            // In the app, where the started processes find it: without node_modules it is all they have.
            Manager::YarnBerry { node_modules: false, .. } => build.set("YARN_ENABLE_GLOBAL_CACHE", "false"),
            Manager::YarnBerry { .. } => build.set("YARN_GLOBAL_FOLDER", yarn),
            Manager::YarnClassic => build.set("YARN_CACHE_FOLDER", yarn),
            Manager::Pnpm { .. } => build.set("npm_config_store_dir", pnpm),
            Manager::Npm { .. } => {}
        }
        Ok(())
    }

    /// Makes what the machine does not have, and puts it in front.
    fn tools(&self, build: &mut Build<'_>) -> Result<()> {
        build.output.heading("Installing binaries");
        let wanted = |name: &str| self.manifest.engine(name).unwrap_or("unspecified").to_owned();
        build.output.line(&format!("engines.node (package.json):  {}", wanted("node")));
        build.output.line(&format!(
            "engines.{:<4} (package.json):  {}",
            self.manager.program(),
            wanted(self.manager.program())
        ));
        let folder = build.roots.app.join(TOOLS);
        let bin = folder.join("bin");
        let mut headers = PathBuf::from("/usr");
        match &self.node {
            Node::Machine { program, version } => {
                build.output.line(&format!("Using the machine's Node.js {version}"));
                // The app finds the same program by the same path when it runs.
                if let Some(parent) = program.parent().filter(|parent| parent.starts_with(&build.roots.toolchains)) {
                    build.prepend_path(parent);
                }
            }
            Node::Registry { version, .. } => {
                let shown = version.as_deref().unwrap_or("(to be resolved)");
                build.output.line(&format!("Using Node.js {shown} from the npm registry"));
            }
        }
        let restored = self.tools.as_ref().is_some_and(|layer| build.is_restored(layer));
        if self.tools.is_some() && !restored {
            build.remove(&folder)?;
            fs::create_dir_all(&bin).map_err(Error::io("create", &bin))?;
            if let Node::Registry { range, version } = &self.node {
                let version = match version {
                    Some(version) => version.clone(),
                    None => version::resolve(build, range)?,
                };
                let content = version::fetch(build, &version)?;
                let (from, to) = (content.join("bin/node"), bin.join("node"));
                fs::copy(&from, &to).map_err(Error::io("copy", &from))?;
                fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).map_err(Error::io("copy", &to))?;
            }
            for package in &self.packages {
                self.add_package(build, package, &folder)?;
            }
            if let Manager::YarnBerry { checked_in: Some(path), .. } = &self.manager {
                let file = bin.join("yarn");
                let release = build.roots.app.join(path);
                let script = format!("#!/bin/sh\nexec node '{}' \"$@\"\n", release.display());
                fs::write(&file, script).map_err(Error::io("write", &file))?;
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).map_err(Error::io("write", &file))?;
            }
        }
        if let Node::Registry { version: Some(version), .. } = &self.node {
            let content = build.roots.cache.join("node").join(version).join("node_modules");
            headers = fs::read_dir(content)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .find(|path| path.join("include/node").exists())
                .unwrap_or(headers);
        }
        if headers.join("include/node").exists() {
            // npm of the machine warns about the older name, older ones know no other.
            let name = match (&self.manager, self.packages.is_empty()) {
                (Manager::Npm { .. }, true) => "npm_package_config_node_gyp_nodedir",
                _ => "npm_config_nodedir",
            };
            build.set(name, headers);
        }
        build.prepend_path(&build.roots.app.join("node_modules/.bin"));
        build.prepend_path(&bin);
        Ok(())
    }

    fn add_package(&self, build: &mut Build<'_>, package: &str, folder: &Path) -> Result<()> {
        build.output.line(&format!("Installing {package}"));
        let command = build
            .command("npm")
            .arguments(["install", "--silent", "--global", "--ignore-scripts", "--prefix"])
            .arguments([folder.as_os_str().to_owned(), package.into()]);
        let ended = build.run(command)?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Error::explained(
            format!("{package} could not be installed ({}).", ended.why()),
            vec![
                String::new(),
                "Check the version that package.json asks for in engines or packageManager; if it exists, the npm"
                    .to_owned(),
                "registry may be out of reach: try again.".to_owned(),
            ],
        ))
    }

    fn install(&self, build: &mut Build<'_>, production: bool) -> Result<()> {
        let (program, arguments) = (self.manager.program(), self.manager.install(production));
        build.output.heading("Installing dependencies");
        build.output.line(&format!("$ {program} {}", arguments.join(" ")));
        if self.manager == (Manager::Npm { locked: false }) {
            build.output.warning(
                "Warning: no lockfile found.",
                &[
                    "Each build installs the newest versions that package.json allows, which may differ from yours.",
                    "Run \"npm install\", commit package-lock.json and push again to get the same ones every time.",
                ],
            );
        }
        let ended = build.run(build.app_command(program).arguments(arguments))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Error::explained(
            format!("Unable to install dependencies using {program} ({}).", ended.why()),
            vec![
                String::new(),
                "See the output above. If the lock file does not match package.json, install the dependencies on your"
                    .to_owned(),
                "machine, commit both files and push again.".to_owned(),
            ],
        ))
    }

    fn prune(&self, build: &mut Build<'_>) -> Result<()> {
        if self.production == Production::Only || self.checked_in {
            return Ok(());
        }
        build.output.heading("Pruning devDependencies");
        if let Production::Keep(variable) = self.production {
            build.output.line(&format!("Skipping because of the config var {variable}"));
            return Ok(());
        }
        let program = self.manager.program();
        let ended = build.run(build.app_command(program).arguments(self.manager.prune()))?;
        if !ended.status.success() {
            // Development dependencies that stay cost space, not correctness.
            build.output.warning(
                &format!("Warning: {program} could not prune ({}).", ended.why()),
                &["The app is released with its development dependencies."],
            );
        }
        Ok(())
    }

    fn script(&self, build: &mut Build<'_>, name: &str) -> Result<()> {
        if !self.manifest.has_script(name) {
            return Ok(());
        }
        let program = self.manager.program();
        build.output.line(&format!("Running {name}"));
        let ended = build.run(build.app_command(program).arguments(["run", name]))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Error::explained(
            format!("The script \"{name}\" of package.json failed ({}).", ended.why()),
            vec![
                String::new(),
                "See the output above. Config vars that the script needs must be set before the push.".to_owned(),
            ],
        ))
    }

    fn launch(&self, build: &mut Build<'_>) -> Result<Outcome> {
        let mut path = Vec::new();
        if self.tools.is_some() {
            path.push(format!("{LAUNCH_APP}/{TOOLS}/bin"));
        }
        if let Node::Machine { program, .. } = &self.node
            && let Some(parent) = program.parent().filter(|parent| parent.starts_with(&build.roots.toolchains))
        {
            path.push(parent.to_string_lossy().into_owned());
        }
        path.push(format!("{LAUNCH_APP}/bin"));
        path.push(format!("{LAUNCH_APP}/node_modules/.bin"));
        build.profile("nodejs.sh", &path_script(&path))?;
        build.profile("WEB_CONCURRENCY.sh", WEB_CONCURRENCY)?;
        let site = ["dist", "build", "out"]
            .into_iter()
            .find(|folder| build.roots.app.join(folder).join("index.html").exists());
        let web = match site {
            _ if self.manifest.has_script("start") => Some(format!("{} start", self.manager.program())),
            _ if self.server => Some("npm start".to_owned()),
            Some(folder) => Some(format!("{LAUNCH_EXECUTABLE} static-server --root {folder}")),
            None => None,
        };
        Ok(Outcome {
            process_types: web.map(|command| ("web".to_owned(), command)).into_iter().collect(),
            launch_path: path,
            launch_env: [("NODE_ENV".to_owned(), "production".to_owned())].into(),
            ..Outcome::default()
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Restore,
    Save,
}

/// Copies the folders that the owner named from or to the cache.
fn copy_folders(build: &mut Build<'_>, folders: &[String], direction: Direction, reuse: bool) -> Result<()> {
    if folders.is_empty() || !reuse {
        return Ok(());
    }
    let kept = build.cache("node-folders")?;
    build.output.heading(if direction == Direction::Restore { "Restoring cache" } else { "Caching build" });
    for folder in folders {
        let (app, cached) = (build.roots.app.join(folder), kept.join(folder));
        let (from, to) = if direction == Direction::Restore { (cached, app) } else { (app, cached) };
        if !from.is_dir() || (direction == Direction::Restore && to.exists()) {
            build.output.line(&format!(
                "- {folder} (nothing to {})",
                if direction == Direction::Restore { "restore" } else { "cache" }
            ));
            continue;
        }
        build.output.line(&format!("- {folder}"));
        build.remove(&to)?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        build.run(build.command("cp").arguments(["-a", "--"]).arguments([from, to]))?;
    }
    Ok(())
}

/// Package managers note when and where they worked; nothing reads it in a finished app, and it makes equal trees differ.
fn remove_notes(modules: &Path) -> Result<()> {
    for note in [".modules.yaml", ".pnpm-workspace-state.json", ".pnpm-workspace-state-v1.json", ".yarn-state.yml"] {
        let file = modules.join(note);
        match fs::remove_file(&file) {
            Err(error) if file.exists() => return Err(Error::io("remove", &file)(error)),
            _ => {}
        }
    }
    Ok(())
}
