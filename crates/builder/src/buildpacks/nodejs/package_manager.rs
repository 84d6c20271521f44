//! npm, Yarn and pnpm: which one an app uses, which version, and the commands that install and prune.
//!
//! Making a command and running it are two things: the first is pure and tested here.

use super::manifest::Manifest;
use crate::{
    error::{Error, Result},
    source::Source,
};

/// A package manager as this app uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manager {
    /// npm; without a lock file it installs what is newest.
    Npm {
        /// Whether there is a `package-lock.json` or `npm-shrinkwrap.json`.
        locked: bool,
    },
    /// Yarn 1.
    YarnClassic,
    /// Yarn 2 and later.
    YarnBerry {
        /// Major version, from the lock file.
        major: u8,
        /// The release checked in with the app (`yarnPath`).
        checked_in: Option<String>,
        /// Modules are in `node_modules`, not in Yarn's own archive.
        node_modules: bool,
    },
    /// pnpm.
    Pnpm {
        /// Major version, from the lock file.
        major: u8,
    },
}

/// Lock files and who writes them.
const LOCKS: &[(&str, &str)] =
    &[("package-lock.json", "npm"), ("npm-shrinkwrap.json", "npm"), ("yarn.lock", "Yarn"), ("pnpm-lock.yaml", "pnpm")];

impl Manager {
    /// Chooses by the lock file.
    pub(super) fn choose(source: &Source) -> Result<Self> {
        let there: Vec<_> = LOCKS.iter().filter(|(file, _)| source.has(file)).collect();
        let mut managers: Vec<_> = there.iter().map(|(_, manager)| *manager).collect();
        managers.dedup();
        if managers.len() > 1 {
            let files: Vec<_> = there.iter().map(|(file, _)| *file).collect();
            return Err(Error::explained(format!("Build failed: conflicting lockfiles found ({}).", files.join(", ")), vec![
                String::new(),
                "Each belongs to another package manager and may install other versions. Keep the one of the manager".to_owned(),
                format!("that you use and remove the rest, for example: git rm {}", files[files.len() - 1]),
            ]));
        }
        Ok(match managers.first() {
            None => Self::Npm { locked: false },
            Some(&"npm") => Self::Npm { locked: true },
            Some(&"pnpm") => Self::Pnpm { major: pnpm_major(source.text("pnpm-lock.yaml")?.unwrap_or_default()) },
            Some(_) => {
                let lock = source.text("yarn.lock")?.unwrap_or_default();
                let settings = source.text(".yarnrc.yml")?;
                let value = |key: &str| {
                    let lines = settings.unwrap_or_default().lines();
                    let value = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(':')).next_back()?;
                    Some(value.trim().trim_matches(['"', '\'']).to_owned())
                };
                match field(lock, "  version:").filter(|_| lock.contains("__metadata:")) {
                    None if settings.is_none() || lock.contains("# yarn lockfile v1") => Self::YarnClassic,
                    version => Self::YarnBerry {
                        major: if version.is_some_and(|version| version < 8) { 3 } else { 4 },
                        checked_in: value("yarnPath"),
                        node_modules: value("nodeLinker").is_some_and(|linker| linker != "pnp"),
                    },
                }
            }
        })
    }

    /// Its command.
    pub(super) fn program(&self) -> &'static str {
        match self {
            Self::Npm { .. } => "npm",
            Self::YarnClassic | Self::YarnBerry { .. } => "yarn",
            Self::Pnpm { .. } => "pnpm",
        }
    }

    /// Files whose contents decide what is installed.
    pub(super) fn deciding_files(&self) -> &'static [&'static str] {
        match self {
            Self::Npm { .. } => &["package-lock.json", "npm-shrinkwrap.json", ".npmrc"],
            Self::YarnClassic => &["yarn.lock", ".npmrc", ".yarnrc"],
            Self::YarnBerry { .. } => &["yarn.lock", ".npmrc", ".yarnrc.yml"],
            Self::Pnpm { .. } => &["pnpm-lock.yaml", ".npmrc", "pnpm-workspace.yaml", ".pnpmfile.cjs"],
        }
    }

    /// Whether `node_modules` alone holds what is installed.
    pub(super) fn fills_node_modules_only(&self) -> bool {
        !matches!(self, Self::YarnBerry { .. })
    }

    /// The package to install to have this manager, unless the machine's (npm) or the app's own (Yarn) will do.
    pub(super) fn package(&self, manifest: &Manifest) -> Option<String> {
        let named = manifest.package_manager().filter(|(name, _)| *name == self.program()).map(|(_, version)| version);
        let wanted = named.or_else(|| manifest.engine(self.program()));
        match self {
            Self::Npm { .. } | Self::YarnBerry { checked_in: Some(_), .. } => None,
            Self::YarnClassic => Some(format!("yarn@{}", wanted.unwrap_or("1.22.22"))),
            Self::YarnBerry { major, checked_in: None, .. } => {
                let default = if *major < 4 { "3.8.6" } else { "4.18.1" };
                Some(format!("@yarnpkg/cli-dist@{}", wanted.unwrap_or(default)))
            }
            Self::Pnpm { major } => {
                let default = match major {
                    ..=7 => "7.33.7",
                    8 => "8.15.9",
                    9.. => "10.34.8",
                };
                Some(format!("pnpm@{}", wanted.unwrap_or(default)))
            }
        }
    }

    /// Arguments that install; without development dependencies when `production`.
    pub(super) fn install(&self, production: bool) -> Vec<&'static str> {
        match self {
            Self::Npm { locked } => {
                let verb: &[_] = if *locked { &["ci"] } else { &["install", "--no-package-lock"] };
                [verb, &[if production { "--omit=dev" } else { "--include=dev" }, "--prefer-offline"]].concat()
            }
            Self::YarnClassic => {
                let common: &[_] =
                    &["install", "--frozen-lockfile", "--ignore-engines", "--prefer-offline", "--non-interactive"];
                [common, &[if production { "--production=true" } else { "--production=false" }]].concat()
            }
            Self::YarnBerry { .. } => vec!["install", "--immutable"],
            Self::Pnpm { .. } => {
                let common: &[_] = &["install", "--frozen-lockfile", "--prefer-offline", "--reporter=append-only"];
                [common, if production { &["--prod"] } else { &["--prod=false"] }].concat()
            }
        }
    }

    /// Arguments that remove development dependencies after the build.
    pub(super) fn prune(&self) -> Vec<&'static str> {
        match self {
            Self::Npm { .. } => vec!["prune", "--omit=dev"],
            Self::YarnClassic => vec![
                "install",
                "--frozen-lockfile",
                "--ignore-engines",
                "--ignore-scripts",
                "--prefer-offline",
                "--non-interactive",
                "--production=true",
            ],
            Self::YarnBerry { .. } => vec!["workspaces", "focus", "--all", "--production"],
            Self::Pnpm { .. } => vec!["prune", "--prod", "--ignore-scripts"],
        }
    }
}

