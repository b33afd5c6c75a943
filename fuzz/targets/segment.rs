//! Pages, headers and footers of segment files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cascade_fuzz::files::segment(data));
