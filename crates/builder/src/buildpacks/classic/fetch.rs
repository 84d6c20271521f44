//! Brings a classic buildpack to where it can be run: from a Git repository, a tarball's URL, or the machine.
//!
//! Whatever keeps it from coming is told with its cause, because the URL is the app owner's to correct. Whether what
//! came is a buildpack is judged by [`super`].

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use dozen_domain::buildpack::Reference;

use crate::{
    build::Build,
    command::Command,
    error::{Error, Result},
    source::Source,
};

/// Scripts that a tarball made on a system without such modes holds as plain files.
const SCRIPTS: &[&str] = &["detect", "compile", "release"];

/// Fetches the buildpack at a position of the request; answers its folder.
pub(super) fn fetch(build: &mut Build<'_>, position: usize, reference: &Reference) -> Result<PathBuf> {
    let folder = build.roots.build.join("classic").join(position.to_string());
    match reference {
        Reference::Path(_) => {
            copy(build, &build.roots.build.join("buildpacks").join(position.to_string()), &folder)?;
            Ok(folder)
        }
        Reference::Git { url, revision } => {
            fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
            match clone(build, &folder, url, revision.as_deref())? {
                true => Ok(folder),
                false => Err(unfetched(
                    reference,
                    "git could not read it",
                    &[
                        "Check that the repository can be read without a password, and that the branch, tag or commit after",
                        "the # exists.",
                    ],
                )),
            }
        }
        Reference::Tarball { url, sha256 } => {
            let archive = build.roots.build.join(format!("classic-{position}.tgz"));
            download(build, reference, url, &archive)?;
            if let Some(expected) = sha256 {
                check_sum(reference, &archive, expected)?;
            }
            unpack(build, reference, &archive, &folder)
        }
        Reference::BuiltIn(name) => Err(unfetched(reference, &format!("{name} is built in"), &[])),
    }
}

/// Copies a buildpack of the machine's, which is there to read alone: a buildpack may write into its own folder, as many
/// do with their `export`.
fn copy(build: &mut Build<'_>, from: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let copy = build
        .command("cp")
        .arguments(["--recursive", "--no-dereference", "--preserve=mode,timestamps", "--"])
        .arguments([from.join("."), folder.to_owned()]);
    let ended = build.run(copy)?;
    if !ended.status.success() {
        let why = format!("The buildpack {} could not be copied ({}).", from.display(), ended.why());
        return Err(Error::explained(why, vec![String::new(), "See the output above.".to_owned()]));
    }
    Ok(())
}

