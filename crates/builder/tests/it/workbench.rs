//! A build in a folder of its own, driven as the runtime drives it: both phases, layers restored between builds.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use dozen_builder::{
    phases::{Phase, run},
    roots::Roots,
};
use dozen_domain::{
    buildpack::{BuildLimits, BuildSpec, Reference, Submodule},
    image::{Analysis, BuildPlan, BuildResult},
};

/// Variables of this machine that a build needs to reach package indexes, as an operator would list them.
const PASSED_ON: &[&str] = &[
    "PIP_",
    "NPM_",
    "npm_config_",
    "SSL_",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_",
    "REQUESTS_CA",
    "CURL_CA",
    "CARGO_HTTP",
    "HTTP",
    "http",
    "NO_PROXY",
    "UV_",
];

pub(crate) struct Workbench {
    folder: tempfile::TempDir,
    pub(crate) roots: Roots,
    pub(crate) spec: BuildSpec,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) environment: BTreeMap<OsString, OsString>,
    files: Vec<(String, String, u32)>,
    /// Layers of former builds by key, as the artefact store keeps them.
    layers: BTreeMap<String, PathBuf>,
}

/// What became of a build.
pub(crate) struct Built {
    pub(crate) status: i32,
    pub(crate) output: String,
    pub(crate) analysis: Option<Analysis>,
    pub(crate) result: Option<BuildResult>,
    pub(crate) foreign_ms: u64,
    pub(crate) restored: Vec<String>,
}

impl Built {
    /// The result of a build that has to succeed.
    pub(crate) fn result(&self) -> &BuildResult {
        assert_eq!(self.status, 0, "{}", self.output);
        self.result.as_ref().expect("a build that succeeds leaves a result")
    }

    pub(crate) fn types(&self) -> Vec<(&str, &str)> {
        self.result().process_types.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect()
    }
}

