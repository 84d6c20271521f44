//! The executable: a command becomes a role, or does its work and ends.
//!
//! Shims, builders and git hooks are many and short or small, so they are told apart before anything is set up:
//! no async runtime, no argument parser, no configuration.

mod admin;
mod commands;
mod config;
mod data_dir;
mod doctor;
mod own_log;
mod roles;
mod server;

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    match command.to_str() {
        Some("shim") => roles::shim(arguments.next()),
        Some("builder") => roles::builder(arguments.next()),
        Some("git-hook") => roles::git_hook(),
        Some("sftp-server") => roles::sftp_server(),
        Some("static-server") => roles::static_server(arguments.collect()),
        Some("role") => roles::run(&arguments.collect::<Vec<OsString>>()),
        _ => commands::run(),
    }
}
