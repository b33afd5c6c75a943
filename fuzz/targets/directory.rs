//! Buckets of the directory and messages between ranks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::directory::parse(data));
