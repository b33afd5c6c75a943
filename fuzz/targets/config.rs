//! Configuration files and settings, down to the geometry that follows from them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::config::resolve(data));
