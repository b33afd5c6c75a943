//! State words, ledger entries, lock words and summaries as numbers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::words::read(data));
