//! Git's pre-receive hook as a program of its own, for the tests of this crate; the platform's executable has it as
//! `dozen git-hook`.

fn main() {
    std::process::exit(dozen_control::hook::main());
}
