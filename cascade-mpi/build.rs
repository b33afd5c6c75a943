//! With the feature `mpi`: tells the linker where the MPI library was found, so that programs find the same one when they run.
//! An MPI from a module or a Python package is in no folder that the system searches.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MPICC");
    if env::var_os("CARGO_FEATURE_MPI").is_none() {
        return;
    }
    let compiler = env::var_os("MPICC").unwrap_or_else(|| "mpicc".into());
    // The crate `mpi` asks the same compiler, and fails with its own words where there is none.
    let Ok(shown) = Command::new(compiler).arg("-show").output() else { return };
    for word in String::from_utf8_lossy(&shown.stdout).split_whitespace() {
        if let Some(folder) = word.strip_prefix("-L") {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        }
    }
}
