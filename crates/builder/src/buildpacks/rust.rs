//! Rust: `cargo build --release` with the toolchain that the operator provides; binaries end up in `target/release`.
//!
//! Cargo's home and the target folder are in the cache, so that only what changed is compiled again. They are not part
//! of the app: a dyno needs the binaries alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dozen_domain::image::LayerPlan;
use serde::Deserialize;

use crate::{
    build::{Build, Buildpack, Context, Outcome, Plan, path_script},
    command,
    error::{Error, Result},
    roots::LAUNCH_APP,
    source::Source,
};

/// The buildpack.
#[derive(Debug)]
pub(crate) struct Rust;

impl Buildpack for Rust {
    fn name(&self) -> &'static str {
        "Rust"
    }

    fn detect(&self, source: &Source) -> bool {
        source.has("Cargo.toml")
    }

    fn plan(&self, context: &Context<'_>) -> Result<Box<dyn Plan>> {
        let source = context.source;
        let manifest = source.text("Cargo.toml")?.unwrap_or_default();
        let manifest: Manifest = toml::from_str(manifest).map_err(|error| {
            let line = error.span().map_or(1, |span| manifest[..span.start].matches('\n').count() + 1);
            Error::explained(
                format!("Unable to parse Cargo.toml, line {line}: {}.", error.message()),
                vec![String::new(), "Correct the file, commit it and push again.".to_owned()],
            )
        })?;
        if !source.has("Cargo.lock") {
            return Err(Error::rejected(
                "There is no Cargo.lock.",
                [
                    "",
                    "An app's builds must use the same crates every time. Run \"cargo generate-lockfile\", make sure that",
                    ".gitignore does not list Cargo.lock, commit it and push again.",
                ],
            ));
        }
        let bin = toolchain(context)?;
        let version = context.version(&bin.join("rustc")).unwrap_or_else(|| "(unknown)".to_owned());
        let pinned = pinned(source)?;
        let release_flags = context.config("CARGO_BUILD_FLAGS").unwrap_or("--release --locked");
        Ok(Box::new(Planned {
            bin,
            version,
            pinned,
            default_run: manifest.package.and_then(|package| package.default_run),
            flags: release_flags.split_whitespace().map(str::to_owned).collect(),
        }))
    }
}

#[derive(Deserialize)]
struct Manifest {
    package: Option<Package>,
}

#[derive(Deserialize)]
struct Package {
    #[serde(rename = "default-run")]
    default_run: Option<String>,
}

/// The folder of `cargo` and `rustc`.
fn toolchain(context: &Context<'_>) -> Result<PathBuf> {
    let own = context.roots.toolchains.join("rust/bin");
    if command::is_executable(&own.join("cargo")) {
        return Ok(own);
    }
    let path = context.environment.get("PATH".as_ref() as &std::ffi::OsStr).cloned().unwrap_or_default();
    command::locate(Path::new("cargo"), &path).and_then(|cargo| Some(cargo.parent()?.to_owned())).ok_or_else(|| {
        Error::rejected(
            "There is no Rust toolchain on this machine.",
            [
                "",
                "Whoever runs the platform can install one, for example with \"apt-get install cargo\", or name the folder of",
                "one in DOZEN_RUST_SYSROOT, and start the platform again.",
            ],
        )
    })
}

/// The channel of `rust-toolchain.toml`, when it is a version.
fn pinned(source: &Source) -> Result<Option<String>> {
    let text = match source.text("rust-toolchain.toml")? {
        Some(text) => text,
        None => source.text("rust-toolchain")?.unwrap_or_default(),
    };
    let channel = toml::from_str::<toml::Table>(text)
        .ok()
        .and_then(|table| Some(table.get("toolchain")?.get("channel")?.as_str()?.to_owned()))
        .unwrap_or_else(|| text.trim().to_owned());
    Ok(channel.starts_with(|c: char| c.is_ascii_digit()).then_some(channel))
}

struct Planned {
    bin: PathBuf,
    version: String,
    pinned: Option<String>,
    default_run: Option<String>,
    flags: Vec<String>,
}

