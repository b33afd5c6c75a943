//! `cargo xtask demo`: sets up the wheel, the engine and the model, then runs `python -m cascade_kv.demo`, which owns the
//! story: prefill, store, SIGKILL, and a new process that goes on from the store.

use anyhow::Result;

use crate::process::run;
use crate::venv::{DEMO, Python, WHEEL};
use crate::workspace::target;
use crate::{model, wheel};

pub(crate) fn command() -> Result<()> {
    let python = Python::with(&[&WHEEL, &DEMO])?;
    python.install_wheel(&wheel::build(&python)?)?;
    let model = model::fetch(&python)?;
    let mut demo = python.command(["-m", "cascade_kv.demo", "--model-dir"]);
    demo.arg(model).arg("--out").arg(target().join("demo"));
    // Everything is on this disk by now; the engine must not look for a newer model.
    run(demo.env("HF_HUB_OFFLINE", "1"))
}
