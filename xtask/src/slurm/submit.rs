//! Hands a script to sbatch, and says what became of the job.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Job;
use crate::process::line;

pub(super) fn submit(job: &Job, script: &Path, wait: bool) -> Result<()> {
    // Where the user is: results and the log are put beside, not into the repository.
    let mut sbatch = Command::new("sbatch");
    sbatch.arg("--parsable");
    if wait {
        sbatch.arg("--wait");
    }
    sbatch.arg(script).stderr(std::process::Stdio::inherit());
    println!("  $ {}", line(&sbatch));
    let said = sbatch.output().context("cannot start sbatch: is this a machine of the cluster?")?;
    let said_text = String::from_utf8_lossy(&said.stdout);
    let id = said_text.trim().split(';').next().unwrap_or_default().to_owned();
    if id.is_empty() {
        bail!("sbatch did not take {} ({}): its reason is above", script.display(), said.status);
    }
    if !wait {
        println!(
            "job {id} is submitted; `squeue --job {id}` shows it, results come to {}",
            results(job, &id).display()
        );
        return Ok(());
    }
    report(job, &id, said.status.success())
}

/// The folder of a job's results, as far as it is known before the job has put in what is its own.
fn results(job: &Job, id: &str) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    PathBuf::from(job.results.replace("$SLURM_SUBMIT_DIR", &here.to_string_lossy())).join(id)
}

fn report(job: &Job, id: &str, is_good: bool) -> Result<()> {
    let folder = results(job, id);
    let documents = folder.join("job.json");
    let summary = std::fs::read_to_string(&documents).unwrap_or_default();
    print!("{summary}");
    if is_good {
        println!("job {id} ended well; results are in {}", folder.display());
        return Ok(());
    }
    let log = if job.array.is_some() {
        format!("{}-{id}_*.log", job.name)
    } else {
        format!("{}-{id}.log", job.name)
    };
    if let Ok(text) = std::fs::read_to_string(&log) {
        print!("{text}");
    }
    bail!("job {id} failed; its log is {log}, what its tasks said in {}", folder.display())
}
