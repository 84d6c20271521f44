//! Go: `go build` of the module's main packages into `bin`, with the toolchain that the operator provides.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use dozen_domain::image::LayerPlan;

use crate::{
    build::{Build, Buildpack, Context, Outcome, Plan, path_script},
    command,
    error::{Error, Result},
    roots::LAUNCH_APP,
    source::Source,
};

/// The buildpack.
#[derive(Debug)]
pub(crate) struct Go;

impl Buildpack for Go {
    fn name(&self) -> &'static str {
        "Go"
    }

    fn detect(&self, source: &Source) -> bool {
        source.has("go.mod")
    }

    fn plan(&self, context: &Context<'_>) -> Result<Box<dyn Plan>> {
        let module = Module::parse(context.source.text("go.mod")?.unwrap_or_default());
        let Some(name) = module.name else {
            return Err(Error::rejected(
                "go.mod names no module.",
                ["", "Its first line must be \"module <name>\". Run \"go mod init\", commit go.mod and push again."],
            ));
        };
        let path = context.environment.get("PATH".as_ref() as &std::ffi::OsStr).cloned().unwrap_or_default();
        let own = context.roots.toolchains.join("go/bin/go");
        let program = if command::is_executable(&own) { Some(own) } else { command::locate(Path::new("go"), &path) };
        let Some(program) = program else {
            return Err(Error::rejected(
                "There is no Go toolchain on this machine.",
                [
                    "",
                    "Whoever runs the platform can install one with \"apt-get install golang-go\", or unpack one and name",
                    "its folder in DOZEN_GO_ROOT (then restart the platform). Push again after that.",
                ],
            ));
        };
        let version = context.version_by(&program, "version");
        for (asked, by) in [(module.wanted, "// +heroku goVersion"), (module.version, "go.mod's go line")] {
            if let Some(asked) = asked {
                check_version(&asked, by, version.as_deref(), &program)?;
            }
        }
        let packages = match context.config("GO_INSTALL_PACKAGE_SPEC") {
            Some(packages) => packages.split_whitespace().map(str::to_owned).collect(),
            None if !module.install.is_empty() => module.install,
            None => vec!["./...".to_owned()],
        };
        let linked = context.config("GO_LINKER_SYMBOL").map(|symbol| {
            let value = context.config("GO_LINKER_VALUE").map(str::to_owned);
            format!("-X {symbol}={}", value.unwrap_or_else(|| context.source_version().to_owned()))
        });
        Ok(Box::new(Planned {
            version,
            name,
            packages,
            linked,
            vendored: context.source.has("vendor/modules.txt"),
            compiler: ["cc", "gcc"].iter().any(|name| command::locate(Path::new(name), &path).is_some()),
            program,
        }))
    }
}

/// `go.mod`, as far as a build needs it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Module {
    name: Option<String>,
    /// Of the line `go 1.22`.
    version: Option<String>,
    /// Of a comment `// +heroku goVersion go1.22`.
    wanted: Option<String>,
    /// Packages of a comment `// +heroku install ./cmd/...`.
    install: Vec<String>,
}

impl Module {
    fn parse(text: &str) -> Self {
        let mut module = Self::default();
        for line in text.lines().map(str::trim) {
            let value = |prefix: &str| {
                let rest = line.strip_prefix(prefix)?.strip_prefix([' ', '\t'])?;
                Some(rest.split("//").next().unwrap_or(rest).trim().trim_matches('"').to_owned())
            };
            if let Some(name) = value("module") {
                module.name = Some(name);
            } else if let Some(version) = value("go") {
                module.version = Some(version);
            } else if let Some(version) = value("// +heroku goVersion") {
                module.wanted = Some(version);
            } else if let Some(packages) = value("// +heroku install") {
                module.install = packages.split_whitespace().map(str::to_owned).collect();
            }
        }
        module
    }
}

/// The numbers of `go1.22.3`, `1.22`, `go1.21rc2`; a release candidate counts as its release.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let version = version.trim_start_matches("go");
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let version = version[..end].trim_end_matches('.');
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let major = parts.next()??;
    Some([major, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?])
}

/// A newer toolchain of the same major version builds older code (go.dev/doc/go1compat); an older one does not.
fn check_version(asked: &str, by: &str, there: Option<&str>, program: &Path) -> Result<()> {
    let Some(wanted) = numbers(asked) else {
        return Err(Error::explained(
            format!("{by} asks for Go \"{asked}\", which is no version."),
            vec![String::new(), "Write it as \"1.22\" or \"1.22.3\", commit go.mod and push again.".to_owned()],
        ));
    };
    let Some((there, have)) = there.and_then(|there| Some((there, numbers(there)?))) else { return Ok(()) };
    if have[0] == wanted[0] && have >= wanted {
        return Ok(());
    }
    Err(Error::explained(
        format!("{by} asks for Go {}, but this machine has Go {there}.", asked.trim_start_matches("go")),
        vec![
            String::new(),
            format!("The toolchain is {}. Whoever runs the platform can unpack a newer one", program.display()),
            "and name its folder in DOZEN_GO_ROOT; or lower the version in go.mod if the code allows it.".to_owned(),
        ],
    ))
}

struct Planned {
    program: PathBuf,
    version: Option<String>,
    name: String,
    packages: Vec<String>,
    linked: Option<String>,
    vendored: bool,
    /// Whether there is a C compiler, which packages with C in them need.
    compiler: bool,
}

