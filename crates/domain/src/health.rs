//! The health check of `app.json`: what a new web dyno must answer before it gets requests.
//!
//! The format is the one that other platforms of this kind read, a list for each process type:
//!
//! ```json
//! {"healthchecks": {"web": [{"type": "startup", "path": "/up"}]}}
//! ```
//!
//! The platform looks at web dynos alone and only before the cut-over, so of all that may be listed it takes the first
//! check of a web dyno's start that has a path; what it does not use is told to whoever pushes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::settings::is_path;

/// Why the health checks of `app.json` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// They do not have the format.
    #[error("{0}")]
    Format(String),
    /// A path that cannot be asked for.
    #[error("the path {0:?} must begin with a slash and hold no space")]
    Path(String),
}

/// What `app.json` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// The path that a new web dyno must answer with a status below 400.
    pub path: Option<String>,
    /// What is listed and not used, in words.
    pub unused: Vec<String>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    healthchecks: BTreeMap<String, Vec<Check>>,
}

#[derive(Deserialize)]
struct Check {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    path: Option<String>,
}

/// Reads the health checks of an `app.json`.
///
/// # Errors
/// When it is no JSON object, they do not have the format, or the path cannot be asked for.
pub fn of_app_json(text: &str) -> Result<Checks, Invalid> {
    let manifest: Manifest = serde_json::from_str(text).map_err(|error| Invalid::Format(error.to_string()))?;
    let mut checks = Checks::default();
    for (process_type, listed) in manifest.healthchecks {
        for check in listed {
            // A check that does not say what it is for is one of the start.
            let kind = check.kind.as_deref().unwrap_or("startup");
            let usable = process_type == "web" && ["startup", "readiness"].contains(&kind) && checks.path.is_none();
            match check.path.filter(|_| usable) {
                Some(path) if is_path(&path) => checks.path = Some(path),
                Some(path) => return Err(Invalid::Path(path)),
                None => {
                    let name = check.name.map(|name| format!(" {name:?}")).unwrap_or_default();
                    checks.unused.push(format!("the {kind} check{name} of {process_type}"));
                }
            }
        }
    }
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_startup_check_of_web_with_a_path_is_the_one() {
        let text = r#"{"healthchecks": {
            "web": [{"type": "liveness", "name": "alive", "path": "/alive"}, {"type": "startup", "uptime": 5},
                    {"type": "startup", "path": "/up?deep=1", "attempts": 3}, {"type": "startup", "path": "/again"}],
            "worker": [{"type": "startup", "command": ["true"]}]}}"#;
        let checks = of_app_json(text).expect("they are valid");
        assert_eq!(checks.path.as_deref(), Some("/up?deep=1"));
        assert_eq!(
            checks.unused,
            [
                "the liveness check \"alive\" of web",
                "the startup check of web",
                "the startup check of web",
                "the startup check of worker"
            ]
        );
    }

    #[test]
    fn without_checks_there_is_none_and_what_makes_no_sense_is_refused() {
        assert_eq!(of_app_json("{\"name\": \"x\"}"), Ok(Checks::default()));
        assert_eq!(of_app_json("{\"healthchecks\": {\"web\": []}}"), Ok(Checks::default()));
        let bad = r#"{"healthchecks": {"web": [{"path": "up"}]}}"#;
        assert_eq!(of_app_json(bad), Err(Invalid::Path("up".to_owned())));
        assert!(matches!(of_app_json(r#"{"healthchecks": {"web": "/up"}}"#), Err(Invalid::Format(_))));
    }
}
