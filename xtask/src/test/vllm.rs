//! The real vLLM with Cascade under it: equal answers, negative controls, deaths, faults.
//!
//! `CASCADE_VLLM_PROMPTS` says how many prompts (10), `CASCADE_VLLM_TRACE` names a file with more of them.

use std::path::Path;

use anyhow::Result;

use crate::process::{command, run};
use crate::steps::Steps;
use crate::{venv, workspace};

const NAME: &str = "vLLM";

/// `wheel` is the package to be tested, `None` when it could not be built.
pub(super) fn add_step(steps: &mut Steps, wheel: Option<&Path>, skip: bool) {
    let Some(wheel) = wheel else { return steps.leave_out(NAME, "there is no wheel") };
    if skip {
        return steps.leave_out(NAME, "--skip-vllm");
    }
    if venv::is_borrowed() {
        return steps.leave_out(NAME, "CASCADE_PYTHON is set, and nothing is installed into it");
    }
    let cure = "target/venv-vllm/bin/python -m pytest --config-file=cascade-py/tests_vllm/pytest.ini -s cascade-py/tests_vllm \
                -k NAME; without a network, or 6 GB of room: --skip-vllm";
    steps.run(NAME, cure, || test(wheel));
}

fn test(wheel: &Path) -> Result<String> {
    let python = venv::with_vllm()?;
    venv::install_wheel_with_vllm(&python, wheel)?;
    let mut tests = command(&python);
    tests.args(["-m", "pytest", "-s", "-p", "no:cacheprovider"]);
    tests.args(["--config-file=cascade-py/tests_vllm/pytest.ini", "cascade-py/tests_vllm"]);
    tests.env_remove("PYTHONPATH");
    // Some ten processes import vLLM: without its compiled files each compiles thousands of modules anew, 11 s of CPU.
    tests.env_remove("PYTHONDONTWRITEBYTECODE");
    run(tests.current_dir(workspace::root()))?;
    Ok("0.32, CPU".into())
}
