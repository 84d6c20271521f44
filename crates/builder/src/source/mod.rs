//! The source as analysis sees it: names of all files, contents of the few that decide how it is built.
//!
//! Read from the archive without unpacking anything, so that the first phase has no side effect and a bad project fails
//! at once. What git keeps for itself and what `.slugignore` names is not in here, as it will not be in `/app`.

pub(crate) mod archive;
pub(crate) mod slugignore;
pub(crate) mod submodule;
pub(crate) mod unpack;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use self::{
    archive::{Kind, Member},
    slugignore::Ignored,
};
use crate::error::{Error, Result};

/// Contents of files up to this size at the root are kept while reading; larger ones decide nothing but are lock files.
const KEPT_BYTES: u64 = 1024 * 1024;
/// The same for lock files.
const KEPT_LOCK_BYTES: u64 = 64 * 1024 * 1024;

/// The source's files by path relative to the root.
#[derive(Debug)]
pub(crate) struct Source {
    files: BTreeMap<String, File>,
    /// The one folder that holds everything, when the archive was made with it.
    wrapper: Option<String>,
    ignored: Ignored,
    archive: Option<PathBuf>,
}

#[derive(Debug)]
struct File {
    kind: Kind,
    content: Option<Vec<u8>>,
}

impl Source {
    /// Reads an archive.
    ///
    /// # Errors
    /// When it is no readable tar, holds members that could leave the root, or its `.slugignore` is wrong.
    pub(crate) fn read(archive: &Path) -> Result<Self> {
        let mut source = Self::read_whole(archive)?;
        source.ignored = match source.text(".slugignore")? {
            Some(patterns) => Ignored::parse(patterns)?,
            None => Ignored::default(),
        };
        let ignored = &source.ignored;
        source.files.retain(|path, file| !ignored.matches(path, file.kind == Kind::Folder));
        Ok(source)
    }

    /// Reads an archive that is no app's source: nothing is left out.
    ///
    /// # Errors
    /// When it is no readable tar or holds members that could leave the root.
    pub(crate) fn read_whole(archive: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        archive::each(archive, true, &mut |member, content| {
            let path = String::from_utf8_lossy(&member.path).into_owned();
            let file = read_member(&path, &member, content).map_err(|source| archive::damaged(archive, &source))?;
            files.insert(path, file);
            Ok(())
        })?;
        let wrapper = wrapper(&files);
        if let Some(wrapper) = &wrapper {
            files = unwrap(files, wrapper);
        }
        Ok(Self { files, wrapper, ignored: Ignored::nothing(), archive: Some(archive.to_owned()) })
    }

    /// Lists a folder, for buildpacks that come after one that may have changed it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn list(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        list_folder(folder, "", &mut files)?;
        Ok(Self { files, wrapper: None, ignored: Ignored::default(), archive: None })
    }

    /// Says whether a file (or a symbolic link) is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.get(path).is_some_and(|file| file.kind != Kind::Folder)
    }

    /// Says whether anything lies below a folder.
    pub(crate) fn has_below(&self, folder: &str) -> bool {
        let prefix = format!("{folder}/");
        self.files.range(prefix.clone()..).next().is_some_and(|(path, _)| path.starts_with(&prefix))
    }

    /// Paths of all files, sorted.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, file)| file.kind != Kind::Folder).map(|(path, _)| path.as_str())
    }

    /// A file's bytes, if it is there and was small enough to be kept.
    pub(crate) fn bytes(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path)?.content.as_deref()
    }

    /// A file's text.
    ///
    /// # Errors
    /// When it is there but not UTF-8, or too large to be what its name says.
    pub(crate) fn text(&self, path: &str) -> Result<Option<&str>> {
        let Some(file) = self.files.get(path) else { return Ok(None) };
        match (&file.kind, &file.content) {
            (Kind::File, Some(content)) => match std::str::from_utf8(content) {
                Ok(text) => Ok(Some(text)),
                Err(error) => Err(Error::explained(
                    format!("{path} is not UTF-8 text (byte {}).", error.valid_up_to() + 1),
                    vec![String::new(), "Save the file as UTF-8 and push again.".to_owned()],
                )),
            },
            (Kind::File, None) => Err(Error::explained(
                format!("{path} is too large to be read."),
                vec![String::new(), format!("Make it smaller than {KEPT_BYTES} bytes.")],
            )),
            _ => Ok(None),
        }
    }

    /// A digest of all there is, for layers that install the app itself.
    ///
    /// # Errors
    /// When the archive cannot be read again.
    pub(crate) fn digest(&self) -> Result<Vec<u8>> {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        match &self.archive {
            Some(path) => {
                let mut file = fs::File::open(path).map_err(Error::io("open", path))?;
                let mut block = vec![0; 256 * 1024];
                loop {
                    let read = file.read(&mut block).map_err(Error::io("read", path))?;
                    if read == 0 {
                        break;
                    }
                    digest.update(&block[..read]);
                }
            }
            None => {
                for (path, file) in &self.files {
                    digest.update(path.as_bytes());
                    digest.update(file.content.as_deref().unwrap_or_default());
                }
            }
        }
        Ok(digest.finish().as_ref().to_vec())
    }
}

