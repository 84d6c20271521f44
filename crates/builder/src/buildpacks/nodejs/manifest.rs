//! `package.json`, as far as a build needs it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    source::Source,
};

/// Scripts that may change the app or its modules: an app that has one is installed and built anew every time.
const TOUCHING: &[&str] = &[
    "preinstall",
    "install",
    "postinstall",
    "prepublish",
    "preprepare",
    "prepare",
    "postprepare",
    "heroku-prebuild",
    "heroku-postbuild",
    "heroku-cleanup",
    "prebuild",
    "build",
    "postbuild",
];

/// A read `package.json`.
#[derive(Debug, Clone, Default)]
pub(super) struct Manifest {
    root: Map<String, Value>,
}

impl Manifest {
    /// Reads the root's `package.json`; an app without one has an empty one.
    ///
    /// # Errors
    /// When it is no JSON object; the text names the line.
    pub(super) fn read(source: &Source) -> Result<Self> {
        let text = source.text("package.json")?.unwrap_or("{}");
        let wrong = |why: String| {
            Error::explained(
                format!("Unable to parse package.json: {why}."),
                vec![
                    String::new(),
                    "The file must be one JSON object. Correct it, commit it and push again.".to_owned(),
                ],
            )
        };
        match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
            Ok(Value::Object(root)) => Ok(Self { root }),
            Ok(_) => Err(wrong("it is not an object".to_owned())),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// A requirement of `engines`.
    pub(super) fn engine(&self, name: &str) -> Option<&str> {
        self.root.get("engines")?.get(name)?.as_str().map(str::trim).filter(|range| !range.is_empty())
    }

    /// `packageManager`: name and exact version, without its checksum.
    pub(super) fn package_manager(&self) -> Option<(&str, &str)> {
        let (name, version) = self.root.get("packageManager")?.as_str()?.split_once('@')?;
        Some((name, version.split('+').next().unwrap_or(version)))
    }

    /// Whether a script is declared.
    pub(super) fn has_script(&self, name: &str) -> bool {
        self.root.get("scripts").and_then(|scripts| scripts.get(name)).is_some_and(Value::is_string)
    }

    /// Whether any script runs while the app is installed or built.
    pub(super) fn has_touching_scripts(&self) -> bool {
        TOUCHING.iter().any(|script| self.has_script(script))
    }

    /// Whether the app is several packages, or depends on folders of its own.
    pub(super) fn has_local_packages(&self) -> bool {
        let local = |range: &Value| {
            let range = range.as_str().unwrap_or_default();
            ["file:", "link:", "portal:", "workspace:", ".", "/", "patch:"].iter().any(|start| range.starts_with(start))
        };
        self.root.contains_key("workspaces")
            || ["dependencies", "devDependencies", "optionalDependencies"]
                .iter()
                .filter_map(|section| self.root.get(*section)?.as_object())
                .any(|section| section.values().any(local))
    }

    /// Folders that the owner wants to be kept between builds, apart from `node_modules`.
    pub(super) fn cached_folders(&self) -> Vec<String> {
        ["cacheDirectories", "cache_directories"]
            .iter()
            .filter_map(|name| self.root.get(*name)?.as_array())
            .flatten()
            .filter_map(|folder| Some(folder.as_str()?.trim_matches('/').trim_start_matches("./").to_owned()))
            .filter(|folder| folder != "node_modules" && is_inside(folder))
            .collect()
    }

    /// What decides which modules are installed, in one form whatever the spelling.
    pub(super) fn dependencies(&self) -> String {
        let sections = [
            "dependencies",
            "devDependencies",
            "optionalDependencies",
            "peerDependencies",
            "overrides",
            "resolutions",
            "pnpm",
            "bundledDependencies",
            "bundleDependencies",
            "engines",
            "packageManager",
            "dependenciesMeta",
        ];
        let chosen: BTreeMap<_, _> = sections.iter().filter_map(|name| Some((*name, self.root.get(*name)?))).collect();
        serde_json::to_string(&chosen).unwrap_or_default()
    }
}

fn is_inside(folder: &str) -> bool {
    !folder.is_empty() && folder.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    fn manifest(text: &str) -> Manifest {
        Manifest::read(&source_of(&[("package.json", text)])).expect("a manifest")
    }

    #[test]
    fn broken_json_is_refused_with_its_line() {
        let error = Manifest::read(&source_of(&[("package.json", "{\n  \"a\": 1,\n}")])).expect_err("broken");
        assert_eq!(error.to_string(), "Unable to parse package.json: trailing comma at line 3 column 1.");
    }

    #[test]
    fn what_a_build_needs_is_found() {
        let manifest = manifest(
            r#"{"engines": {"node": " 20.x "}, "packageManager": "pnpm@9.1.0+sha512.aa", "scripts": {"start": "x"},
                "cacheDirectories": ["node_modules", "./.next/cache", "../x"]}"#,
        );
        assert_eq!(manifest.engine("node"), Some("20.x"));
        assert_eq!(manifest.package_manager(), Some(("pnpm", "9.1.0")));
        assert_eq!(manifest.cached_folders(), [".next/cache"]);
        assert!(manifest.has_script("start") && !manifest.has_touching_scripts() && !manifest.has_local_packages());
    }

    #[test]
    fn apps_whose_modules_depend_on_their_sources_are_seen() {
        assert!(manifest(r#"{"scripts": {"postinstall": "prisma generate"}}"#).has_touching_scripts());
        assert!(manifest(r#"{"workspaces": ["a"]}"#).has_local_packages());
        assert!(manifest(r#"{"dependencies": {"a": "file:../a"}}"#).has_local_packages());
    }
}
