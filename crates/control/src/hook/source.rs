//! The source of a build, taken out of git inside the quarantine: a tar of the tree, and the submodules that it names.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use dozen_api::build::Submodule;

use super::protocol::FromHook;

/// Writes the tree of `commit` to `path`, of at most `most` bytes, and reads what else control has to know.
///
/// The three git processes run side by side: together they take as long as the slowest.
pub(super) fn archive(commit: &str, path: &Path, most: u64) -> Result<FromHook, String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    let mut tar = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("create the source archive"))?;
    // The tree and not the commit: its tar has no header of its own that a reader might take for a file.
    let mut archive = git(["archive", "--format=tar", &format!("{commit}^{{tree}}")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("run git archive"))?;
    let log = git(["log", "-1", "--no-show-signature", "--format=%H%n%s", commit])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed("run git log"))?;
    let modules = git(["config", "--null", "--list", "--blob", &format!("{commit}:.gitmodules")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("run git config"))?;

    if let Some(packed) = archive.stdout.take() {
        let copied = io::copy(&mut packed.take(most.saturating_add(1)), &mut tar);
        if copied.map_err(failed("write the source archive"))? > most {
            // Its pipe is closed, so it ends by itself if it cannot be killed.
            let _ = archive.kill();
            return Err(format!("it is larger than {} MB when it is unpacked", most / 1_000_000));
        }
    }
    let said = output(log).unwrap_or_default();
    let submodules = match modules.wait_with_output().map_err(failed("read git config"))? {
        read if read.status.success() => gitlinks(commit, &parse_modules(&String::from_utf8_lossy(&read.stdout)))?,
        // There is no such file, as in most repositories.
        _ if !exists(&format!("{commit}:.gitmodules")) => Vec::new(),
        unreadable => return Err(unparsable(&String::from_utf8_lossy(&unreadable.stderr))),
    };

    let mut complaint = String::new();
    if let Some(stderr) = archive.stderr.as_mut() {
        stderr.read_to_string(&mut complaint).map_err(failed("read git archive"))?;
    }
    let status = archive.wait().map_err(failed("wait for git archive"))?;
    if !status.success() {
        return Err(format!("git archive: {}", complaint.trim()));
    }
    let (commit, subject) = said.split_once('\n').unwrap_or((commit, ""));
    Ok(FromHook::Source { commit: commit.to_owned(), subject: subject.trim_end().to_owned(), submodules })
}

fn git<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn output(child: Child) -> Option<String> {
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether git has this object.
fn exists(object: &str) -> bool {
    git(["cat-file", "-e", object]).status().is_ok_and(|status| status.success())
}

/// What is told of a `.gitmodules` that git cannot read, from git's own `error: bad config line 3 in blob …`, which may
/// be followed by more general words.
fn unparsable(complaint: &str) -> String {
    let why = complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    let why = why.trim_start_matches("fatal: ").trim_start_matches("error: ");
    let why = why.split(" in blob ").next().unwrap_or(why);
    format!("git cannot parse .gitmodules: {why}. Mend or remove that file, commit, and push again")
}

/// Addresses by path, from `git config --null --list`: entries `submodule.<name>.path\n<value>\0`.
fn parse_modules(text: &str) -> HashMap<String, String> {
    let mut modules: HashMap<&str, (Option<&str>, Option<&str>)> = HashMap::new();
    for entry in text.split('\0') {
        let Some((key, value)) = entry.split_once('\n') else { continue };
        let Some((name, what)) = key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.')) else {
            continue;
        };
        let module = modules.entry(name).or_default();
        match what {
            "path" => module.0 = Some(value),
            "url" => module.1 = Some(value),
            _ => {}
        }
    }
    modules.into_values().filter_map(|(path, url)| Some((path?.to_owned(), url?.to_owned()))).collect()
}

/// The commits that the tree records for submodules. One that `.gitmodules` does not name has no address, which its
/// build tells.
fn gitlinks(commit: &str, modules: &HashMap<String, String>) -> Result<Vec<Submodule>, String> {
    let child = git(["ls-tree", "-r", "-z", "--full-tree", commit])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("run git ls-tree: {error}"))?;
    let listed = output(child).ok_or("git ls-tree failed")?;
    Ok(listed
        .split('\0')
        .filter_map(|line| {
            let (what, path) = line.split_once('\t')?;
            let commit = what.strip_prefix("160000 commit ")?;
            let url = modules.get(path).cloned().unwrap_or_default();
            Some(Submodule { path: path.to_owned(), url, commit: commit.to_owned() })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_with_odd_names_and_without_urls() {
        let text = "submodule.vendor/a.b.path\nvendor/a b\0submodule.vendor/a.b.url\nhttps://example.com/a.git\0\
                    submodule.broken.path\nbroken\0core.bare\ntrue\0";
        let modules = parse_modules(text);
        assert_eq!(modules, HashMap::from([("vendor/a b".to_owned(), "https://example.com/a.git".to_owned())]));
    }
}
