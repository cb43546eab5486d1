//! See `quorate_fuzzed::rules`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzzed::rules(bytes));
