//! What `cargo xtask bench --tier pfs` measures beside Cascade: fio, and Python with h5py and, where it is asked for, vLLM. What
//! cannot be set up is said, and then is a row `not run`.

use std::ffi::OsString;

use anyhow::{Result, bail};

use super::value;
use crate::process::{command, run, succeeds};
use crate::venv::{self, BENCH, Python};

/// What the benchmark takes when `--rivals` is not given.
const DEFAULT: [&str; 3] = ["fio", "python", "hdf5"];

/// Sets up what the benchmark is asked to compare with; gives the options that tell it where that is.
pub(super) fn set_up(arguments: &[OsString]) -> Vec<OsString> {
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let is_help = words.iter().any(|word| word == "--help" || word == "-h" || word == "--worker");
    if value(&words, "--tier").as_deref() != Some("pfs") || is_help {
        return Vec::new();
    }
    let asked = value(&words, "--rivals");
    let asked = asked.map_or_else(
        || DEFAULT.map(str::to_owned).to_vec(),
        |list| list.split(',').map(str::to_owned).collect(),
    );
    let is_wanted = |rival: &str| asked.iter().any(|name| name == rival);
    let mut options = Vec::new();
    if is_wanted("fio") {
        or_say("fio", fio());
    }
    if is_wanted("hdf5") && value(&words, "--python").is_none() {
        let python = or_say("hdf5", Python::with(&[&BENCH]));
        options.extend(python.into_iter().flat_map(|python| ["--python".into(), python.program().into()]));
    }
    if is_wanted("vllm") && value(&words, "--vllm-python").is_none() {
        let python = or_say("vllm", venv::with_vllm());
        options.extend(python.into_iter().flat_map(|python| ["--vllm-python".into(), python.into()]));
    }
    options
}

fn or_say<T>(rival: &str, done: Result<T>) -> Option<T> {
    done.inspect_err(|error| eprintln!("{rival} cannot be set up: {error:#}")).ok()
}

/// Installs fio where it is missing and root may.
fn fio() -> Result<()> {
    if succeeds(command("fio").arg("--version")) {
        return Ok(());
    }
    let cure = "install the package fio of your system (Debian: apt-get install fio)";
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if !is_root || !succeeds(command("apt-get").arg("--version")) {
        bail!("it is not on the path; {cure}");
    }
    println!("Installing fio, once");
    let mut install = command("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends", "fio"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_set_up_for_another_tier_nor_for_help() {
        for words in ["--tier shm", "--tier pfs --help", "--tier=pfs --rivals none", "--rivals=fio"] {
            let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            assert!(set_up(&words).is_empty(), "{words:?}");
        }
    }
}
