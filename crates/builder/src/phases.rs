//! The two phases: analysis, which reads and decides, and the build proper.
//!
//! Both read the same request and source. Files in `/build`: `spec.json`, `source.tar`, `env/<KEY>` and (second phase)
//! `plan.json` are read; `analysis.json` (first phase), `result.json` and `timing.json` (second phase) are written.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::Write,
    path::Path,
    time::Duration,
};

use dozen_domain::{
    buildpack::{BuildSpec, Reference},
    config::{Secret, Vars},
    cron, health,
    image::{Analysis, BuildPlan, BuildResult, LayerPlan, ProcessTypes},
    procfile,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    build::{Build, Buildpack, Context, EPOCH, Outcome, Plan},
    buildpacks::{self, classic::Classic},
    command::Environment,
    error::{Error, Result},
    output::Output,
    roots::Roots,
    source::Source,
    toolchain::Versions,
};

/// Where programs are looked for when the runtime says nothing.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Which half of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads, detects, names the layers.
    Analyze,
    /// Does the work.
    Build,
}

/// Runs one phase, writing for the pusher into `sink`; answers the exit status: 0 done, 1 the owner's mistake
/// (explained in `sink`), 2 ours.
pub fn run(phase: Phase, roots: &Roots, environment: Environment, sink: Box<dyn Write + Send>) -> i32 {
    let mut output = Output::new(sink, u64::MAX);
    let mut spent = Duration::ZERO;
    let done = match phase {
        Phase::Analyze => analyze(roots, environment, &mut output),
        Phase::Build => build(roots, environment, &mut output, &mut spent),
    };
    let timing = (phase == Phase::Build)
        .then(|| write_json(&roots.build.join("timing.json"), &Timing { foreign_ms: spent.as_millis() as u64 }));
    match done.and(timing.unwrap_or(Ok(()))) {
        Ok(()) => 0,
        Err(Failed { error, language }) => {
            match &error {
                Error::Rejected(explanation) => {
                    output.error(explanation);
                    if let Some(language) = language {
                        output.warning("", &[]);
                        output.warning(&format!("Push rejected, failed to compile {language} app."), &[]);
                    }
                }
                Error::Io { .. } | Error::Format { .. } => {
                    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
                    let causes: String = causes.map(|cause| format!(": {cause}")).collect();
                    output.warning(&format!("The platform failed to {error}{causes}."), &[
                        "This is not your app's fault. Try again, and tell whoever runs the platform if it happens again.",
                    ]);
                }
            }
            error.exit_code()
        }
    }
}

/// Time spent in foreign programs, for measurements.
#[derive(Serialize)]
struct Timing {
    foreign_ms: u64,
}

/// A failure, and whose compilation it ended.
struct Failed {
    error: Error,
    language: Option<String>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, language: None }
    }
}

/// What both phases are given.
struct Request {
    spec: BuildSpec,
    source: Source,
    config: Vars,
    environment: Environment,
    versions: RefCell<Versions>,
}

impl Request {
    fn read(roots: &Roots, environment: Environment, output: &mut Output) -> Result<Self> {
        let spec: BuildSpec = read_json(&roots.build.join("spec.json"))?;
        output.set_limit(spec.limits.log_bytes);
        let config = read_config(&roots.build.join("env"))?;
        let environment = with_defaults(environment, roots, &spec);
        let source = Source::read(&roots.build.join("source.tar"))?;
        Ok(Self { spec, source, config, environment, versions: RefCell::new(Versions::load(&roots.cache)) })
    }

    fn context<'a>(&'a self, roots: &'a Roots, source: &'a Source) -> Context<'a> {
        Context { roots, source, config: &self.config, environment: &self.environment, versions: &self.versions }
    }
}

/// One of the buildpacks of this build.
enum Chosen {
    BuiltIn(Box<dyn Buildpack>),
    Classic(Classic),
}

impl Chosen {
    fn name(&self) -> String {
        match self {
            Self::BuiltIn(buildpack) => buildpack.name().to_owned(),
            Self::Classic(buildpack) => buildpack.reference().to_owned(),
        }
    }
}

fn analyze(roots: &Roots, environment: Environment, output: &mut Output) -> std::result::Result<(), Failed> {
    let request = Request::read(roots, environment, output);
    if let Ok(request) = &request {
        output.heading(&format!("Building on the {} stack", request.spec.stack));
    }
    let request = request?;
    declared(request.source.text("Procfile")?)?;
    jobs(&request.source, Some(output))?;
    health_check(&request.source, Some(output))?;
    let chosen = choose(&request, Some(output))?;
    let mut layers = Vec::new();
    for (index, buildpack) in chosen.iter().enumerate() {
        let Chosen::BuiltIn(builtin) = buildpack else { break };
        // A buildpack that comes first finds the source as it is; what later ones find is known only then, unless all
        // before them are built in, which leave the source's own files alone.
        let named = |error| Failed { error, language: Some(builtin.name().to_owned()) };
        if index == 0 {
            check_detected(builtin.as_ref(), &request.source, &request.spec.buildpacks)?;
            output.heading(&format!("{} app detected", builtin.name()));
        }
        layers.extend(builtin.plan(&request.context(roots, &request.source)).map_err(named)?.layers());
    }
    let analysis = Analysis { buildpacks: chosen.iter().map(Chosen::name).collect(), layers };
    write_json(&roots.build.join("analysis.json"), &analysis)?;
    Ok(())
}