fn read_member(path: &str, member: &Member, content: &mut dyn Read) -> std::io::Result<File> {
    let content = if member.kind == Kind::File && is_kept(path, member.size) {
        let mut bytes = Vec::with_capacity(usize::try_from(member.size).unwrap_or_default());
        content.take(member.size).read_to_end(&mut bytes)?;
        Some(bytes)
    } else {
        None
    };
    Ok(File { kind: member.kind.clone(), content })
}

/// Which contents analysis may ask for: everything small near the root (the archive may have a wrapper folder), lock
/// files, and further in only what manifests at the root can point at.
fn is_kept(path: &str, size: u64) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    if size <= KEPT_BYTES {
        let depth = path.bytes().filter(|byte| *byte == b'/').count();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        return depth <= 1 || matches!(extension, "txt" | "in" | "toml" | "json" | "npmrc" | "yml" | "mod");
    }
    size <= KEPT_LOCK_BYTES && (name.contains("lock") || name.contains("shrinkwrap"))
}

/// Archives from code hosting hold one folder around everything (`repo-1a2b3c/`); it is not part of the app.
fn wrapper(files: &BTreeMap<String, File>) -> Option<String> {
    const CONTENT: &[&str] = &["public", "dist", "static", "www", "build", "docs", "site", "src", "bin", "log", "tmp"];
    let first = files.keys().find(|path| path.contains('/'))?.split('/').next()?.to_owned();
    let inside = |path: &String| path.split('/').next() == Some(first.as_str());
    let only = files.iter().all(|(path, file)| inside(path) && (path.contains('/') || file.kind == Kind::Folder));
    (only && !first.starts_with('.') && !CONTENT.contains(&first.as_str())).then_some(first)
}

fn unwrap(files: BTreeMap<String, File>, wrapper: &str) -> BTreeMap<String, File> {
    files
        .into_iter()
        .filter_map(|(path, file)| {
            let inner = path.strip_prefix(wrapper)?.strip_prefix('/')?;
            Some((inner.to_owned(), file))
        })
        .collect()
}

fn list_folder(folder: &Path, prefix: &str, files: &mut BTreeMap<String, File>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let full = entry.path();
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = fs::symlink_metadata(&full).map_err(Error::io("look at", &full))?;
        if metadata.is_dir() {
            // Trees of dependencies decide nothing and are large.
            if !matches!(path.as_str(), "node_modules" | ".heroku" | ".git") {
                list_folder(&full, &format!("{path}/"), files)?;
            }
            files.insert(path, File { kind: Kind::Folder, content: None });
        } else {
            let kind = if metadata.is_symlink() { Kind::Link(Vec::new()) } else { Kind::File };
            let content = if kind == Kind::File && is_kept(&path, metadata.len()) {
                Some(fs::read(&full).map_err(Error::io("read", &full))?)
            } else {
                None
            };
            files.insert(path, File { kind, content });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a tar of files, for tests of this crate.
    pub(crate) fn tar_of(folder: &Path, files: &[(&str, &str)]) -> PathBuf {
        let path = folder.join("source.tar");
        let mut tar = tar::Builder::new(fs::File::create(&path).expect("a writable folder"));
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(if name.starts_with("bin/") { 0o755 } else { 0o644 });
            tar.append_data(&mut header, name, content.as_bytes()).expect("a member");
        }
        tar.finish().expect("a whole archive");
        path
    }

    /// The source that such a tar makes.
    pub(crate) fn source_of(files: &[(&str, &str)]) -> Source {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Source::read(&tar_of(folder.path(), files)).expect("a readable source")
    }

    #[test]
    fn ignored_files_are_not_part_of_the_source() {
        let source = source_of(&[
            (".slugignore", "*.psd\n"),
            ("Procfile", "web: x"),
            ("a.psd", ""),
            ("tmp/x", ""),
            ("bin/post_compile", ""),
        ]);
        assert_eq!(source.paths().collect::<Vec<_>>(), [".slugignore", "Procfile", "bin/post_compile"]);
        assert!(source.has_below("bin") && !source.has_below("bi"));
        assert_eq!(source.text("Procfile").expect("text"), Some("web: x"));
    }

    #[test]
    fn the_folder_around_a_downloaded_archive_is_taken_off() {
        let source = source_of(&[("repo-1a2b/Procfile", "web: x"), ("repo-1a2b/src/a", "")]);
        assert_eq!(source.paths().collect::<Vec<_>>(), ["Procfile", "src/a"]);
        assert_eq!(source.wrapper.as_deref(), Some("repo-1a2b"));
        let source = source_of(&[("public/index.html", "")]);
        assert_eq!(source.paths().collect::<Vec<_>>(), ["public/index.html"]);
    }

    #[test]
    fn binary_text_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("Procfile"), b"web: \xff\xfe").expect("written");
        let source = Source::list(folder.path()).expect("listed");
        let error = source.text("Procfile").expect_err("not UTF-8");
        assert_eq!(error.to_string(), "Procfile is not UTF-8 text (byte 6).");
    }
}