impl Workbench {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut roots = Roots::below(folder.path());
        roots.toolchains = folder.path().join("toolchains");
        let environment = std::env::vars_os()
            .filter(|(key, _)| PASSED_ON.iter().any(|start| key.to_string_lossy().starts_with(start)))
            .collect();
        let limits = BuildLimits { log_bytes: 10_000_000, source_bytes: 100_000_000 };
        let spec = BuildSpec {
            buildpacks: Vec::new(),
            submodules: Vec::new(),
            limits,
            stack: "heroku-24".to_owned(),
            source_version: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        };
        let mut bench = Self {
            folder,
            roots,
            spec,
            config: BTreeMap::new(),
            environment,
            files: Vec::new(),
            layers: BTreeMap::new(),
        };
        for (path, content) in files {
            bench.write(path, content);
        }
        bench
    }

    /// The files of an example of this repository.
    pub(crate) fn example(name: &str) -> Self {
        let mut bench = Self::new(&[]);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        bench.add_folder(&root, &root);
        bench
    }

    fn add_folder(&mut self, root: &Path, folder: &Path) {
        let mut entries: Vec<_> =
            fs::read_dir(folder).expect("an example").map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), "target" | "node_modules" | "__pycache__") {
                self.add_folder(root, &path);
            } else if path.is_file() {
                let mode = fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
                let relative = path.strip_prefix(root).expect("inside").to_string_lossy().into_owned();
                self.files.push((relative, fs::read_to_string(&path).expect("text"), mode));
            }
        }
    }

    /// A folder beside the build's own.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds or changes a file of the source.
    pub(crate) fn write(&mut self, path: &str, content: &str) {
        self.files.retain(|(known, _, _)| known != path);
        let mode = if path.starts_with("bin/") { 0o755 } else { 0o644 };
        self.files.push((path.to_owned(), content.to_owned(), mode));
    }

    pub(crate) fn buildpacks(&mut self, references: &[&str]) {
        self.spec.buildpacks = references.iter().map(|text| text.parse::<Reference>().expect(text)).collect();
    }

    pub(crate) fn submodule(&mut self, path: &str, url: &str, commit: &str) {
        let [path, url, commit] = [path, url, commit].map(str::to_owned);
        self.spec.submodules.push(Submodule { path, url, commit });
    }

    /// Throws the caches and layers away.
    pub(crate) fn purge(&mut self) {
        let _ = fs::remove_dir_all(&self.roots.cache);
        self.layers.clear();
    }

    /// Where the app was built.
    pub(crate) fn app(&self) -> &Path {
        &self.roots.app
    }

    /// Both phases, into an empty `/app` but for layers with equal keys.
    pub(crate) fn build(&mut self) -> Built {
        let _ = fs::remove_dir_all(&self.roots.app);
        let _ = fs::remove_dir_all(&self.roots.build);
        for folder in [&self.roots.app, &self.roots.build, &self.roots.cache, &self.roots.build.join("env")] {
            fs::create_dir_all(folder).expect("created");
        }
        for (key, value) in &self.config {
            fs::write(self.roots.build.join("env").join(key), value).expect("written");
        }
        for (index, reference) in self.spec.buildpacks.iter().enumerate() {
            if let Reference::Path(path) = reference {
                let folder = self.roots.build.join("buildpacks");
                fs::create_dir_all(&folder).expect("created");
                std::os::unix::fs::symlink(path, folder.join(index.to_string())).expect("linked");
            }
        }
        let spec = serde_json::to_vec(&self.spec).expect("serialisable");
        fs::write(self.roots.build.join("spec.json"), spec).expect("written");
        self.archive(&self.roots.build.join("source.tar"));

        let captured = Captured::default();
        let status = self.run(Phase::Analyze, &captured);
        let analysis: Option<Analysis> = self.read("analysis.json");
        let mut built =
            Built { status, output: captured.text(), analysis, result: None, foreign_ms: 0, restored: Vec::new() };
        let Some(analysis) = built.analysis.clone().filter(|_| status == 0) else { return built };
        for layer in &analysis.layers {
            if let Some(kept) = self.layers.get(&layer.key) {
                let to = self.roots.app.join(&layer.path);
                fs::create_dir_all(to.parent().expect("a folder")).expect("created");
                copy(kept, &to);
                built.restored.push(layer.name.clone());
            }
        }
        let plan = BuildPlan { analysis, restored: built.restored.clone() };
        fs::write(self.roots.build.join("plan.json"), serde_json::to_vec(&plan).expect("serialisable"))
            .expect("written");
        built.status = self.run(Phase::Build, &captured);
        built.output = captured.text();
        built.result = self.read("result.json");
        let timing: Option<BTreeMap<String, u64>> = self.read("timing.json");
        built.foreign_ms =
            timing.and_then(|timing| timing.get("foreign_ms").copied()).expect("timing is always written");
        for layer in built.result.iter().flat_map(|result| &result.layers).filter(|_| built.status == 0) {
            let kept = self.folder.path().join("layers").join(&layer.key);
            if !self.layers.contains_key(&layer.key) {
                fs::create_dir_all(kept.parent().expect("a folder")).expect("created");
                copy(&self.roots.app.join(&layer.path), &kept);
                self.layers.insert(layer.key.clone(), kept);
            }
        }
        built
    }

    fn run(&self, phase: Phase, captured: &Captured) -> i32 {
        run(phase, &self.roots, self.environment.clone(), Box::new(captured.clone()))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = fs::read(self.roots.build.join(name)).ok()?;
        Some(serde_json::from_slice(&bytes).expect("valid"))
    }

    fn archive(&self, path: &Path) {
        let mut tar = tar::Builder::new(fs::File::create(path).expect("created"));
        for (name, content, mode) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(*mode);
            header.set_mtime(1_700_000_000);
            tar.append_data(&mut header, name, content.as_bytes()).expect("appended");
        }
        tar.finish().expect("finished");
    }

    /// A digest of every path, mode, link and content below `/app`.
    pub(crate) fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        digest(self.app(), self.app(), &mut tree);
        tree
    }
}

fn digest(root: &Path, folder: &Path, tree: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("inside").to_string_lossy().into_owned();
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let what = if metadata.is_symlink() {
            fs::read_link(&path).expect("a link").to_string_lossy().into_owned()
        } else if metadata.is_dir() {
            digest(root, &path, tree);
            String::new()
        } else {
            let digest = ring::digest::digest(&ring::digest::SHA256, &fs::read(&path).expect("read"));
            data_encoding::HEXLOWER.encode(digest.as_ref())
        };
        tree.insert(name, format!("{:o} {what}", metadata.permissions().mode()));
    }
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg("--").args([from, to]).status().expect("cp runs");
    assert!(status.success());
}

/// Panics with the names of what differs.
pub(crate) fn assert_equal_trees(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) {
    let differs: Vec<_> =
        first.keys().chain(second.keys()).filter(|name| first.get(*name) != second.get(*name)).collect();
    assert!(differs.is_empty(), "these differ: {differs:#?}");
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic while held")).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
