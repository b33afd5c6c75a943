//! Counters and locks of an arena that is then used.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::arena::open_and_use(&["control"], data));
