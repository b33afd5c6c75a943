//! The text of a batch script. A pure function of what was asked, so that tests can compare it.

use std::fmt::Write as _;

use anyhow::Result;

use super::profile::Profile;
use super::words::{expanded, name, plain, quoted};

const FRAME: &str = include_str!("frame.sh");
const AGENTS: &str = include_str!("agents.sh");

/// A job: a site, and what this one wants of it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) site: String,
    pub(crate) profile: Profile,
    pub(crate) name: String,
    pub(crate) nodes: u32,
    pub(crate) tasks_per_node: u32,
    pub(crate) cpus_per_task: Option<u32>,
    pub(crate) dependency: Option<String>,
    pub(crate) array: Option<String>,
    /// Folder of the results of all jobs; each has one of its own in it.
    pub(crate) results: String,
    pub(crate) agents: bool,
    pub(crate) keep_arenas: bool,
    /// Until all agents serve.
    pub(crate) patience_s: u32,
    pub(crate) command: Vec<String>,
}

/// The script.
pub(crate) fn text(job: &Job) -> Result<String> {
    let mut script = directives(job)?;
    script.push_str(&settings(job)?);
    script.push_str(FRAME);
    script.push_str(&removal(job));
    script.push_str(&preparation(job)?);
    if job.agents {
        script.push_str(AGENTS);
        // After the agents, which are asked and do not ask.
        script.push_str("export CASCADE_REMOTE=agent\n");
    }
    script.push_str(&command(job));
    Ok(script)
}

fn directives(job: &Job) -> Result<String> {
    let profile = &job.profile;
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let log = if job.array.is_some() { "%x-%A_%a.log" } else { "%x-%j.log" };
    let all = [
        ("job-name", Some(job.name.clone())),
        ("nodes", Some(job.nodes.to_string())),
        ("ntasks-per-node", Some(job.tasks_per_node.to_string())),
        ("cpus-per-task", number(job.cpus_per_task)),
        ("gpus-per-node", number(profile.gpus_per_node)),
        ("account", profile.account.clone()),
        ("qos", profile.queue.clone()),
        ("partition", profile.partition.clone()),
        ("constraint", profile.constraint.clone()),
        ("time", Some(profile.time.clone())),
        ("dependency", job.dependency.clone()),
        ("array", job.array.clone()),
        ("output", Some(log.into())),
        // A minute before the end of its time, to this script alone: time to end agents in good order.
        ("signal", Some("B:TERM@60".into())),
    ];
    let mut text = String::from("#!/bin/bash\n");
    for (name, value) in all {
        if let Some(value) = value {
            writeln!(text, "#SBATCH --{name}={}", plain(name, &value)?)?;
        }
    }
    for directive in &profile.directives {
        writeln!(text, "#SBATCH {}", plain("directives", directive)?)?;
    }
    writeln!(text, "# Written by `cargo xtask slurm` for the site {}.", plain("site", &job.site)?)?;
    // Functions that only traps call are not dead.
    text.push_str("# shellcheck disable=SC2317\n");
    Ok(text)
}

fn settings(job: &Job) -> Result<String> {
    let own =
        if job.array.is_some() { "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" } else { "$SLURM_JOB_ID" };
    let profile = &job.profile;
    let mut text = format!("results={}\n", expanded("results", &format!("{}/{own}", job.results))?);
    if job.agents || !job.keep_arenas {
        writeln!(text, "agent={}", expanded("agent", &profile.agent)?)?;
    }
    writeln!(text, "launch=(--mpi={})", plain("mpi", &profile.mpi)?)?;
    if job.agents {
        writeln!(text, "agents_by={}", job.patience_s)?;
    }
    text.push('\n');
    Ok(text)
}

/// Shared memory is everybody's: a job gives back what it took, unless the next one is to find it.
fn removal(job: &Job) -> String {
    if job.keep_arenas {
        return "remove_arenas() { :; }\n".into();
    }
    "remove_arenas() {\n  \
     [ -d \"$CASCADE_SHM_PATH\" ] || [ \"$SLURM_JOB_NUM_NODES\" -gt 1 ] || return 0\n  \
     srun --overlap -K0 --mpi=none --ntasks-per-node=1 --ntasks=\"$SLURM_JOB_NUM_NODES\" --job-name=cascade-gc \\\n    \
     \"$agent\" gc --older-than 0s --yes >\"$results/gc.txt\" 2>&1 || say \"arenas may be left: see $results/gc.txt\"\n}\n"
        .into()
}

fn preparation(job: &Job) -> Result<String> {
    let profile = &job.profile;
    let mut text = String::new();
    if !profile.modules.is_empty() {
        let names: Vec<String> = profile.modules.iter().map(|module| quoted(module)).collect();
        let names = names.join(" ");
        write!(
            text,
            "\nif ! module load {names}; then\n  say \"a module could not be loaded\"\n  exit 1\nfi\n"
        )?;
    }
    writeln!(text, "\nexport CASCADE_SHM_PATH={}", expanded("shm_path", &profile.shm_path)?)?;
    for (variable, value) in &profile.environment {
        writeln!(text, "export {}={}", name(variable)?, expanded(variable, value)?)?;
    }
    if let Some(scratch) = &profile.scratch {
        writeln!(text, "export CASCADE_PFS_PATH={}", expanded("scratch", scratch)?)?;
        text.push_str("if ! mkdir -p \"$CASCADE_PFS_PATH\"; then\n  say \"cannot make $CASCADE_PFS_PATH\"\n  exit 1\nfi\n");
        text.push_str(&stripes(profile)?);
    }
    Ok(text)
}

/// On the directory, before anything is in it: files take it from there.
fn stripes(profile: &Profile) -> Result<String> {
    let mut options = String::new();
    if let Some(count) = profile.stripe_count {
        write!(options, " -c {count}")?;
    }
    if let Some(size) = &profile.stripe_size {
        write!(options, " -S {}", plain("stripe_size", size)?)?;
    }
    if options.is_empty() {
        return Ok(options);
    }
    Ok(format!(
        "if ! command -v lfs >/dev/null; then\n  say \"no Lustre here: stripes are not set\"\n\
         elif ! lfs setstripe{options} \"$CASCADE_PFS_PATH\"; then\n  say \"stripes of $CASCADE_PFS_PATH could not be set\"\nfi\n"
    ))
}

fn command(job: &Job) -> String {
    let words: Vec<String> = job.command.iter().map(|word| quoted(word)).collect();
    format!(
        "\nsrun --overlap -K0 \"${{launch[@]}}\" --ntasks-per-node={} --ntasks=$((SLURM_JOB_NUM_NODES * {})) \\\n  \
         --job-name=cascade-command --output=\"$results/rank-%t.out\" --error=\"$results/rank-%t.err\" \\\n  {} &\n\
         work=$!\nwait \"$work\"\nexit $?\n",
        job.tasks_per_node,
        job.tasks_per_node,
        words.join(" ")
    )
}