fn build(
    roots: &Roots,
    environment: Environment,
    output: &mut Output,
    spent: &mut Duration,
) -> std::result::Result<(), Failed> {
    let request = Request::read(roots, environment, output)?;
    let BuildPlan { analysis, restored } = read_json(&roots.build.join("plan.json"))?;
    let restored: BTreeSet<String> = restored.into_iter().collect();
    let chosen = choose(&request, None)?;
    let mut build = Build {
        roots,
        spec: &request.spec,
        config: &request.config,
        output,
        environment: request.environment.clone(),
        spent: Duration::ZERO,
        analysis: &analysis,
        restored: &restored,
    };
    let compiled = compile(&request, &chosen, &mut build);
    *spent = build.spent;
    let (mut outcomes, made) = compiled?;
    let (process_types, launch_env) = (process_types(roots, &outcomes, output)?, launch_env(&outcomes));
    // Layers that analysis did not announce stay in the app's own layer; their keys are as finally decided.
    let known = |layer: &&LayerPlan| made.iter().find(|made| made.name == layer.name && made.path == layer.path);
    let result = BuildResult {
        detected: detected(&request, &chosen),
        language: chosen.iter().map(Chosen::name).collect::<Vec<_>>().join(", "),
        process_types,
        launch_env,
        config_defaults: outcomes.iter_mut().flat_map(|outcome| std::mem::take(&mut outcome.config_defaults)).collect(),
        layers: analysis.layers.iter().filter_map(|layer| known(&layer).cloned()).collect(),
        cron: jobs(&request.source, None)?,
        health_check: health_check(&request.source, None)?,
    };
    write_json(&roots.build.join("result.json"), &result)?;
    Ok(())
}

/// Unpacks and lets every buildpack work, in order.
fn compile(
    request: &Request,
    chosen: &[Chosen],
    build: &mut Build<'_>,
) -> std::result::Result<(Vec<Outcome>, Vec<LayerPlan>), Failed> {
    // Plans of leading built-in buildpacks are made again before the first side effect, as in the first phase.
    let context = request.context(build.roots, &request.source);
    let mut plans: Vec<Option<Box<dyn Plan>>> = Vec::new();
    for buildpack in chosen {
        plans.push(match buildpack {
            Chosen::BuiltIn(builtin) if plans.iter().all(Option::is_some) => {
                let named = |error| Failed { error, language: Some(builtin.name().to_owned()) };
                Some(builtin.plan(&context).map_err(named)?)
            }
            _ => None,
        });
    }
    let home = build.roots.build.join("home");
    fs::create_dir_all(&home).map_err(Error::io("create", &home))?;
    request.source.unpack(&build.roots.app, request.spec.limits.source_bytes)?;
    crate::source::submodule::fetch(build)?;
    let (mut outcomes, mut layers) = (Vec::new(), Vec::new());
    for (index, (buildpack, plan)) in chosen.iter().zip(plans).enumerate() {
        let language = buildpack.name();
        let named = |error| Failed { error, language: Some(language.clone()) };
        match buildpack {
            Chosen::BuiltIn(builtin) => {
                if index > 0 {
                    let source = Source::list(&build.roots.app)?;
                    check_detected(builtin.as_ref(), &source, &request.spec.buildpacks)?;
                    build.output.heading(&format!("{} app detected", builtin.name()));
                }
                let plan = match plan {
                    Some(plan) => plan,
                    None => {
                        let source = Source::list(&build.roots.app)?;
                        builtin.plan(&request.context(build.roots, &source)).map_err(named)?
                    }
                };
                outcomes.push(plan.build(build).map_err(named)?);
                layers.extend(plan.layers());
            }
            Chosen::Classic(classic) => {
                let detected = classic.detect(build)?;
                build.output.heading(&format!("{} app detected", detected.name));
                let named = |error| Failed { error, language: Some(detected.name.clone()) };
                outcomes.push(detected.build(build).map_err(named)?);
            }
        }
    }
    Ok((outcomes, layers))
}

