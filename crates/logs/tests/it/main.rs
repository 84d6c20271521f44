//! The logs role over real sockets, its shims played by the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounting;
mod delivery;
mod drains;
mod otlp;
mod output;
mod receivers;
mod role;
mod servers;
mod sessions;
mod shim;
mod speed;
