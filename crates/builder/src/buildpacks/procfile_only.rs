//! An app with a `Procfile` and nothing to build: shell scripts, programs checked in, programs of the system.

use dozen_domain::image::LayerPlan;

use crate::{
    build::{Build, Buildpack, Context, Outcome, Plan},
    error::Result,
    source::Source,
};

/// The buildpack.
#[derive(Debug)]
pub(crate) struct ProcfileOnly;

impl Buildpack for ProcfileOnly {
    fn name(&self) -> &'static str {
        "Procfile"
    }

    fn detect(&self, source: &Source) -> bool {
        source.has("Procfile")
    }

    fn plan(&self, _: &Context<'_>) -> Result<Box<dyn Plan>> {
        Ok(Box::new(Nothing))
    }
}

struct Nothing;

impl Plan for Nothing {
    fn layers(&self) -> Vec<LayerPlan> {
        Vec::new()
    }

    fn build(&self, build: &mut Build<'_>) -> Result<Outcome> {
        build.output.line("Nothing to build: processes run the source as it is.");
        Ok(Outcome::default())
    }
}
