//! Style of the Python files, by ruff with the rules of cascade-py/pyproject.toml.

use anyhow::Result;

use crate::process::run;
use crate::steps::Steps;
use crate::venv::{self, Python};
use crate::workspace::TextFile;

pub(super) fn add_steps(steps: &mut Steps, files: &[TextFile]) {
    let paths: Vec<_> = files.iter().map(|f| f.path.as_str()).filter(|path| is_python(path)).collect();
    if paths.is_empty() {
        return;
    }
    let cure = "target/venv/bin/ruff check --fix cascade-py && target/venv/bin/ruff format cascade-py";
    steps.run("Python style", cure, || ruff(&paths));
}

fn ruff(paths: &[&str]) -> Result<String> {
    let python = Python::with(&[&venv::LINT])?;
    // Named one by one, because ruff would reformat examples in Markdown too, whose columns are laid out for a reader.
    run(python.command(["-m", "ruff", "check", "--quiet"]).args(paths))?;
    run(python.command(["-m", "ruff", "format", "--quiet", "--check"]).args(paths))?;
    Ok(format!("{} files", paths.len()))
}

fn is_python(path: &str) -> bool {
    path.ends_with(".py") || path.ends_with(".pyi")
}
