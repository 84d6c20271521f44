//! OCI manifests and configs: what is written for an image and how it is read back.
//!
//! Everything in them follows from the image's contents; there is no date, so equal builds are the same image. The
//! builder's result travels in a label, because process types and launch environment have no field of their own.

use std::{collections::BTreeMap, fs};

use dozen_domain::image::{BuildResult, Digest};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{Batch, Error, Store, failed, hex_of, verify::same};

/// Label with the builder's result as JSON.
const RESULT: &str = "dev.dozen.build-result";
/// A fixed date in place of the time of the build, as reproducible images have it.
const CREATED: &str = "1980-01-01T00:00:01Z";

/// A reference to a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Descriptor {
    /// The digits of the digest; empty, thus naming no blob, when it is malformed.
    pub(super) fn hex(&self) -> &str {
        hex_of(&self.digest).unwrap_or_default()
    }
}

/// An image manifest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
struct Config {
    architecture: String,
    os: String,
    created: String,
    config: Runtime,
    rootfs: RootFs,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Runtime {
    env: Vec<String>,
    working_dir: String,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct RootFs {
    r#type: String,
    diff_ids: Vec<Digest>,
}

/// A layer as it goes into an image.
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) diff_id: Digest,
    pub(super) size: u64,
}

impl Store {
    /// Writes config and manifest; returns the image's digest.
    pub(super) fn write_image(
        &self,
        layers: &[Layer],
        result: &BuildResult,
        batch: &mut Batch,
    ) -> Result<Digest, Error> {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let label = serde_json::to_string(result).map_err(|error| failed("write", &self.blobs())(error.into()))?;
        let config = Config {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            created: CREATED.to_owned(),
            config: Runtime {
                env: result.launch_env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
                working_dir: "/app".to_owned(),
                labels: BTreeMap::from([(RESULT.to_owned(), label)]),
            },
            rootfs: RootFs {
                r#type: "layers".to_owned(),
                diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            },
        };
        let layer = |layer: &Layer| Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
            digest: layer.digest.clone(),
            size: layer.size,
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            config: self.write_json(&config, "application/vnd.oci.image.config.v1+json", batch)?,
            layers: layers.iter().map(layer).collect(),
        };
        Ok(self.write_json(&manifest, "application/vnd.oci.image.manifest.v1+json", batch)?.digest)
    }

    fn write_json<T: Serialize>(&self, value: &T, media_type: &str, batch: &mut Batch) -> Result<Descriptor, Error> {
        let bytes = serde_json::to_vec(value).map_err(|error| failed("write", &self.blobs())(error.into()))?;
        let hex = sha256(&bytes);
        let path = self.blob(&hex);
        batch.write(&path, &bytes)?;
        Ok(Descriptor { media_type: media_type.to_owned(), digest: super::digest_of(&hex), size: bytes.len() as u64 })
    }

    pub(super) fn manifest(&self, image: &Digest) -> Result<Manifest, Error> {
        self.read_json(image)
    }

    pub(super) fn result(&self, manifest: &Manifest) -> Result<BuildResult, Error> {
        let config: Config = self.read_json(&manifest.config.digest)?;
        let label = config.config.labels.get(RESULT).map(String::as_str).unwrap_or_default();
        serde_json::from_str(label).map_err(|error| damaged(&manifest.config.digest, &error))
    }

    fn read_json<T: for<'a> Deserialize<'a>>(&self, digest: &Digest) -> Result<T, Error> {
        let hex = hex_of(digest)?;
        let path = self.blob(hex);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::Missing(digest.0.clone())),
            read => read.map_err(failed("read", &path))?,
        };
        same(hex, &sha256(&bytes))?;
        serde_json::from_slice(&bytes).map_err(|error| damaged(digest, &error))
    }
}

pub(super) fn damaged(digest: &Digest, reason: &dyn std::fmt::Display) -> Error {
    Error::Damaged { digest: digest.0.clone(), reason: reason.to_string() }
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}
