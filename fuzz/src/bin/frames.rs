//! See `quorate_fuzzed::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzzed::frames(bytes));
