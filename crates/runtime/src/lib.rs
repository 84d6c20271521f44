//! One machine's dynos: everything between the engine's contract and the kernel.
//!
//! * [`engine`]: the machine engine, which keeps what runs in line with what is wanted, through the shims.
//! * [`builds`]: builds in containers, and [`artefacts`], the store of the images that come out.
//! * [`network`]: the bridge, addresses and packet filter that dynos share.

pub mod artefacts;
pub mod network;
