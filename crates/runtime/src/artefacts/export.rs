//! An image as a slug: a gzipped tar with everything below `./app`, as [`super::unpack`] takes it and Heroku does.
//!
//! The layers are merged here as the overlay would. Equal images are equal archives: names are sorted, owners and times
//! fixed. A slug has no place for an image's launch environment, so that goes along as a script of `.profile.d`.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, Metadata},
    io::{self, BufWriter, Read, Write},
    ops::Bound,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use super::pack::{self, MTIME, OPAQUE_MARKS};

/// Sets the launch environment; the first in its directory, so that other scripts can rely on it.
const SCRIPT: &str = ".profile.d/000_launch_env.sh";
/// Bytes of a name that a header has room for.
const NAME: usize = 100;

/// Writes the layers (lowest first, each holding `app`) with the launch environment.
pub(super) fn write(layers: &[PathBuf], launch_env: &BTreeMap<String, String>, to: File) -> io::Result<()> {
    let merged = merged(layers)?;
    let compress = GzEncoder::new(BufWriter::with_capacity(256 << 10, to), Compression::fast());
    let mut slug = Slug { tar: Builder::new(compress), links: HashMap::new() };
    for (path, layer) in &merged {
        if !launch_env.is_empty() && path.as_path() == Path::new(SCRIPT) {
            continue;
        }
        slug.entry(&layers[*layer].join("app").join(path), path)?;
    }
    if !launch_env.is_empty() {
        slug.script(&script(launch_env))?;
    }
    slug.tar.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(())
}

/// What the layers hold together: relative paths, and the layer each is in. A parent comes before its children.
fn merged(layers: &[PathBuf]) -> io::Result<BTreeMap<PathBuf, usize>> {
    let mut all = BTreeMap::from([(PathBuf::new(), layers.len().saturating_sub(1))]);
    for (number, layer) in layers.iter().enumerate() {
        let app = layer.join("app");
        let mut ahead = vec![PathBuf::new()];
        while let Some(directory) = ahead.pop() {
            for entry in fs::read_dir(app.join(&directory))? {
                let entry = entry?;
                let path = directory.join(entry.file_name());
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    if OPAQUE_MARKS.iter().any(|mark| pack::is_marked(&entry.path(), mark)) {
                        remove(&mut all, &path);
                    }
                    all.insert(path.clone(), number);
                    ahead.push(path);
                    continue;
                }
                remove(&mut all, &path);
                let hides = kind.is_char_device() && entry.metadata()?.rdev() == 0;
                if !hides && (kind.is_file() || kind.is_symlink()) {
                    all.insert(path, number);
                }
            }
        }
    }
    Ok(all)
}

fn remove(all: &mut BTreeMap<PathBuf, usize>, path: &Path) {
    all.remove(path);
    let below = all.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
    let below: Vec<PathBuf> =
        below.map(|(below, _)| below).take_while(|below| below.starts_with(path)).cloned().collect();
    for path in below {
        all.remove(&path);
    }
}

/// Sets what is not set, for config vars are; puts a search path before the one that is there.
fn script(launch_env: &BTreeMap<String, String>) -> String {
    let mut script = "# What the image sets for every process, below config vars.\n".to_owned();
    for (key, value) in launch_env {
        let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
        script += &match key.as_str() {
            "PATH" => {
                let own: Vec<&str> =
                    value.split(':').filter(|part| !matches!(*part, "" | "$PATH" | "${PATH}")).collect();
                format!("export PATH={}\":$PATH\"\n", quoted(&own.join(":")))
            }
            _ => format!("[ -n \"${{{key}+set}}\" ] || export {key}={}\n", quoted(value)),
        };
    }
    script
}

struct Slug<W: Write> {
    tar: Builder<W>,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Slug<W> {
    fn entry(&mut self, from: &Path, path: &Path) -> io::Result<()> {
        let metadata = from.symlink_metadata()?;
        let mut name = b"./app/".to_vec();
        name.extend(path.as_os_str().as_bytes());
        if metadata.is_dir() {
            if !name.ends_with(b"/") {
                name.push(b'/');
            }
            return self.append(pack::header(EntryType::Directory, &metadata), &name, b"", io::empty());
        }
        if metadata.is_symlink() {
            let target = fs::read_link(from)?;
            let header = pack::header(EntryType::Symlink, &metadata);
            return self.append(header, &name, target.as_os_str().as_bytes(), io::empty());
        }
        self.file(from, &name, &metadata)
    }

    fn file(&mut self, from: &Path, name: &[u8], metadata: &Metadata) -> io::Result<()> {
        if metadata.nlink() > 1 {
            let id = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&id).cloned() {
                return self.append(pack::header(EntryType::Link, metadata), name, &first, io::empty());
            }
            self.links.insert(id, name.to_vec());
        }
        let mut header = pack::header(EntryType::Regular, metadata);
        header.set_size(metadata.len());
        self.append(header, name, b"", File::open(from)?.take(metadata.len()))
    }

    fn script(&mut self, text: &str) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(MTIME);
        header.set_size(text.len() as u64);
        self.append(header, format!("./app/{SCRIPT}").as_bytes(), b"", text.as_bytes())
    }

    /// Adds an entry under exactly this name; the `tar` crate's own way leaves `./` out.
    fn append(&mut self, mut header: Header, name: &[u8], link: &[u8], data: impl Read) -> io::Result<()> {
        self.long(EntryType::GNULongName, name)?;
        self.long(EntryType::GNULongLink, link)?;
        if let Some(header) = header.as_gnu_mut() {
            let fill = |field: &mut [u8; NAME], text: &[u8]| {
                let n = text.len().min(NAME);
                field[..n].copy_from_slice(&text[..n]);
            };
            fill(&mut header.name, name);
            fill(&mut header.linkname, link);
        }
        header.set_cksum();
        let size = header.size()?;
        let mut data = data.take(size);
        self.tar.append(&header, &mut data)?;
        // A file that shrank would shift what follows it.
        if data.limit() > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn long(&mut self, kind: EntryType, text: &[u8]) -> io::Result<()> {
        if text.len() <= NAME {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        let name = b"././@LongLink";
        if let Some(header) = header.as_gnu_mut() {
            header.name[..name.len()].copy_from_slice(name);
        }
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(text.len() as u64 + 1);
        header.set_cksum();
        self.tar.append(&header, text.chain(&b"\0"[..]))
    }
}
