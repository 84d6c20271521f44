//! Turns source code into an app, inside the build's own container.
//!
//! The runtime runs this crate twice in one sandbox: `analyze` reads the source and says which buildpacks take it and
//! which layers they would make, without side effects; `build` does the work in `/app`, where layers with equal keys
//! are mounted already. Files in `/build` are the only interface (see [`phases`]). What becomes of `/app` afterwards
//! (layers, image, store) is the runtime's affair.

mod build;
mod buildpacks;
mod command;
mod error;
mod layer;
mod output;
pub mod phases;
pub mod roots;
mod source;
pub mod static_server;
mod toolchain;

pub use error::Error;

/// The hidden command `dozen builder analyze|build`; answers the exit status.
pub fn main(args: &[String]) -> i32 {
    let phase = match args {
        [phase] if phase == "analyze" => phases::Phase::Analyze,
        [phase] if phase == "build" => phases::Phase::Build,
        _ => return 2,
    };
    // Files of an app are readable by its dynos whatever the umask of whoever started the platform.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    phases::run(phase, &roots::Roots::container(), std::env::vars_os().collect(), Box::new(std::io::stdout()))
}
