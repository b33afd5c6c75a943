//! Index logs of files: their page, their records, and the names of files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::files::log(data));
