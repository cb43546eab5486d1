//! See `quorate_fuzzed::decoders`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzzed::decoders(bytes));
