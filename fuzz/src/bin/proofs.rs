//! See `quorate_fuzzed::proofs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzzed::proofs(bytes));
