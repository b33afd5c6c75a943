//! `cargo xtask wheel`: the Python package as one file at `target/wheels`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::mpi::{Kind, Mpi};
use crate::process::run;
use crate::venv::{Python, WHEEL};
use crate::workspace::target;

/// Options of `cargo xtask wheel`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// For this machine and its MPICH alone: programs that `srun` or `mpirun` starts are ranks themselves. Goes to target/wheels-mpi.
    #[arg(long)]
    mpi: bool,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let python = Python::with(&[&WHEEL])?;
    if options.mpi { with_mpi(&python, &Mpi::get(Kind::Mpich)?) } else { build(&python) }.map(|_| ())
}

/// Builds the wheel that has MPI in it, and says where it is. It is not for other machines: what it is linked with is this one's.
pub(crate) fn with_mpi(python: &Python, mpi: &Mpi) -> Result<PathBuf> {
    let folder = target().join("wheels-mpi");
    clear(&folder)?;
    mpi.forget_others()?;
    let mut maturin = python.command([
        "-m",
        "maturin",
        "build",
        "--release",
        "--features",
        "mpi",
        "--compatibility",
        "linux",
        "--manifest-path",
        "cascade-py/Cargo.toml",
    ]);
    // The MPI of the machine is used as it is: nothing of it is put into the wheel.
    mpi.prepare(maturin.args(["--auditwheel", "skip", "--out"]).arg(&folder));
    run(&mut maturin)?;
    let wheel = find(&folder)?;
    println!("wheel with MPI: {}", wheel.display());
    Ok(wheel)
}

/// Builds the wheel and says where it is.
pub(crate) fn build(python: &Python) -> Result<PathBuf> {
    let folder = target().join("wheels");
    clear(&folder)?;
    let mut maturin =
        python.command(["-m", "maturin", "build", "--release", "--manifest-path", "cascade-py/Cargo.toml"]);
    maturin.arg("--out").arg(&folder);
    if python.has_module("ziglang") {
        maturin.args(["--zig", "--compatibility", "manylinux_2_28"]);
    } else {
        println!(
            "No ziglang in this Python: the wheel will run on machines with this glibc or a newer one, not on older ones."
        );
        maturin.args(["--compatibility", "linux"]);
    }
    run(&mut maturin)?;
    let wheel = find(&folder)?;
    let bytes = fs::metadata(&wheel).with_context(|| format!("cannot read {}", wheel.display()))?.len();
    println!("wheel: {} ({:.1} MB)", wheel.display(), bytes as f64 / 1e6);
    Ok(wheel)
}

/// Removes wheels of earlier builds, so that an old one is never taken for the new one.
fn clear(folder: &Path) -> Result<()> {
    for wheel in wheels(folder) {
        fs::remove_file(&wheel).with_context(|| format!("cannot remove {}", wheel.display()))?;
    }
    Ok(())
}

fn find(folder: &Path) -> Result<PathBuf> {
    let mut found = wheels(folder);
    match (found.pop(), found.len()) {
        (Some(wheel), 0) => Ok(wheel),
        (last, more) => {
            bail!("expected one wheel in {}, found {}", folder.display(), usize::from(last.is_some()) + more)
        }
    }
}

fn wheels(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "whl")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_wheel_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert!(find(folder.path()).is_err());
        fs::write(folder.path().join("a.whl"), "").unwrap();
        assert_eq!(find(folder.path()).unwrap(), folder.path().join("a.whl"));
        fs::write(folder.path().join("b.whl"), "").unwrap();
        assert!(find(folder.path()).unwrap_err().to_string().contains("found 2"));
        clear(folder.path()).unwrap();
        assert!(wheels(folder.path()).is_empty());
    }
}
