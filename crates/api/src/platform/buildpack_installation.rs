//! `GET /apps/{app}/buildpack-installations`.

use serde::{Deserialize, Serialize};

/// One of an app's buildpacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildpackInstallation {
    /// Its place, from 0.
    pub ordinal: u32,
    /// Which.
    pub buildpack: Buildpack,
}

/// A buildpack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buildpack {
    /// `urn:buildpack:heroku/python`, or where it comes from.
    pub url: String,
    /// `heroku/python`, or the URL.
    pub name: String,
}