/// The buildpacks asked for, or the first built-in one that takes the source. Tells the pusher when `output` is given.
fn choose(request: &Request, output: Option<&mut Output>) -> Result<Vec<Chosen>> {
    let asked = &request.spec.buildpacks;
    if asked.is_empty() {
        return detect(&request.source, output).map(|buildpack| vec![Chosen::BuiltIn(buildpack)]);
    }
    if let Some(output) = output {
        if let [only] = asked.as_slice() {
            output.heading(&format!("Using buildpack: {only}"));
        } else {
            output.heading("Using buildpacks:");
            for (index, reference) in asked.iter().enumerate() {
                output.line(&format!("{}. {reference}", index + 1));
            }
        }
    }
    asked.iter().enumerate().map(|(index, reference)| chosen(index, reference)).collect()
}

fn chosen(index: usize, reference: &Reference) -> Result<Chosen> {
    let Reference::BuiltIn(name) = reference else { return Ok(Chosen::Classic(Classic::new(index, reference))) };
    buildpacks::by_name(name).map(Chosen::BuiltIn).ok_or_else(|| {
        Error::explained(
            format!("There is no built-in buildpack \"{name}\"."),
            vec![
                String::new(),
                format!("Built in are: {}.", dozen_domain::buildpack::BUILT_IN.join(", ")),
                "Set one of them, or the URL of a buildpack, with \"heroku buildpacks:set\".".to_owned(),
            ],
        )
    })
}

/// Whether a buildpack takes apps for what they are written in. The last ones take what nobody else does.
fn is_language(buildpack: &dyn Buildpack) -> bool {
    !matches!(buildpack.name(), "Static" | "Procfile")
}

/// What [`BuildResult::detected`] says.
fn detected(request: &Request, chosen: &[Chosen]) -> Option<String> {
    let [Chosen::BuiltIn(only)] = chosen else { return None };
    let found = request.spec.buildpacks.is_empty() && is_language(only.as_ref());
    let index = buildpacks::all().iter().position(|known| known.name() == only.name())?;
    found.then(|| dozen_domain::buildpack::BUILT_IN.get(index).map(|name| (*name).to_owned())).flatten()
}

fn detect(source: &Source, output: Option<&mut Output>) -> Result<Box<dyn Buildpack>> {
    let mut quiet = Output::new(Box::new(std::io::sink()), u64::MAX);
    let output = output.unwrap_or(&mut quiet);
    output.heading("Determining which buildpack to use for this app");
    let mut able: Vec<_> = buildpacks::all().into_iter().filter(|buildpack| buildpack.detect(source)).collect();
    let languages = able.iter().filter(|buildpack| is_language(buildpack.as_ref()));
    let names: Vec<_> = languages.map(|buildpack| buildpack.name()).collect();
    if names.len() > 1 {
        output.warning("Warning: Multiple default buildpacks reported the ability to handle this app. The first buildpack in the list below will be used.", &[
            &format!("Detected buildpacks: {}", names.join(", ")),
            "Choose one, or an order of several, with \"heroku buildpacks:set\" and \"heroku buildpacks:add\".",
        ]);
    }
    if able.is_empty() {
        return Err(Error::rejected(
            "No default language could be detected for this app.",
            [
                "HINT: This occurs when the buildpack to use for this application cannot be detected automatically.",
                "",
                "The root of the repository must hold one of: package.json (Node.js); requirements.txt, uv.lock or",
                "poetry.lock (Python); Cargo.toml (Rust); go.mod (Go); index.html, public/index.html or static.json",
                "(static site); Procfile (nothing to build).",
                "If the app lies in a subfolder, push that folder as the root; or set a buildpack with",
                "\"heroku buildpacks:set\".",
            ],
        ));
    }
    Ok(able.swap_remove(0))
}

fn check_detected(buildpack: &dyn Buildpack, source: &Source, asked: &[Reference]) -> Result<()> {
    if asked.is_empty() || buildpack.detect(source) {
        return Ok(());
    }
    Err(Error::explained(
        format!("App not compatible with buildpack: {}", buildpack.name()),
        vec![
            String::new(),
            "The buildpack did not find the files it works with in the root of the source.".to_owned(),
            "Push an app that has them, or remove the buildpack with \"heroku buildpacks:remove\".".to_owned(),
        ],
    ))
}

/// A `Procfile`'s process types, with every mistake told.
fn declared(text: Option<&str>) -> Result<ProcessTypes> {
    procfile::parse(text.unwrap_or_default()).map_err(|procfile::Invalid(mistakes)| {
        let mut details: Vec<String> = mistakes.iter().map(|mistake| format!("Procfile, {mistake}.")).collect();
        details.push(String::new());
        details.push("Correct the Procfile, commit it and push again.".to_owned());
        Error::explained("The Procfile is not valid.", details)
    })
}

