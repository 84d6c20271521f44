//! The platform's own lines about dynos, in the words that people search logs for.

use dozen_domain::codes::Code;

/// A line for each thing that can happen.
pub(super) fn starting(command: &str) -> String {
    format!("Starting process with command `{command}`")
}

pub(super) fn changed(from: &str, to: &str) -> String {
    format!("State changed from {from} to {to}")
}

pub(super) fn exited(status: i32) -> String {
    format!("Process exited with status {status}")
}

pub(super) const RESTARTING: &str = "Restarting";
pub(super) const STOPPING: &str = "Stopping all processes with SIGTERM";
pub(super) const KILLING: &str = "Stopping process with SIGKILL";
pub(super) const AWAITING: &str = "Awaiting client";

pub(super) fn boot_timeout(seconds: u64) -> String {
    error(Code::R10, &format!("Web process failed to bind to $PORT within {seconds} seconds of launch"))
}

pub(super) fn exit_timeout(seconds: u64) -> String {
    error(Code::R12, &format!("Process failed to exit within {seconds} seconds of SIGTERM"))
}

pub(super) fn memory(quota: u64) -> [String; 2] {
    let mb = quota >> 20;
    [format!("Process running mem={mb}M(100.0%)"), error_alone(Code::R15)]
}

pub(super) fn damaged() -> String {
    error(Code::R17, "The app's image is missing or damaged; deploy it again")
}

pub(super) fn platform() -> String {
    error(Code::R99, "The dyno could not be started; the platform's own log says why")
}

fn error(code: Code, what: &str) -> String {
    format!("{} -> {what}", error_alone(code))
}

fn error_alone(code: Code) -> String {
    format!("Error {code} ({})", code.description())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_people_know_them() {
        assert_eq!(
            boot_timeout(60),
            "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch"
        );
        assert_eq!(exit_timeout(30), "Error R12 (Exit timeout) -> Process failed to exit within 30 seconds of SIGTERM");
        assert_eq!(memory(512 << 20)[1], "Error R15 (Memory quota vastly exceeded)");
    }
}
