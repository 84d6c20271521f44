//! An app's bare repository, `apps/<id>/repo.git`: made on the first access, swept after interrupted pushes.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use dozen_domain::ids::AppId;

use super::{Error, process};

/// Attributes that leave a build's source as a checkout would have it: nothing omitted, nothing substituted.
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";

/// Where an app's repository is or will be.
pub fn path(data_dir: &Path, app: AppId) -> PathBuf {
    data_dir.join("apps").join(app.to_string()).join("repo.git")
}

/// Makes an app's repository unless it is there; returns its path.
///
/// # Errors
/// When git is missing or the disk refuses.
pub async fn ensure(data_dir: &Path, app: AppId) -> Result<PathBuf, Error> {
    let repository = path(data_dir, app);
    if tokio::fs::try_exists(repository.join("HEAD")).await.unwrap_or(false) {
        return Ok(repository);
    }
    let failed = |source| Error::Repository { path: repository.clone(), source };
    let parent = repository.parent().unwrap_or(data_dir).to_owned();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&parent).map_err(failed)?;
    // Made aside and renamed, so that a repository is whole or not there.
    let fresh = parent.join(format!("repo.git.{}", uuid::Uuid::new_v4().simple()));
    let mut init = process::command(data_dir);
    init.args(["init", "--quiet", "--bare", "--initial-branch=main", "--template="]).arg(&fresh);
    let output = init.output().await.map_err(Error::Git)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(io::Error::other(text)));
    }
    fs::create_dir_all(fresh.join("info")).map_err(failed)?;
    fs::write(fresh.join("info/attributes"), ATTRIBUTES).map_err(failed)?;
    match fs::rename(&fresh, &repository) {
        Ok(()) => Ok(repository),
        // Somebody else was faster.
        Err(_) if repository.join("HEAD").exists() => {
            let _ = fs::remove_dir_all(&fresh);
            Ok(repository)
        }
        Err(error) => {
            let _ = fs::remove_dir_all(&fresh);
            Err(failed(error))
        }
    }
}

/// Writes the hook that all repositories share: `hooks/pre-receive`, which runs `command`.
///
/// # Errors
/// When the disk refuses.
pub fn install_hook(data_dir: &Path, command: &[String]) -> io::Result<()> {
    let directory = data_dir.join("hooks");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let words: Vec<String> = command.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let script = format!("#!/bin/sh\nexec {}\n", words.join(" "));
    let hook = directory.join("pre-receive");
    if fs::read_to_string(&hook).is_ok_and(|there| there == script) {
        return Ok(());
    }
    let fresh = directory.join("pre-receive.new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&fresh)?;
    io::Write::write_all(&mut file, script.as_bytes())?;
    drop(file);
    fs::rename(fresh, hook)
}

/// Removes what pushes that were cut off by a crash left in all repositories: quarantined objects and half-made
/// repositories. Called at start, when no push runs.
pub fn sweep(data_dir: &Path) {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    for app in entries(data_dir.join("apps")) {
        for entry in entries(app.path()) {
            if entry.file_name().to_string_lossy().starts_with("repo.git.") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        for entry in entries(app.path().join("repo.git/objects")) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("incoming-") || name.starts_with("tmp_objdir-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}
