#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kobza_fuzz::run("duration", bytes));
