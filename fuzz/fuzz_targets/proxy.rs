//! The header of the PROXY protocol; what must hold is in `crates/router/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dozen_router::fuzzing::proxy(data));
