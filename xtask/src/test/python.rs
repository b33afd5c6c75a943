//! Tests of the Python package: the wheel is built and installed as a user would, then everything runs against it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::vllm;
use crate::process::run;
use crate::steps::Steps;
use crate::venv::{DEMO, Python, TEST, WHEEL};
use crate::{wheel, workspace};

/// The tests with vLLM and what they need.
pub(super) fn add_vllm_alone(steps: &mut Steps) {
    let mut ready = None;
    steps.run("wheel", "run `cargo xtask wheel` alone", || {
        ready = Some(wheel::build(&Python::with(&[&WHEEL])?)?);
        Ok("built".into())
    });
    vllm::add_step(steps, ready.as_deref(), false);
}

pub(super) fn add_steps(steps: &mut Steps, quick: bool, skip_vllm: bool) {
    if !workspace::root().join("cascade-py/python/cascade_kv/__init__.py").is_file() {
        return;
    }
    if quick {
        return steps.leave_out("wheel, pytest, stubs, README, vLLM", "--quick");
    }
    let mut ready = None;
    steps.run("wheel", "run `cargo xtask wheel` alone", || {
        // The adapters are tested with the engine itself, so its packages come too.
        let python = Python::with(&[&WHEEL, &TEST, &DEMO])?;
        let wheel = wheel::build(&python)?;
        python.install_wheel(&wheel)?;
        ready = Some((python, wheel));
        Ok("built and installed".into())
    });
    let Some((python, wheel)) = ready else {
        return steps.leave_out("pytest, stubs, README, vLLM", "there is no wheel");
    };
    let cure = "target/venv/bin/python -m pytest cascade-py/tests -k NAME";
    steps.run("Python tests", cure, || pytest(&python));
    steps.run("Python stubs", "change cascade-py/python/cascade_kv/_native.pyi, or the binding", || {
        stubs(&python)
    });
    if workspace::root().join("README.md").is_file() {
        steps.run("README examples", "change the example that failed", || readme(&python));
    }
    vllm::add_step(steps, Some(&wheel), skip_vllm);
}

fn pytest(python: &Python) -> Result<String> {
    run(&mut python.command([
        "-m",
        "pytest",
        "--rootdir=cascade-py",
        "--config-file=cascade-py/pyproject.toml",
        "cascade-py/tests",
    ]))?;
    Ok(String::new())
}

/// Compares the stubs with what the binary really has, both ways.
fn stubs(python: &Python) -> Result<String> {
    let allowlist = ["--allowlist", "cascade-py/stubtest-allowlist.txt", "--ignore-unused-allowlist"];
    run(python.command(["-m", "mypy.stubtest", "cascade_kv._native"]).args(allowlist))?;
    Ok(String::new())
}

/// Runs the Python examples of the README in order, in one process, as a reader would type them.
fn readme(python: &Python) -> Result<String> {
    let path = workspace::root().join("README.md");
    let text = fs::read_to_string(&path).context("cannot read README.md")?;
    let examples = python_examples(&text);
    if examples.is_empty() {
        bail!("README.md has no ```python example");
    }
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let script: PathBuf = folder.path().join("readme.py");
    fs::write(&script, examples.concat()).context("cannot write the examples")?;
    run(python.command([&script]).current_dir(folder.path()))?;
    Ok(format!("{} examples", examples.len()))
}

/// Bodies of the fenced blocks whose info string is `python` and nothing else, blank lines before them kept, so that
/// line numbers of a traceback are those of the file.
fn python_examples(text: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut open: Option<String> = None;
    let mut blank = String::new();
    for line in text.lines() {
        match &mut open {
            None if line.trim_end() == "```python" => {
                blank.push('\n');
                open = Some(std::mem::take(&mut blank));
            }
            None => blank.push('\n'),
            Some(_) if line.trim_end() == "```" => {
                examples.extend(open.take());
                blank.push('\n');
            }
            Some(body) => {
                body.push_str(line);
                body.push('\n');
            }
        }
    }
    examples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_line_numbers() {
        let text = "# Title\n```python\na = 1\n```\ntext\n```sh\nls\n```\n```python no-run\nb\n```\n```python\nc = a\n```\n";
        let examples = python_examples(text);
        assert_eq!(examples.len(), 2);
        let script = examples.concat();
        assert_eq!(script.lines().nth(2), Some("a = 1"));
        assert_eq!(script.lines().nth(12), Some("c = a"));
        assert_eq!(script.lines().filter(|line| !line.is_empty()).count(), 2);
    }
}
