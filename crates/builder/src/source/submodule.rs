//! Fetches the submodules that the source names but does not hold, at exactly the commits it names.

use std::{
    fs,
    path::{Component, Path},
};

use crate::{
    build::Build,
    command::Command,
    error::{Error, Result},
};

/// Fetches all submodules of the request into `/app`, and theirs.
///
/// # Errors
/// When one cannot be fetched; the text names it.
pub(crate) fn fetch(build: &mut Build<'_>) -> Result<()> {
    if build.spec.submodules.is_empty() {
        return Ok(());
    }
    build.output.heading("Fetching submodules");
    let git = build.command("git");
    build.capture(git.arguments(["--version"]))?;
    for submodule in &build.spec.submodules {
        let (path, url, commit) = (&submodule.path, &submodule.url, &submodule.commit);
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let hexadecimal = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        if url.is_empty() {
            return Err(Error::explained(
                format!("Submodule '{path}' could not be fetched."),
                vec![
                    String::new(),
                    "Reason: .gitmodules has no entry with its path and url. Add it with git submodule add, or remove \
                     the folder from the commit: git rm --cached."
                        .to_owned(),
                ],
            ));
        }
        if path.is_empty() || !inside || !hexadecimal || url.starts_with('-') {
            return Err(unfetched(path, url, "its entry in .gitmodules makes no sense"));
        }
        if url.starts_with("./") || url.starts_with("../") {
            return Err(unfetched(path, url, "its URL is relative; write it in full in .gitmodules"));
        }
        build.output.line(&format!("Submodule '{path}' ({url}) at {}", &commit[..7]));
        let folder = build.roots.app.join(path);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let git = |arguments: &[&str]| -> Command {
            Command::new("git", &folder, &build.environment)
                .with("GIT_TERMINAL_PROMPT", "0")
                .with("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
                .with("GIT_CONFIG_NOSYSTEM", "1")
                .arguments(["-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main"])
                .arguments(arguments.iter().copied())
        };
        let commands = [
            git(&["init", "--quiet"]),
            git(&["fetch", "--quiet", "--depth", "1", "--", url, commit]),
            git(&["fetch", "--quiet", "--tags", "--", url, "+refs/heads/*:refs/remotes/origin/*"]),
            git(&["checkout", "--quiet", "--force", commit]),
            git(&["submodule", "--quiet", "update", "--init", "--recursive"]),
        ];
        let [init, exact, everything, checkout, nested] = commands;
        build.run(init)?;
        // Some servers hand out only what a branch or tag points at.
        if !build.run(exact)?.status.success() && !build.run(everything)?.status.success() {
            return Err(unfetched(
                path,
                url,
                "its repository cannot be fetched; it must be readable without a password",
            ));
        }
        if !build.run(checkout)?.status.success() {
            return Err(unfetched(path, url, "its repository does not hold the commit; push the submodule first"));
        }
        if folder.join(".gitmodules").exists() && !build.run(nested)?.status.success() {
            return Err(unfetched(path, url, "a submodule of its own cannot be fetched"));
        }
        remove_repositories(&folder)?;
    }
    Ok(())
}

fn unfetched(path: &str, url: &str, why: &str) -> Error {
    Error::explained(
        format!("Submodule '{path}' ({url}) could not be fetched."),
        vec![String::new(), format!("Reason: {why}.")],
    )
}

/// Removes `.git` of a submodule and of those inside it.
fn remove_repositories(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(Error::io("list", folder))?);
        if entry.file_name() == ".git" {
            let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(Error::io("remove", &path))?;
        } else if kind.is_dir() {
            remove_repositories(&path)?;
        }
    }
    Ok(())
}
