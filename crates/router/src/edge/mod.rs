//! What happens to a connection or a request before an app's dynos are looked at: certificates, answers to certificate
//! authorities, requests that came by the wrong name, redirects, and which dyno a browser is kept at.
//!
//! The phases call in here at one place each. Nothing here waits, connects or reads a file.

pub(crate) mod affinity;
pub(crate) mod answers;
pub(crate) mod certificates;
pub(crate) mod crowd;
pub(crate) mod guard;
pub(crate) mod proxy_protocol;
