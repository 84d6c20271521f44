//! The logs role over real sockets, its shims played by the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod delivery;
mod output;
mod role;
mod sessions;
mod shim;
mod speed;
