//! `cargo xtask kernels`: the GPU kernels as PTX, compiled by NVRTC from a wheel, so that no CUDA toolkit is needed.
//!
//! The first line of each PTX holds the CRC of its source behind the common header, and of its text; a test of `cascade-gpu` compares them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process::output;
use crate::venv::{self, Python};
use crate::workspace;

/// The oldest device that the PTX serves (A100); a driver compiles it for newer ones.
const OPTIONS: [&str; 2] = ["--gpu-architecture=compute_80", "--std=c++17"];

/// What every source may include.
const HEADER: &str = "memory.cuh";

/// Options of `cargo xtask kernels`.
#[derive(Args)]
pub(crate) struct Options {
    /// Change nothing; fail when the PTX in the repository is not what its sources give.
    #[arg(long)]
    check: bool,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let python = Python::with(&[&venv::KERNELS])?;
    let folder = workspace::root().join("cascade-gpu/kernels");
    let mut sources: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "cu"))
        .collect();
    sources.sort();
    let mut stale = Vec::new();
    for source in &sources {
        let (path, ptx) = (source.with_extension("ptx"), compile(&python, source)?);
        if fs::read_to_string(&path).is_ok_and(|old| old == ptx) {
            println!("{} is current", path.display());
        } else if options.check {
            stale.push(path.display().to_string());
        } else {
            fs::write(&path, ptx).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{} is written", path.display());
        }
    }
    if !stale.is_empty() {
        bail!("{} is not what its source gives: run `cargo xtask kernels`", stale.join(", "));
    }
    Ok(())
}

fn compile(python: &Python, source: &Path) -> Result<String> {
    let script = workspace::root().join("xtask/src/kernels/compile.py");
    let mut command = python.command([&script]);
    let folder = source.parent().context("a source without a folder")?;
    let include = format!("--include-path={}", folder.display());
    let text = output(command.arg(source).args(OPTIONS).arg(include))?;
    let text = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n";
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let code = [read(&folder.join(HEADER))?, read(source)?].concat();
    Ok(format!("// source {:016x}, text {:016x}\n{text}", crc64(&code), crc64(text.as_bytes())))
}

/// CRC-64/NVME, as `cascade_core::digest` has it; this program depends on no crate of the workspace.
fn crc64(bytes: &[u8]) -> u64 {
    let step = |state: u64| (state >> 1) ^ if state & 1 == 1 { 0x9A6C_9329_AC4B_C9B5 } else { 0 };
    let byte = |state: u64, byte: &u8| (0..8).fold(state ^ u64::from(*byte), |state, _| step(state));
    !bytes.iter().fold(u64::MAX, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_nvme() {
        assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
    }
}
