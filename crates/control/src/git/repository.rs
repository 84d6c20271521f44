//! An app's bare repository, `apps/<id>/repo.git`: made on the first access, swept after interrupted pushes.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use dozen_api::removal::remove_all;
use dozen_domain::ids::AppId;

use super::{Error, process};
use crate::{Context, ops, store};

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

/// After a push: notes the repository's size and packs it when git thinks it is time.
pub(super) async fn upkeep(context: &Context, app: AppId) -> ops::Result<()> {
    let data_dir = &context.settings.data_dir;
    let repository = path(data_dir, app);
    let mut pack = process::command(data_dir);
    pack.arg("-c").arg(format!("safe.directory={}", repository.display()));
    pack.args(["-c", "gc.autoDetach=false", "--git-dir"]).arg(&repository).args(["gc", "--auto", "--quiet"]);
    let packed = pack.output().await.map_err(|error| ops::Error::platform("run git gc", error))?;
    if !packed.status.success() {
        // It goes on growing, which is no reason not to know its size.
        let said = String::from_utf8_lossy(&packed.stderr);
        tracing::warn!(%app, status = %packed.status, said = said.trim(), "git gc failed");
    }
    let measured = tokio::task::spawn_blocking(move || bytes(&repository)).await;
    let bytes = measured.map_err(|error| ops::Error::platform("measure a repository", error))?;
    let mut db = context.store.write().await?;
    store::apps::set_repo_size(&mut db, app, i64::try_from(bytes).unwrap_or(i64::MAX)).await?;
    Ok(db.commit().await?)
}

/// Bytes of all files below a directory. Links count as themselves, and how deep references are nested is the pusher's
/// choice: so not by recursion.
fn bytes(directory: &Path) -> u64 {
    let (mut ahead, mut bytes) = (vec![directory.to_owned()], 0);
    while let Some(directory) = ahead.pop() {
        for entry in entries(&directory) {
            match entry.metadata() {
                Ok(data) if data.is_dir() => ahead.push(entry.path()),
                Ok(data) => bytes += data.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Begin of the names of what is to be removed, in `tmp`.
const ASIDE: &str = "quarantine-";

/// Moves what interrupted pushes left in an app's quarantine out of its repository; answers where it is now.
pub(super) fn set_aside(data_dir: &Path, app: AppId) -> Vec<PathBuf> {
    let tmp = data_dir.join("tmp");
    let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(&tmp);
    let left = entries(&path(data_dir, app).join("objects")).filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("incoming-") || name.starts_with("tmp_objdir-")
    });
    left.filter_map(|entry| {
        let aside = tmp.join(format!("{ASIDE}{}", uuid::Uuid::new_v4().simple()));
        fs::rename(entry.path(), &aside).ok().map(|()| aside)
    })
    .collect()
}

/// Removes what pushes that were cut off by a crash left in all repositories: quarantined objects and half-made
/// repositories. Called at start, when no push runs.
pub fn sweep(data_dir: &Path) {
    for app in entries(&data_dir.join("apps")) {
        for entry in entries(&app.path()).filter(|entry| entry.file_name().to_string_lossy().starts_with("repo.git.")) {
            let _ = remove_all(&entry.path());
        }
        if let Ok(app) = app.file_name().to_string_lossy().parse() {
            set_aside(data_dir, app);
        }
    }
    for entry in entries(&data_dir.join("tmp")).filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE)) {
        let _ = remove_all(&entry.path());
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_measured_however_deep_it_is_and_without_following_links() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("repo.git");
        let deep = root.join("d/".repeat(1_000));
        fs::create_dir_all(&deep).expect("directories");
        fs::write(deep.join("file"), "12345").expect("a file");
        std::os::unix::fs::symlink(&root, root.join("loop")).expect("a link");
        let link = fs::symlink_metadata(root.join("loop")).expect("a link").len();
        let measuring = std::thread::Builder::new().stack_size(128 << 10).spawn(move || bytes(&root));
        assert_eq!(measuring.expect("a thread").join().expect("no panic"), 5 + link);
    }
}
