//! The tools, why each is wanted, and how it comes onto a machine.

/// Whether work stops without a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Every change is checked with it.
    Always,
    /// Some lanes, tiers or measurements.
    Sometimes,
}

/// A tool of development.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Command lines, of which one must succeed. For Python the rule of the virtual environment decides.
    pub(super) probes: &'static [&'static [&'static str]],
    pub(super) need: Need,
    pub(super) purpose: &'static str,
    pub(super) cure: &'static str,
}

const fn tool(
    name: &'static str,
    need: Need,
    probes: &'static [&'static [&'static str]],
    purpose: &'static str,
    cure: &'static str,
) -> Tool {
    Tool { name, probes, need, purpose, cure }
}

use Need::{Always, Sometimes};

pub(super) const TOOLS: [Tool; 16] = [
    tool(
        "Rust",
        Always,
        &[&["rustc", "--version"]],
        "builds everything",
        "https://rustup.rs, then `rustup update stable`",
    ),
    tool(
        "clippy",
        Always,
        &[&["cargo", "clippy", "--version"]],
        "cargo xtask lint",
        "rustup component add clippy",
    ),
    tool(
        "rustfmt",
        Always,
        &[&["cargo", "fmt", "--version"]],
        "cargo xtask lint",
        "rustup component add rustfmt",
    ),
    tool(
        "C compiler",
        Always,
        &[&["cc", "--version"]],
        "builds blake3 and the stand-in for the CUDA driver",
        "sudo apt-get install build-essential",
    ),
    tool(
        "Python",
        Always,
        &[],
        "3.11 or newer, for the package, ruff and the demo",
        "sudo apt-get install python3 python3-venv, or let CASCADE_PYTHON name one that has the packages",
    ),
    tool(
        "git",
        Always,
        &[&["git", "--version"]],
        "lint reads the list of files from it",
        "sudo apt-get install git",
    ),
    tool(
        "nextest",
        Sometimes,
        &[&["cargo", "nextest", "--version"]],
        "shows hangs and runs tests side by side; plain `cargo test` does without",
        "cargo install --locked cargo-nextest",
    ),
    tool(
        "nightly Rust",
        Sometimes,
        &[&["rustc", "+nightly", "--version"]],
        "fuzzing and Miri",
        "rustup toolchain install nightly",
    ),
    tool(
        "Miri",
        Sometimes,
        &[&["cargo", "+nightly", "miri", "--version"]],
        "checks unsafe code of cascade-core",
        "rustup +nightly component add miri rust-src",
    ),
    tool(
        "cargo-fuzz",
        Sometimes,
        &[&["cargo", "fuzz", "--version"]],
        "fuzzing",
        "cargo install --locked cargo-fuzz",
    ),
    tool(
        "MPI",
        Sometimes,
        &[&["mpicc", "--version"], &["mpicc", "-show"]],
        "tier 3, other nodes' memory",
        "sudo apt-get install libmpich-dev mpich",
    ),
    tool(
        "libclang",
        Sometimes,
        &[
            &["llvm-config", "--version"],
            &["clang", "--version"],
            &["sh", "-c", "ldconfig -p | grep -m1 -o 'libclang[^ ]*'"],
        ],
        "bindings of MPI are made with it",
        "sudo apt-get install libclang-dev",
    ),
    tool(
        "NVIDIA driver",
        Sometimes,
        &[&["nvidia-smi", "-L"]],
        "tier 1, GPU memory; its tests run on a stand-in without one",
        "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide",
    ),
    tool(
        "CUDA toolkit",
        Sometimes,
        &[&["nvcc", "--version"]],
        "tier 1, kernels",
        "https://developer.nvidia.com/cuda-downloads",
    ),
    tool(
        "fio",
        Sometimes,
        &[&["fio", "--version"]],
        "ceilings of file systems in benchmarks",
        "sudo apt-get install fio",
    ),
    tool(
        "Slurm",
        Sometimes,
        &[&["sbatch", "--version"]],
        "jobs on a cluster",
        "sudo apt-get install slurm-client",
    ),
];
