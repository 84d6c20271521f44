//! Django's static files: `manage.py collectstatic`, as Heroku runs it.

use std::path::Path;

use crate::{
    build::Build,
    command::Ended,
    error::{Error, Result},
    source::Source,
};

/// What is to be done about static files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manage {
    /// There is no `manage.py`.
    Absent,
    /// The owner wants none.
    Disabled,
    /// Run this file.
    Run(String),
}

/// Finds the `manage.py` nearest to the root, at most two folders in.
pub(super) fn manage(source: &Source, disabled: Option<&str>) -> Manage {
    let found = source
        .paths()
        .filter(|path| path.rsplit('/').next() == Some("manage.py") && path.matches('/').count() <= 2)
        .min_by_key(|path| path.matches('/').count());
    match found {
        None => Manage::Absent,
        Some(_) if disabled.is_some_and(|value| !value.is_empty() && value != "0") => Manage::Disabled,
        Some(path) => Manage::Run(path.to_owned()),
    }
}

/// Collects static files when Django is installed.
pub(super) fn collect_static(build: &mut Build<'_>, manage: &Manage, folder: &Path) -> Result<()> {
    let Manage::Run(file) = manage else {
        if *manage == Manage::Disabled {
            build.output.heading("Skipping Django collectstatic since the env var DISABLE_COLLECTSTATIC is set.");
        }
        return Ok(());
    };
    let libraries = std::fs::read_dir(folder.join("lib")).into_iter().flatten().flatten();
    if !libraries.into_iter().any(|library| library.path().join("site-packages/django").is_dir()) {
        return Ok(());
    }
    build.output.heading(&format!("$ python {file} collectstatic --noinput"));
    // Kept until its end, because "there is nothing to collect" is an error to Django and none to us.
    let command = build.app_command("sh").arguments([
        "-c",
        "exec \"$@\" 2>&1",
        "sh",
        "python",
        file,
        "collectstatic",
        "--noinput",
    ]);
    let Ended { status, stdout } = build.capture(command)?;
    let text = String::from_utf8_lossy(&stdout);
    if !status.success() && text.contains("Unknown command: 'collectstatic'") {
        build.output.line("Skipped: django.contrib.staticfiles is not among INSTALLED_APPS.");
        return Ok(());
    }
    build.output.foreign(&stdout, true)?;
    build.output.foreign_end(true)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::rejected(
        "Unable to generate Django static files.",
        [
            "",
            "The 'python manage.py collectstatic --noinput' Django management command to generate static files",
            "failed. See the traceback above for details.",
            "",
            "You may need to update application code to resolve this error. Config vars that the settings need must",
            "be set before the push. Or, you can disable collectstatic for this application:",
            "",
            "   $ heroku config:set DISABLE_COLLECTSTATIC=1",
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source_of;

    #[test]
    fn the_manage_file_nearest_to_the_root_is_used() {
        let source = source_of(&[("a/b/manage.py", ""), ("site/manage.py", ""), ("a/b/c/manage.py", "")]);
        assert_eq!(manage(&source, None), Manage::Run("site/manage.py".to_owned()));
        assert_eq!(manage(&source, Some("1")), Manage::Disabled);
        assert_eq!(manage(&source, Some("0")), Manage::Run("site/manage.py".to_owned()));
        assert_eq!(manage(&source_of(&[("a/b/c/manage.py", ""), ("x", "")]), None), Manage::Absent);
    }
}