/// A line of `--message-format=json`.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Plan for Planned {
    fn layers(&self) -> Vec<LayerPlan> {
        Vec::new()
    }

    fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        build.output.heading(&format!("Using Rust {}", self.version));
        if let Some(pinned) = self.pinned.as_ref().filter(|pinned| !self.version.starts_with(pinned.as_str())) {
            build.output.warning(
                &format!("Warning: rust-toolchain asks for {pinned}, which is not on this machine."),
                &["The build goes on with the version above; ask whoever runs the platform to install the other."],
            );
        }
        let (home, target) = (build.cache("cargo")?, build.cache("target")?);
        build.prepend_path(&self.bin);
        build.set("CARGO_HOME", home);
        build.set("CARGO_TARGET_DIR", target);
        build.set("CARGO_TERM_COLOR", "never");
        build.set("CARGO_TERM_PROGRESS_WHEN", "never");
        // A file of rustup's that pins a version must not make cargo look for another one.
        if self.bin.starts_with(&build.roots.toolchains) {
            build.set("RUSTC", self.bin.join("rustc"));
        }
        build.output.heading(&format!("$ cargo build {}", self.flags.join(" ")));
        let command = build.app_command("cargo").arguments(["build", "--message-format=json-render-diagnostics"]);
        let ended = build.capture(command.arguments(&self.flags))?;
        if !ended.status.success() {
            return Err(Error::explained(format!("cargo build failed ({}).", ended.why()), vec![
                String::new(),
                "See the output above. If Cargo.lock needs to be updated, run \"cargo build\" on your machine, commit".to_owned(),
                "Cargo.lock and push again.".to_owned(),
            ]));
        }
        let programs = programs(&ended.stdout);
        if programs.is_empty() {
            return Err(Error::rejected(
                "cargo build made no binary.",
                ["", "The app needs a src/main.rs or a [[bin]] section in Cargo.toml."],
            ));
        }
        let folder = build.roots.app.join("target/release");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        for (name, program) in &programs {
            let to = folder.join(name);
            fs::copy(program, &to).map_err(Error::io("copy", program))?;
            build.output.line(&format!("target/release/{name}"));
        }
        let path = vec![format!("{LAUNCH_APP}/target/release")];
        build.profile("rust.sh", &path_script(&path))?;
        let web = match (&self.default_run, programs.as_slice()) {
            (Some(name), _) => Some(name),
            (None, [(only, _)]) => Some(only),
            (None, _) => None,
        };
        Ok(Outcome {
            process_types: web.map(|name| ("web".to_owned(), format!("./target/release/{name}"))).into_iter().collect(),
            launch_path: path,
            ..Outcome::default()
        })
    }
}

/// Names and paths of the binaries that cargo says it made.
fn programs(messages: &[u8]) -> Vec<(String, PathBuf)> {
    let mut programs: Vec<(String, PathBuf)> = messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .filter_map(|message| Some((message.target?, message.executable?)))
        .filter(|(target, _)| target.kind.iter().any(|kind| kind == "bin"))
        .map(|(target, executable)| (target.name, executable))
        .collect();
    programs.sort();
    programs.dedup();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    #[test]
    fn binaries_are_taken_from_what_cargo_says() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"web","kind":["bin"]},"executable":"/cache/target/release/web"}
{"reason":"compiler-artifact","target":{"name":"lib","kind":["lib"]},"executable":null}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(programs(messages), [("web".to_owned(), PathBuf::from("/cache/target/release/web"))]);
    }

    #[test]
    fn a_pinned_version_is_read_and_a_channel_is_not_one() {
        let check = |files: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(pinned(&source_of(files)).expect("readable").as_deref(), expected);
        };
        check(&[("rust-toolchain.toml", "[toolchain]\nchannel = \"1.80\"\n")], Some("1.80"));
        check(&[("rust-toolchain", "1.79.0\n")], Some("1.79.0"));
        check(&[("rust-toolchain.toml", "[toolchain]\nchannel = \"stable\"\n")], None);
        check(&[("Cargo.toml", "")], None);
    }
}
