//! What the stores of a node have counted.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::counters::read(data));
