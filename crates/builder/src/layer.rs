//! Keys of layers: equal key, equal layer.
//!
//! A key digests everything that decides a layer's contents: buildpack revision, versions, lock files, the identity of
//! the system's programs. Each part goes in with its name and length, so that parts cannot run into one another.

use dozen_domain::image::LayerPlan;
use ring::digest::{Context, SHA256};

/// Digests the parts of a key.
pub(crate) struct Key(Context);

impl Key {
    /// A key of one buildpack's layer. `revision` changes whenever we change how the layer is made.
    pub(crate) fn new(buildpack: &str, revision: u32) -> Self {
        Self(Context::new(&SHA256)).with("buildpack", buildpack).with("revision", revision.to_string())
    }

    /// Adds a part.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.update(format!("{name}:{}:", value.len()).as_bytes());
        self.0.update(value);
        self
    }

    /// The finished key.
    pub(crate) fn finish(self) -> String {
        data_encoding::HEXLOWER.encode(self.0.finish().as_ref())
    }

    /// The finished key as a layer's plan.
    pub(crate) fn layer(self, name: &str, path: &str) -> LayerPlan {
        LayerPlan { name: name.to_owned(), path: path.to_owned(), key: self.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_one_another() {
        let key = |a: &str, b: &str| Key::new("x", 1).with("p", a).with("p", b).finish();
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(key("a", "b"), key("a", "b"));
    }
}