fn field(text: &str, key: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

/// The major version of pnpm that writes a lock file: 5.x is version 7's, 6.0 version 8's, 9.0 that of 9 and later.
fn pnpm_major(lock: &str) -> u8 {
    let version = lock.lines().find_map(|line| line.strip_prefix("lockfileVersion:")).unwrap_or_default();
    match version.trim().trim_matches(['"', '\'']).split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(..=5) => 7,
        Some(6..=8) => 8,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    fn check(files: &[(&str, &str)], expected: Manager, package: Option<&str>) {
        let source = source_of(files);
        let manager = Manager::choose(&source).expect("a manager");
        assert_eq!(manager, expected);
        let manifest = Manifest::read(&source).expect("a manifest");
        assert_eq!(manager.package(&manifest).as_deref(), package);
    }

    #[test]
    fn the_manager_and_its_version_follow_from_the_lock_file() {
        check(&[], Manager::Npm { locked: false }, None);
        check(&[("package-lock.json", "{}")], Manager::Npm { locked: true }, None);
        check(&[("yarn.lock", "# yarn lockfile v1\n")], Manager::YarnClassic, Some("yarn@1.22.22"));
        let berry = Manager::YarnBerry { major: 4, checked_in: None, node_modules: true };
        let files = [("yarn.lock", "__metadata:\n  version: 8\n"), (".yarnrc.yml", "nodeLinker: node-modules\n")];
        check(&files, berry, Some("@yarnpkg/cli-dist@4.18.1"));
        check(&[("pnpm-lock.yaml", "lockfileVersion: '6.0'\n")], Manager::Pnpm { major: 8 }, Some("pnpm@8.15.9"));
        let files =
            [("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"), ("package.json", r#"{"packageManager": "pnpm@9.1.0"}"#)];
        check(&files, Manager::Pnpm { major: 10 }, Some("pnpm@9.1.0"));
    }

    #[test]
    fn two_lock_files_are_refused() {
        let source = source_of(&[("package-lock.json", "{}"), ("yarn.lock", "")]);
        let error = Manager::choose(&source).expect_err("a conflict");
        assert!(error.to_string().contains("package-lock.json, yarn.lock"), "{error}");
    }

    #[test]
    fn locked_installs_never_change_the_lock_file() {
        assert_eq!(Manager::Npm { locked: true }.install(true), ["ci", "--omit=dev", "--prefer-offline"]);
        assert!(Manager::YarnClassic.install(false).contains(&"--frozen-lockfile"));
        assert!(Manager::Pnpm { major: 10 }.install(false).contains(&"--frozen-lockfile"));
    }
}