impl Planned {
    fn environment(&self, build: &mut Build<'_>) -> Result<()> {
        if let Some(folder) = self.program.parent() {
            build.prepend_path(folder);
        }
        let (objects, modules) = (build.cache("go-build")?, build.cache("go-modules")?);
        build.set("GOCACHE", objects);
        build.set("GOMODCACHE", modules);
        // Without this nobody but root can purge the cache.
        build.set("GOFLAGS", "-modcacherw");
        // The version was checked; a toolchain that fetches another one would make that check a lie.
        build.set("GOTOOLCHAIN", "local");
        if !self.compiler {
            build.set("CGO_ENABLED", "0");
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["build", "-buildvcs=false", "-o", "bin/"].map(str::to_owned).to_vec();
        arguments.extend(self.vendored.then(|| "-mod=vendor".to_owned()));
        arguments.extend(self.linked.iter().map(|linked| format!("-ldflags={linked}")));
        arguments.extend(self.packages.iter().cloned());
        arguments
    }
}

impl Plan for Planned {
    fn layers(&self) -> Vec<LayerPlan> {
        Vec::new()
    }

    fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        build.output.heading(&format!("Using Go {}", self.version.as_deref().unwrap_or("of an unknown version")));
        self.environment(build)?;
        hook(build, "bin/go-pre-compile")?;
        let folder = build.roots.app.join("bin");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let before = programs(&folder)?;
        build.output.heading(&format!("Building the Go module {}", self.name));
        let arguments = self.arguments();
        build.output.heading(&format!("$ go {}", arguments.join(" ")));
        let ended = build.run(build.app_command("go").arguments(arguments))?;
        if !ended.status.success() {
            return Err(Error::explained(format!("go build failed ({}).", ended.why()), vec![
                String::new(),
                "See the output above. If go.sum is incomplete, run \"go mod tidy\", commit go.mod and go.sum and push".to_owned(),
                "again; if vendor/ is out of step with go.mod, run \"go mod vendor\" and commit that.".to_owned(),
                    String::new(),
                    "If it found no main package: name yours in go.mod in a comment \"// +heroku install ./path/to/package\", or".to_owned(),
                    "in the config var GO_INSTALL_PACKAGE_SPEC.".to_owned(),
            ]));
        }
        let made = programs(&folder)?;
        let made: Vec<_> =
            made.into_iter().filter(|(name, at)| before.get(name) != Some(at)).map(|(name, _)| name).collect();
        for name in &made {
            build.output.line(&format!("bin/{name}"));
        }
        hook(build, "bin/go-post-compile")?;
        let path = vec![format!("{LAUNCH_APP}/bin")];
        build.profile("go.sh", &path_script(&path))?;
        let module = own_name(&self.name);
        let web = if let [only] = made.as_slice() { Some(only) } else { made.iter().find(|name| *name == module) };
        Ok(Outcome {
            process_types: web.map(|name| ("web".to_owned(), format!("bin/{name}"))).into_iter().collect(),
            launch_path: path,
            ..Outcome::default()
        })
    }
}

/// The name that the binary of a module's root package has: the last part of its path that is no `v2`.
fn own_name(module: &str) -> &str {
    let is_version = |part: &str| part.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    module.rsplit('/').find(|part| !is_version(part)).unwrap_or_default()
}

/// Runs a script of the app if it has it (`bin/go-pre-compile`, as Heroku's buildpack does).
fn hook(build: &mut Build<'_>, script: &str) -> Result<()> {
    let file = build.roots.app.join(script);
    if !command::is_executable(&file) {
        return Ok(());
    }
    build.output.heading(&format!("Running {script}"));
    let ended = build.run(build.app_command(file))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(Error::explained(
        format!("{script} failed ({}).", ended.why()),
        vec![String::new(), "See the output above.".to_owned()],
    ))
}

/// Files of a folder, with what changes when one is written anew.
fn programs(folder: &Path) -> Result<BTreeMap<String, (u64, i64, i64)>> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let data = entry.metadata().map_err(Error::io("look at", &entry.path()))?;
        names.insert(entry.file_name().to_string_lossy().into_owned(), (data.ino(), data.mtime(), data.mtime_nsec()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_file_says_what_is_built() {
        let module = Module::parse(
            "// +heroku goVersion go1.21.3\n// +heroku install ./cmd/... ./tools/x\nmodule example.com/shop // main\n\ngo 1.22 // x\n",
        );
        assert_eq!(
            module,
            Module {
                name: Some("example.com/shop".to_owned()),
                version: Some("1.22".to_owned()),
                wanted: Some("go1.21.3".to_owned()),
                install: vec!["./cmd/...".to_owned(), "./tools/x".to_owned()],
            }
        );
        assert_eq!(Module::parse("go 1.22").name, None);
        assert_eq!(Module::parse("module\tx\ngolang 2").version, None);
    }

    #[test]
    fn a_toolchain_fits_what_is_not_newer_than_itself() {
        let check = |asked, there| check_version(asked, "go.mod's go line", there, Path::new("/usr/bin/go"));
        for asked in ["1.19", "go1.19", "1.19.8", "1.5", "go1.19rc2"] {
            assert!(check(asked, Some("1.19.8")).is_ok(), "{asked}");
        }
        for asked in ["1.20", "1.19.9", "go1.22.1", "2.0", "latest", ""] {
            assert!(check(asked, Some("1.19.8")).is_err(), "{asked}");
        }
        assert!(check("1.22", None).is_ok(), "a toolchain that does not say its version is tried");
        let error = check("1.22", Some("1.19.8")).expect_err("refused").to_string();
        assert_eq!(error, "go.mod's go line asks for Go 1.22, but this machine has Go 1.19.8.");
    }

    #[test]
    fn a_binary_is_named_after_the_last_part_that_is_no_version() {
        for (module, name) in [("example.com/shop", "shop"), ("example.com/shop/v2", "shop"), ("app", "app")] {
            assert_eq!(own_name(module), name);
        }
    }
}