/// The timed jobs of `app.json`. One that is no JSON at all is none of ours; the pusher is told once.
fn jobs(source: &Source, output: Option<&mut Output>) -> Result<Option<Vec<cron::Asked>>> {
    let Some(text) = source.text("app.json")? else { return Ok(None) };
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        if let Some(output) = output {
            output.warning(&format!("Warning: app.json is not valid JSON ({error}); nothing in it is used."), &[]);
        }
        return Ok(None);
    }
    cron::of_app_json(text).map_err(|error| {
        Error::explained(
            format!("The cron jobs of app.json cannot be used: {error}."),
            vec![String::new(), "Correct app.json, commit it and push again.".to_owned()],
        )
    })
}

/// The path of the health check of `app.json`; with an output the pusher is told what is not used.
fn health_check(source: &Source, output: Option<&mut Output>) -> Result<Option<String>> {
    let Some(text) = source.text("app.json")? else { return Ok(None) };
    if serde_json::from_str::<serde_json::Value>(text).is_err() {
        return Ok(None); // `jobs` says so
    }
    let checks = health::of_app_json(text).map_err(|error| {
        Error::explained(
            format!("The health checks of app.json cannot be used: {error}."),
            vec![String::new(), "Correct app.json, commit it and push again.".to_owned()],
        )
    })?;
    if let Some(output) = output.filter(|_| !checks.unused.is_empty()) {
        let what = checks.unused.join(", ");
        output.warning(
            &format!("Warning: not used of app.json: {what}. The first startup check of web that has a path is."),
            &[],
        );
    }
    Ok(checks.path)
}

/// Joins the `Procfile` with the buildpacks' default types and tells the pusher.
fn process_types(roots: &Roots, outcomes: &[Outcome], output: &mut Output) -> Result<ProcessTypes> {
    let app = &roots.app;
    let path = app.join("Procfile");
    let text = match fs::read(&path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let mut types = declared(text.as_deref())?;
    let names = |types: &[String]| if types.is_empty() { "(none)".to_owned() } else { types.join(", ") };
    let from_procfile: Vec<String> = types.iter().map(|(name, _)| name.to_string()).collect();
    let mut defaults = Vec::new();
    // The last buildpack decides: it is the app's own language.
    for (name, command) in outcomes.iter().rev().flat_map(|outcome| &outcome.process_types) {
        let name = name.parse().map_err(|_| {
            Error::explained(format!("A buildpack declares a process type that cannot be: \"{name}\"."), Vec::new())
        })?;
        if !types.iter().any(|(known, _)| *known == name) {
            defaults.push(name.to_string());
            types.push((name, command.clone()));
        }
    }
    output.heading("Discovering process types");
    if defaults.is_empty() {
        output.line(&format!("Procfile declares types -> {}", names(&from_procfile)));
    } else {
        output.line(&format!("Procfile declares types     -> {}", names(&from_procfile)));
        output.line(&format!("Default types for buildpack -> {}", names(&defaults)));
    }
    Ok(types)
}

fn launch_env(outcomes: &[Outcome]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for outcome in outcomes {
        env.extend(outcome.launch_env.clone());
    }
    let mut path: Vec<&str> = outcomes.iter().rev().flat_map(|o| o.launch_path.iter().map(String::as_str)).collect();
    path.push(DEFAULT_PATH);
    env.insert("PATH".to_owned(), path.join(":"));
    env
}

/// The environment of foreign programs: what the runtime set, and what makes builds repeatable.
fn with_defaults(mut environment: Environment, roots: &Roots, spec: &BuildSpec) -> Environment {
    let mut default = |key: &str, value: OsString| {
        environment.entry(key.into()).or_insert(value);
    };
    default("PATH", DEFAULT_PATH.into());
    default("LANG", "C.UTF-8".into());
    default("STACK", spec.stack.clone().into());
    default("SOURCE_VERSION", spec.source_version.clone().into());
    default("SOURCE_DATE_EPOCH", EPOCH.into());
    // What tools keep in the home folder belongs neither in the app nor in a place that lasts.
    environment.insert("HOME".into(), roots.build.join("home").into());
    environment.insert("XDG_CACHE_HOME".into(), roots.cache.join("xdg").into());
    environment
}

/// Config vars: one file each, as a buildpack's `ENV_DIR`.
fn read_config(folder: &Path) -> Result<Vars> {
    let mut config = Vars::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(config),
        Err(error) => return Err(Error::io("list", folder)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let value = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        config.insert(name.to_owned(), Secret::new(value));
    }
    Ok(config)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Format {
        operation: "understand",
        path: path.to_owned(),
        source,
    })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> std::result::Result<(), Failed> {
    let bytes = serde_json::to_vec(value)
        .map_err(|source| Failed::from(Error::Format { operation: "write", path: path.to_owned(), source }))?;
    Ok(fs::write(path, bytes).map_err(Error::io("write", path))?)
}
