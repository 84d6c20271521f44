//! The runtime against the real kernel: shims, containers and what runs in them. Run as root, as the platform is.
//!
//! A shim is a process of its own, started from the platform's executable. Here the test's executable plays that part:
//! called with `shim` or `probe` it acts as such before the test harness starts, see [`entry`].

mod bench;
mod builder;
mod builds;
mod client;
mod damage;
mod disk;
mod dyno;
mod engine;
mod entry;
mod escape;
mod hostile;
mod inside;
mod isolation;
mod lifecycle;
mod lives;
mod network;
mod output;
mod platform;
mod probe;
mod quota;
mod rootless;
