//! `cargo xtask slurm`: batch scripts for a program and the agents beside it, and their submission.

mod profile;
mod script;
mod submit;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

pub(crate) use profile::Profile;
pub(crate) use script::{Job, text};

/// Options of `cargo xtask slurm`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Nodes of the job.
    #[arg(long)]
    nodes: u32,
    /// Tasks of the command on each node.
    #[arg(long)]
    ntasks_per_node: u32,
    /// A built-in site (generic, perlmutter), or a file like xtask/slurm/generic.toml.
    #[arg(long, default_value = "generic")]
    site: String,
    /// Cores for each task of the command.
    #[arg(long)]
    cpus_per_task: Option<u32>,
    /// GPUs of each node.
    #[arg(long)]
    gpus_per_node: Option<u32>,
    /// Who pays.
    #[arg(long)]
    account: Option<String>,
    /// The queue, which SLURM calls quality of service.
    #[arg(long)]
    queue: Option<String>,
    /// The partition.
    #[arg(long)]
    partition: Option<String>,
    /// Features of nodes, such as gpu.
    #[arg(long)]
    constraint: Option<String>,
    /// Limit of time, as SLURM writes it.
    #[arg(long)]
    time: Option<String>,
    /// A module to load, beside those of the site; may be given several times.
    #[arg(long = "module")]
    modules: Vec<String>,
    /// The directory of files below the arenas; $NAME is put in by the job.
    #[arg(long)]
    scratch: Option<String>,
    /// Stripes of files, where that directory is on Lustre; -1 for all.
    #[arg(long, allow_hyphen_values = true)]
    stripe_count: Option<i32>,
    /// Bytes of a stripe, as `lfs` writes it.
    #[arg(long)]
    stripe_size: Option<String>,
    /// The directory of the arenas on each node; $NAME is put in by the job.
    #[arg(long)]
    shm_path: Option<String>,
    /// The program `cascade`, built with --features mpi.
    #[arg(long)]
    agent: Option<String>,
    /// No agents: the command has no need of other nodes, or is an MPI program that embeds the store.
    #[arg(long)]
    no_agents: bool,
    /// Leave the arenas in the nodes' memory for the next job there.
    #[arg(long)]
    keep_arenas: bool,
    /// Seconds until all agents must serve.
    #[arg(long, default_value_t = 300)]
    agents_within: u32,
    /// Name of the job.
    #[arg(long, default_value = "cascade")]
    job_name: String,
    /// Which jobs must have ended before, as SLURM writes it: afterok:123.
    #[arg(long)]
    dependency: Option<String>,
    /// Indices of an array of such jobs, as SLURM writes it: 0-7%2. The command has SLURM_ARRAY_TASK_ID.
    #[arg(long)]
    array: Option<String>,
    /// Where results go, a folder for each job.
    #[arg(long, default_value = "$SLURM_SUBMIT_DIR/cascade-results")]
    results: String,
    /// The script's file; default: the job's name with .sh.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Hand the script to sbatch.
    #[arg(long)]
    submit: bool,
    /// With --submit: wait for the job, say how it ended, and fail if it did.
    #[arg(long, requires = "submit")]
    wait: bool,
    /// What runs as each task.
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// Writes the script, and submits it where that is wanted.
pub(crate) fn command_line(options: &Options) -> Result<()> {
    let job = job(options)?;
    let path = options.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.sh", job.name)));
    let script = text(&job)?;
    std::fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    if options.submit {
        return submit::submit(&job, &path, options.wait);
    }
    println!("submit it by: sbatch {}", path.display());
    Ok(())
}

fn job(options: &Options) -> Result<Job> {
    ensure!(
        options.nodes > 0 && options.ntasks_per_node > 0,
        "a job has at least one node, and one task on it"
    );
    let site = options.site.rsplit('/').next().unwrap_or_default();
    Ok(Job {
        site: site.trim_end_matches(".toml").to_owned(),
        profile: profile(options)?,
        name: options.job_name.clone(),
        nodes: options.nodes,
        tasks_per_node: options.ntasks_per_node,
        cpus_per_task: options.cpus_per_task,
        dependency: options.dependency.clone(),
        array: options.array.clone(),
        results: options.results.clone(),
        agents: !options.no_agents,
        keep_arenas: options.keep_arenas,
        patience_s: options.agents_within,
        command: options.command.clone(),
    })
}

/// The site, with what the command line says in its place.
fn profile(options: &Options) -> Result<Profile> {
    let mut profile = Profile::read(&options.site)?;
    let texts = [
        (&mut profile.account, &options.account),
        (&mut profile.queue, &options.queue),
        (&mut profile.partition, &options.partition),
        (&mut profile.constraint, &options.constraint),
        (&mut profile.scratch, &options.scratch),
        (&mut profile.stripe_size, &options.stripe_size),
    ];
    for (of_site, given) in texts {
        *of_site = given.clone().or(of_site.take());
    }
    let always = [
        (&mut profile.time, &options.time),
        (&mut profile.shm_path, &options.shm_path),
        (&mut profile.agent, &options.agent),
    ];
    for (of_site, given) in always {
        if let Some(given) = given {
            of_site.clone_from(given);
        }
    }
    profile.gpus_per_node = options.gpus_per_node.or(profile.gpus_per_node);
    profile.stripe_count = options.stripe_count.or(profile.stripe_count);
    profile.modules.extend(options.modules.iter().cloned());
    let stripes = profile.stripe_count.is_some() || profile.stripe_size.is_some();
    ensure!(!stripes || profile.scratch.is_some(), "stripes are those of files: give --scratch too");
    ensure!(
        profile.stripe_count.is_none_or(|count| count >= -1),
        "--stripe-count is a number of stripes, or -1 for all"
    );
    ensure!(
        !profile.needs_account || profile.account.is_some(),
        "the site {} needs an account: give --account",
        options.site
    );
    Ok(profile)
}
