//! The superblock, with and without a digest that is right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::superblock::parse(data));
