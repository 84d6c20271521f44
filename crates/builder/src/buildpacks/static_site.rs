//! A site of plain files, served by the platform's own executable (`dozen static-server`).
//!
//! As the second buildpack after Node.js it serves what the build made.

use dozen_domain::image::LayerPlan;

use crate::{
    build::{Build, Buildpack, Context, Outcome, Plan},
    error::{Error, Result},
    roots::LAUNCH_EXECUTABLE,
    source::Source,
    static_server::settings::Settings,
};

/// Folders that hold a finished site, the likeliest first; the last is the root.
const ROOTS: &[&str] = &["dist", "build", "out", "public", "public_html", "_site", "."];

/// The buildpack.
#[derive(Debug)]
pub(crate) struct StaticSite;

impl Buildpack for StaticSite {
    fn name(&self) -> &'static str {
        "Static"
    }

    fn detect(&self, source: &Source) -> bool {
        source.has("static.json") || ROOTS.iter().any(|root| source.has(&index(root)))
    }

    fn plan(&self, context: &Context<'_>) -> Result<Box<dyn Plan>> {
        let settings = context.source.text("static.json")?;
        let settings = settings.map(Settings::parse).transpose().map_err(|why| {
            Error::explained(
                format!("static.json cannot be used: {why}."),
                vec![String::new(), "Correct the file, commit it and push again.".to_owned()],
            )
        })?;
        Ok(Box::new(Planned { settings }))
    }
}

fn index(root: &str) -> String {
    if root == "." { "index.html".to_owned() } else { format!("{root}/index.html") }
}

struct Planned {
    settings: Option<Settings>,
}

impl Plan for Planned {
    fn layers(&self) -> Vec<LayerPlan> {
        Vec::new()
    }

    fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        let app = &build.roots.app;
        let command = match &self.settings {
            Some(settings) => {
                if !app.join(&settings.root).is_dir() {
                    return Err(Error::explained(
                        format!("The folder \"{}\", which static.json has for root, is not there.", settings.root),
                        vec![String::new(), "Set root to the folder that holds the site.".to_owned()],
                    ));
                }
                build.output.line(&format!("Serving the folder {} as static.json says", settings.root));
                format!("{LAUNCH_EXECUTABLE} static-server")
            }
            None => {
                let root = ROOTS.iter().find(|root| app.join(index(root)).is_file());
                let root = root.copied().unwrap_or("public");
                build.output.line(&format!("Serving the folder {root}"));
                format!("{LAUNCH_EXECUTABLE} static-server --root {root}")
            }
        };
        Ok(Outcome { process_types: vec![("web".to_owned(), command)], ..Outcome::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    #[test]
    fn a_site_is_detected_by_its_first_page() {
        for file in ["index.html", "public/index.html", "dist/index.html", "static.json"] {
            assert!(StaticSite.detect(&source_of(&[(file, "{}")])), "{file}");
        }
        assert!(!StaticSite.detect(&source_of(&[("docs/index.html", "")])));
    }
}
