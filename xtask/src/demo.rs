//! `cargo xtask demo`: sets up the wheel, the engine and the model, then runs `python -m cascade_kv.demo`, which owns the
//! story: prefill, store, SIGKILL, and a new process that goes on from the store. With `--ranks`: `cascade_kv.demo.ranks`, where the
//! model on one node answers from the memory of another.

use anyhow::{Result, ensure};

use crate::mpi::{Kind, Mpi};
use crate::process::run;
use crate::venv::{DEMO, Python, WHEEL};
use crate::workspace::target;
use crate::{model, wheel};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// So many nodes of this machine, each with an arena, an agent and a process of the model; at least 2.
    #[arg(long)]
    ranks: Option<u32>,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let python = Python::with(&[&WHEEL, &DEMO])?;
    python.install_wheel(&wheel::build(&python)?)?;
    let model = model::fetch(&python)?;
    let module = if options.ranks.is_some() { "cascade_kv.demo.ranks" } else { "cascade_kv.demo" };
    let mut demo = python.command(["-m", module, "--model-dir"]);
    demo.arg(model).arg("--out").arg(target().join("demo"));
    if let Some(ranks) = options.ranks {
        ensure!(ranks >= 2, "--ranks {ranks}: one node stores and another answers, so two at least");
        let mpi = Mpi::get(Kind::Mpich)?;
        mpi.forget_others()?;
        run(&mut mpi.cargo(&["build", "-p", "cascade-store", "--features", "mpi", "--bin", "cascade"]))?;
        demo.arg("--ranks").arg(ranks.to_string()).arg("--").args(mpi.words(ranks));
        demo.arg(mpi.programs().join("cascade"));
    }
    // Everything is on this disk by now; the engine must not look for a newer model.
    run(demo.env("HF_HUB_OFFLINE", "1"))
}
