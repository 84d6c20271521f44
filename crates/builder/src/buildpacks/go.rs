//! Go: `go build` of the module's main packages into `bin`, with the toolchain that the operator provides.

use std::{
    fs,
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
                ["", "Whoever runs the platform can install one, for example with: apt install golang-go"],
            ));
        };
        let packages = match context.config("GO_INSTALL_PACKAGE_SPEC") {
            Some(packages) => packages.split_whitespace().map(str::to_owned).collect(),
            None if !module.install.is_empty() => module.install,
            None => vec!["./...".to_owned()],
        };
        Ok(Box::new(Planned {
            program,
            name,
            version: module.version,
            packages,
            vendored: context.source.has("vendor/modules.txt"),
        }))
    }
}

/// `go.mod`, as far as a build needs it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Module {
    name: Option<String>,
    version: Option<String>,
    /// Packages of a comment `// +heroku install ./cmd/...`.
    install: Vec<String>,
}

impl Module {
    fn parse(text: &str) -> Self {
        let mut module = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("module ") {
                module.name = Some(name.split("//").next().unwrap_or(name).trim().trim_matches('"').to_owned());
            } else if let Some(version) = line.strip_prefix("go ") {
                module.version = Some(version.trim().to_owned());
            } else if let Some(packages) = line.strip_prefix("// +heroku install ") {
                module.install = packages.split_whitespace().map(str::to_owned).collect();
            }
        }
        module
    }
}

struct Planned {
    program: PathBuf,
    name: String,
    version: Option<String>,
    packages: Vec<String>,
    vendored: bool,
}

impl Plan for Planned {
    fn layers(&self) -> Vec<LayerPlan> {
        Vec::new()
    }

    fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        build.output.heading(&format!("Building the Go module {}", self.name));
        if let Some(version) = &self.version {
            build.output.line(&format!("go.mod asks for Go {version} or newer"));
        }
        if let Some(folder) = self.program.parent() {
            build.prepend_path(folder);
        }
        let (objects, modules) = (build.cache("go-build")?, build.cache("go-modules")?);
        build.set("GOCACHE", objects);
        build.set("GOMODCACHE", modules);
        // Without this nobody but root can purge the cache.
        build.set("GOFLAGS", "-modcacherw");
        let folder = build.roots.app.join("bin");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let before = programs(&folder)?;
        let mut arguments = vec!["build", "-trimpath", "-buildvcs=false", "-o", "bin/"];
        if self.vendored {
            arguments.push("-mod=vendor");
        }
        arguments.extend(self.packages.iter().map(String::as_str));
        build.output.heading(&format!("$ go {}", arguments.join(" ")));
        let ended = build.run(build.app_command("go").arguments(arguments))?;
        if !ended.status.success() {
            return Err(Error::explained(format!("go build failed ({}).", ended.why()), vec![
                String::new(),
                "See the output above. If go.sum is incomplete, run \"go mod tidy\", commit go.mod and go.sum and push".to_owned(),
                "again.".to_owned(),
            ]));
        }
        let made: Vec<_> = programs(&folder)?.into_iter().filter(|name| !before.contains(name)).collect();
        for name in &made {
            build.output.line(&format!("bin/{name}"));
        }
        if made.is_empty() {
            return Err(Error::rejected(
                "go build made no binary.",
                ["", "The module needs a package main; set GO_INSTALL_PACKAGE_SPEC if it is not found."],
            ));
        }
        let path = vec![format!("{LAUNCH_APP}/bin")];
        build.profile("go.sh", &path_script(&path))?;
        let module = self.name.rsplit('/').next().unwrap_or_default();
        let web = if let [only] = made.as_slice() { Some(only) } else { made.iter().find(|name| *name == module) };
        Ok(Outcome {
            process_types: web.map(|name| ("web".to_owned(), format!("bin/{name}"))).into_iter().collect(),
            launch_path: path,
            ..Outcome::default()
        })
    }
}

fn programs(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        names.push(entry.map_err(Error::io("list", folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_file_says_what_is_built() {
        let module = Module::parse("// +heroku install ./cmd/...\nmodule example.com/shop // main\n\ngo 1.22\n");
        assert_eq!(
            module,
            Module {
                name: Some("example.com/shop".to_owned()),
                version: Some("1.22".to_owned()),
                install: vec!["./cmd/...".to_owned()],
            }
        );
        assert_eq!(Module::parse("go 1.22").name, None);
    }
}
