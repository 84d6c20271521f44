//! One machine's dynos: everything between the engine's contract and the kernel.
//!
//! * [`engine`]: the machine engine, which keeps what runs in line with what is wanted, through the shims.
//! * [`builds`]: builds in containers, and [`artefacts`], the store of the images that come out.
//! * [`network`]: the bridge, addresses and packet filter that dynos share.
//! * [`teardown`]: takes all of that off the machine again.
//! * [`shim`]: the process that owns one dyno, with [`sandbox`], the container it makes, and [`cgroup`], its limits.

pub mod artefacts;
pub mod builds;
pub mod cgroup;
pub mod engine;
pub mod network;
pub mod sandbox;
pub mod sftp;
pub mod shim;
pub mod teardown;
