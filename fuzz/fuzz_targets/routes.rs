//! The route table's stream; what must hold is in `crates/router/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dozen_router::fuzzing::routes(data));
