//! See `quorate_fuzzed::statements`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzzed::statements(bytes));
