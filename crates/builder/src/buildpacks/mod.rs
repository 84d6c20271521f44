//! The built-in buildpacks and the driver for classic ones. One module each; what they share is in [`crate::build`].

pub(crate) mod classic;
mod go;
mod nodejs;
mod procfile_only;
mod python;
mod rust;
mod static_site;

use crate::build::Buildpack;

/// All built-in buildpacks in the order of detection, that of [`dozen_domain::buildpack::BUILT_IN`].
pub(crate) fn all() -> Vec<Box<dyn Buildpack>> {
    vec![
        Box::new(nodejs::NodeJs),
        Box::new(python::Python),
        Box::new(rust::Rust),
        Box::new(go::Go),
        Box::new(static_site::StaticSite),
        Box::new(procfile_only::ProcfileOnly),
    ]
}

/// The built-in buildpack of a short name.
pub(crate) fn by_name(name: &str) -> Option<Box<dyn Buildpack>> {
    let index = dozen_domain::buildpack::BUILT_IN.iter().position(|known| *known == name)?;
    all().into_iter().nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_buildpacks_are_in_the_same_order() {
        let names: Vec<_> = dozen_domain::buildpack::BUILT_IN
            .iter()
            .map(|name| by_name(name).map(|buildpack| buildpack.name()).unwrap_or_default())
            .collect();
        assert_eq!(names, ["Node.js", "Python", "Rust", "Go", "Static", "Procfile"]);
    }
}
