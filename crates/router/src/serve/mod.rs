//! One client's connection from its first request to its end, one protocol a file.

pub(crate) mod http1;
pub(crate) mod http2;
