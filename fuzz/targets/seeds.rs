//! Writes the first inputs of every target: makes a folder for each in `CASCADE_SEEDS`, and prints the targets' names.
//!
//! It fuzzes nothing; it is built as a target because everything here is built with the fuzzer's flags, which need its library.
#![no_main]

use std::path::PathBuf;

libfuzzer_sys::fuzz_target!(init: write_seeds(), |_data: &[u8]| ());

fn write_seeds() {
    let folder = PathBuf::from(std::env::var_os("CASCADE_SEEDS").expect("CASCADE_SEEDS names a folder"));
    for (name, seeds) in cascade_fuzz::seeds() {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed{number}")), seed).expect("a file can be written");
        }
        println!("{name}");
    }
    std::process::exit(0);
}
