//! Contracts between roles: what they say to each other and how it is framed. No role's rules live here.
//!
//! * [`engine`]: control asks where dynos run; implemented by `runtime`, faked by [`engine::memory`].
//! * [`build`]: control asks for an image from source; implemented by `runtime` around the builder.
//! * [`shim`]: control and logs talk to the process that owns one dyno.
//! * [`routes`]: control tells the router which hosts lead to which dynos.
//! * [`logs`]: everyone hands log lines to the logs role; control reads them back for log sessions.
//! * [`log_session`]: control's side of reading them back.
//! * [`drains`]: control tells the logs role where streams go besides their history.
//! * [`outbound`]: connections to addresses that users name, kept away from what they must not reach.
//! * [`platform`]: what the Platform API answers, as types.
//! * [`client`]: the Platform API from outside; [`introduction`]: who a server says it is.
//! * [`frame`], [`socket`]: how all of that goes over Unix sockets.
//! * [`clock`], [`decimal`]: times and numbers, and how they are written.
//! * [`removal`]: how a directory that an app could write goes, which several roles have to do.

pub mod build;
pub mod client;
pub mod clock;
pub mod decimal;
pub mod drains;
pub mod engine;
pub mod frame;
pub mod introduction;
pub mod log_session;
pub mod logs;
pub mod outbound;
pub mod platform;
pub mod removal;
pub mod routes;
pub mod shim;
pub mod socket;
pub mod traffic;
