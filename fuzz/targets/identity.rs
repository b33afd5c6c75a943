//! Ids, sizes, key spaces and chains.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::identity::make(data));
