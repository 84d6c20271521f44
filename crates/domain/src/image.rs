//! What a build makes: layers, process types and launch environment. The Platform API calls it a slug.
//!
//! These are the words spoken between the builder, which runs inside the build's container, and the artefact store
//! outside it: `analysis.json` after the first phase, `result.json` after the second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::ProcessType;

/// `sha256:` and 64 hexadecimal digits, of an OCI manifest or blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

/// Commands by process type, in the order of the Procfile.
pub type ProcessTypes = Vec<(ProcessType, String)>;

/// A subtree of `/app` that is a layer of its own because it changes for other reasons than the source does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPlan {
    /// Name unique in the image: `python`, `node_modules`.
    pub name: String,
    /// Path relative to `/app`: `.heroku/python`, `node_modules`.
    pub path: String,
    /// Digest of everything that decides the contents (lock files, versions, buildpack). Equal key, equal layer.
    pub key: String,
}

/// First phase's answer: which buildpacks take the source and which layers they would make. No side effects yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// Display names of the buildpacks, in order.
    pub buildpacks: Vec<String>,
    /// Layers that may be restored. The artefact store mounts those it still has below `/app` in the second phase.
    pub layers: Vec<LayerPlan>,
}

/// Second phase's request, `plan.json`: the analysis and which of its layers are there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// What the first phase found.
    pub analysis: Analysis,
    /// Names of layers that are mounted and need no work.
    pub restored: Vec<String>,
}

/// Second phase's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildResult {
    /// What the detected buildpacks call themselves together: `Python`, `Node.js`.
    pub language: String,
    /// The built-in buildpack that was found by detection, by its short name; nothing when buildpacks were asked for, or
    /// when what was found takes any app that nothing else does.
    #[serde(default)]
    pub detected: Option<String>,
    /// Commands by process type.
    pub process_types: ProcessTypes,
    /// Environment that the launch of every process sets, below config vars.
    pub launch_env: BTreeMap<String, String>,
    /// Config vars that the buildpack sets on an app's first deploy when they are not there.
    pub config_defaults: BTreeMap<String, String>,
    /// Layers made or restored, in the order of the analysis; the rest of `/app` is the last layer.
    pub layers: Vec<LayerPlan>,
    /// The timed jobs of `app.json`, all of them; nothing when it does not speak of them.
    #[serde(default)]
    pub cron: Option<Vec<crate::cron::Asked>>,
    /// The path of the health check of `app.json`, if it has one.
    #[serde(default)]
    pub health_check: Option<String>,
}