/// Checks a repository out, with its submodules. Says whether that went well; git has told why not.
fn clone(build: &mut Build<'_>, folder: &Path, url: &str, revision: Option<&str>) -> Result<bool> {
    let git = |build: &Build<'_>, arguments: &[&str]| {
        Command::new("git", folder, &build.environment)
            .with("GIT_TERMINAL_PROMPT", "0")
            .with("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .with("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new")
            .arguments(["-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main"])
            .arguments(arguments.iter().copied())
    };
    let mut run = |arguments: &[&str]| -> Result<bool> {
        let command = git(build, arguments);
        Ok(build.run(command)?.status.success())
    };
    if !run(&["init", "--quiet"])? {
        return Ok(false);
    }
    let asked = revision.unwrap_or("HEAD");
    // What a server does not hand out by name, such as a commit in short, is found in the whole history.
    let is_commit = (7..=40).contains(&asked.len()) && asked.bytes().all(|b| b.is_ascii_hexdigit());
    let fetched = if is_commit && asked.len() < 40 {
        run(&["fetch", "--quiet", "--tags", "--", url, "+refs/heads/*:refs/remotes/origin/*"])?
            && (run(&["checkout", "--quiet", "--detach", &format!("origin/{asked}")])?
                || run(&["checkout", "--quiet", "--detach", asked])?)
    } else {
        run(&["fetch", "--quiet", "--depth", "1", "--", url, asked])? && run(&["checkout", "--quiet", "FETCH_HEAD"])?
    };
    Ok(fetched && run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"])?)
}

/// Fetches a file with `curl`, which knows proxies, certificates and redirects as the operator has set them.
fn download(build: &mut Build<'_>, reference: &Reference, url: &str, archive: &Path) -> Result<()> {
    let most = build.spec.limits.source_bytes;
    let curl = build.command("curl").arguments([
        "--fail",
        "--silent",
        "--show-error",
        "--location",
        "--max-redirs",
        "10",
        "--proto",
        "=http,https",
        "--proto-redir",
        "=http,https",
        "--retry",
        "2",
        "--connect-timeout",
        "20",
        // Slower than a byte a second for a minute is stalled.
        "--speed-limit",
        "1",
        "--speed-time",
        "60",
        "--max-filesize",
        &most.to_string(),
        "--write-out",
        "%{http_code}",
        "--output",
    ]);
    let ended = build.capture(curl.arguments([archive.as_os_str(), OsStr::new("--"), OsStr::new(url)]))?;
    let too_large = || format!("it is larger than {} MB", most / 1_000_000);
    // Not every server says the size before.
    if ended.status.success() && fs::metadata(archive).is_ok_and(|data| data.len() > most) {
        return Err(unfetched(reference, &too_large(), &[]));
    }
    let private = "A private address must be let through by whoever runs the platform (DOZEN_DYNO_ALLOW_NETWORKS).";
    // Exit codes: curl's manual page, "EXIT CODES".
    let (why, hints): (String, &[&str]) = match ended.status.code() {
        Some(0) => return Ok(()),
        Some(1) => ("it redirects to something that is neither http nor https".to_owned(), &[]),
        Some(6) => ("the name of its host is not known".to_owned(), &[]),
        Some(7) => ("nothing answers there".to_owned(), &[private]),
        Some(22) => {
            let code = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
            (
                format!("its server answered {code}"),
                &["Check that the file is there and can be read without a password."],
            )
        }
        Some(18 | 52 | 56) => ("the connection was cut off".to_owned(), &["Push again."]),
        Some(28) => ("its server did not answer in time".to_owned(), &[private]),
        Some(35 | 60) => ("its server's certificate is not trusted".to_owned(), &[]),
        Some(47) => ("it redirects more than ten times".to_owned(), &[]),
        Some(63) => (too_large(), &[]),
        _ => (format!("curl ended with {}", ended.why()), &[]),
    };
    Err(unfetched(reference, &why, hints))
}

fn check_sum(reference: &Reference, archive: &Path, expected: &str) -> Result<()> {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut file = fs::File::open(archive).map_err(Error::io("open", archive))?;
    let mut block = vec![0; 256 * 1024];
    loop {
        match file.read(&mut block).map_err(Error::io("read", archive))? {
            0 => break,
            read => digest.update(&block[..read]),
        }
    }
    let found = data_encoding::HEXLOWER.encode(digest.finish().as_ref());
    if found == expected {
        return Ok(());
    }
    Err(unfetched(
        reference,
        "it is not the file that its checksum is for",
        &[&format!("Its SHA-256 is {found}."), "If it was changed on purpose, put that behind #sha256: of its URL."],
    ))
}

/// Unpacks a tarball. Its files may lie in one folder, as code hosting packs them.
fn unpack(build: &Build<'_>, reference: &Reference, archive: &Path, folder: &Path) -> Result<PathBuf> {
    let named = |error| match error {
        Error::Rejected(explanation) => unfetched(
            reference,
            "its archive cannot be used",
            &[
                explanation.headline.as_str(),
                "It must be a gzipped tar with bin/detect and bin/compile, at its root or in one folder.",
            ],
        ),
        other => other,
    };
    let source = Source::read_whole(archive).map_err(named)?;
    source.unpack(folder, build.spec.limits.source_bytes).map_err(named)?;
    let _ = fs::remove_file(archive);
    let root = root(folder).map_err(Error::io("list", folder))?;
    for script in SCRIPTS {
        let script = root.join("bin").join(script);
        if fs::symlink_metadata(&script).is_ok_and(|data| data.is_file()) {
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(Error::io("write", &script))?;
        }
    }
    Ok(root)
}

/// Where the buildpack begins: the folder itself, or the only one in it that has `bin/detect`.
fn root(folder: &Path) -> io::Result<PathBuf> {
    if !folder.join("bin/detect").is_file() {
        let mut inner = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            inner.extend(path.join("bin/detect").is_file().then_some(path));
        }
        if let [only] = inner.as_slice() {
            return Ok(only.clone());
        }
    }
    Ok(folder.to_owned())
}

fn unfetched(reference: &Reference, why: &str, hints: &[&str]) -> Error {
    let mut details = vec![String::new()];
    details.extend(hints.iter().map(|hint| (*hint).to_owned()));
    details.push("See what is set with \"heroku buildpacks\", set another with \"heroku buildpacks:set\".".to_owned());
    Error::explained(format!("Failed to fetch the buildpack {reference}: {why}."), details)
}
