//! The ledger's chain: each release carries a hash over its own row and the hash of the one before.
//!
//! Guarantee: any change of a stored release, its removal, a swap of two, or rows cut off the end are found by
//! [`verify`]. Caveat: somebody who can write the database and recomputes every hash after his change is not found; a
//! copy of the last hash kept elsewhere (`dozen ledger:verify` prints it) finds him too.

use dozen_domain::{ids::AppId, name::AppName, release::Version};
use ring::digest::{Context as Digest, SHA256};

use super::Result;
use crate::{
    state::Context,
    store::{self, releases::Release},
};

/// What the first release's `previous_hash` is.
pub const GENESIS: [u8; 32] = [0; 32];

/// The hash of a release: SHA-256 over the previous hash and each field, every one preceded by its length.
pub fn hash(release: &Release) -> Vec<u8> {
    let mut digest = Digest::new(&SHA256);
    let mut field = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    field(&release.previous_hash);
    field(release.id.0.as_bytes());
    field(release.app.0.as_bytes());
    field(&release.version.0.to_le_bytes());
    field(release.description.as_bytes());
    field(release.account.0.as_bytes());
    field(release.email.as_bytes());
    field(release.slug.as_ref().map_or(&[][..], |slug| slug.0.as_bytes()));
    field(&release.config);
    field(release.attachments.as_bytes());
    field(release.formation.as_bytes());
    field(&release.created_at.to_le_bytes());
    digest.finish().as_ref().to_vec()
}

/// What is wrong with one app's ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The row does not have the hash it carries.
    #[error("{0} was changed")]
    Changed(Version),
    /// The row does not carry the hash of the one before.
    #[error("{0} does not follow the release before it")]
    Unlinked(Version),
    /// A number is left out or doubled.
    #[error("{expected} is missing (found {found})")]
    Gap {
        /// The number that was due.
        expected: Version,
        /// The number that came.
        found: Version,
    },
    /// The last row is not the one that was written last.
    #[error("releases after {0} are missing")]
    Cut(Version),
    /// Config vars of the row do not open.
    #[error("the config vars of {0} cannot be opened")]
    Sealed(Version),
}

/// One app's ledger, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Which app.
    pub app: AppId,
    /// Its name.
    pub name: AppName,
    /// How many releases.
    pub releases: usize,
    /// The last hash; keep a copy elsewhere to find even a rewritten ledger.
    pub head: Vec<u8>,
    /// What is wrong; empty is good.
    pub faults: Vec<Fault>,
}

/// Checks the ledgers of all apps. Reads only.
///
/// # Errors
/// When the database fails.
pub async fn verify(context: &Context) -> Result<Vec<Checked>> {
    let mut db = context.store.read().await?;
    let mut checked = Vec::new();
    for app in store::apps::all(&mut db).await? {
        let releases = store::releases::of_app(&mut db, app.id).await?;
        let head = store::releases::head(&mut db, app.id).await?;
        let mut faults = chain(&releases);
        let last = releases.last().map(|release| (release.version, release.hash.clone()));
        if last != head {
            faults.push(Fault::Cut(last.as_ref().map_or(Version(0), |(version, _)| *version)));
        }
        for release in &releases {
            if super::releases::config(context, release).is_err() {
                faults.push(Fault::Sealed(release.version));
            }
        }
        let head = last.map_or_else(|| GENESIS.to_vec(), |(_, hash)| hash);
        checked.push(Checked { app: app.id, name: app.name, releases: releases.len(), head, faults });
    }
    Ok(checked)
}

/// Faults of a chain of rows, oldest first.
pub fn chain(releases: &[Release]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut previous = GENESIS.to_vec();
    for (number, release) in (1..).zip(releases) {
        let (expected, found) = (Version(number), release.version);
        if expected != found {
            faults.push(Fault::Gap { expected, found });
            return faults;
        }
        if release.previous_hash != previous {
            faults.push(Fault::Unlinked(found));
        }
        if hash(release) != release.hash {
            faults.push(Fault::Changed(found));
        }
        previous.clone_from(&release.hash);
    }
    faults
}
