//! Whether the blobs of an image still have the bytes that their names promise, asked at every launch.
//!
//! Reading them all each time would cost as much as unpacking them. So what tells a file apart that nobody has touched
//! (inode, size, time of its last change) is kept in the app's mark of the image once its bytes are known to be right;
//! only blobs for which that differs are read again. A tree made of a blob is not looked at: it is a cache, and made
//! again when it is thrown away.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
};

use dozen_domain::{ids::AppId, image::Digest};
use ring::digest::{Context, SHA256};

use super::{Batch, Error, Store, digest_of, failed, hex_of, manifest::Manifest};

/// Bytes read at once.
const READ: usize = 256 << 10;

/// Files as they were when their bytes were right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seal(String);

impl Seal {
    /// The digests of what is sealed.
    fn blobs(&self) -> impl Iterator<Item = &str> {
        self.0.lines().filter_map(|line| line.split(' ').next())
    }
}

impl Store {
    /// The seal of an image as its blobs are now.
    fn seal(&self, image: &Digest, manifest: &Manifest) -> Result<Seal, Error> {
        let layers = manifest.layers.iter().map(|layer| layer.hex());
        let blobs = [hex_of(image)?, manifest.config.hex()].into_iter().chain(layers);
        blobs.map(|hex| self.stamp(hex)).collect::<Result<String, _>>().map(Seal)
    }

    fn stamp(&self, hex: &str) -> Result<String, Error> {
        let path = self.blob(hex);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing(digest_of(hex).0)),
            Err(error) => Err(failed("look at", &path)(error)),
            Ok(found) => {
                Ok(format!("{hex} {} {} {}.{:09}\n", found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
            }
        }
    }

    /// Says whether nothing that is sealed has changed.
    pub(super) fn is_sealed(&self, seal: &Seal) -> bool {
        let now: Result<String, Error> = seal.blobs().map(|hex| self.stamp(hex)).collect();
        now.is_ok_and(|now| now == seal.0)
    }

    /// Notes that the app has the image, whose blobs were written just now.
    pub(super) fn mark_fresh(&self, app: AppId, image: &Digest, batch: &mut Batch) -> Result<(), Error> {
        let seal = self.seal(image, &self.manifest(image)?)?;
        self.write_mark(app, image, &seal, batch)
    }

    /// Makes sure that the image's blobs are right, and notes that the app has it.
    ///
    /// # Errors
    /// When one is not.
    pub(super) fn mark_verified(&self, app: AppId, image: &Digest, manifest: &Manifest) -> Result<Seal, Error> {
        let seal = self.seal(image, manifest)?;
        let mark = self.image_mark(app, hex_of(image)?);
        if fs::read_to_string(&mark).is_ok_and(|marked| marked == seal.0) {
            return Ok(seal);
        }
        seal.blobs().try_for_each(|hex| self.verify(hex))?;
        let mut batch = Batch::default();
        self.write_mark(app, image, &seal, &mut batch)?;
        batch.sync()?;
        Ok(seal)
    }

    fn write_mark(&self, app: AppId, image: &Digest, seal: &Seal, batch: &mut Batch) -> Result<(), Error> {
        let mark = self.image_mark(app, hex_of(image)?);
        if let Some(parent) = mark.parent() {
            fs::create_dir_all(parent).map_err(failed("make directory", parent))?;
        }
        batch.write(&mark, seal.0.as_bytes())
    }

    /// Reads a blob and compares its digest with its name.
    fn verify(&self, hex: &str) -> Result<(), Error> {
        let path = self.blob(hex);
        let read = || -> io::Result<String> {
            let (mut file, mut context) = (File::open(&path)?, Context::new(&SHA256));
            let mut buffer = vec![0; READ];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(data_encoding::HEXLOWER.encode(context.finish().as_ref())),
                    length => context.update(&buffer[..length]),
                }
            }
        };
        same(hex, &read().map_err(failed("read", &path))?)
    }
}

/// Compares the digest that bytes should have with the one that they have.
pub(super) fn same(expected: &str, actual: &str) -> Result<(), Error> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::Checksum { expected: expected.to_owned(), actual: actual.to_owned() })
}
