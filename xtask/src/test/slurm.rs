//! A real SLURM on this machine: four virtual nodes, their agents, and the scripts of `cargo xtask slurm` through sbatch.

mod cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use self::cluster::{Cluster, NODES, PACKAGES};
use crate::mpi::{Kind, Mpi};
use crate::process::{self, command, output, run};
use crate::steps::Steps;
use crate::workspace;

const NAME: &str = "SLURM, four virtual nodes";
const CURE: &str = "`cargo xtask test --lane slurm` alone shows what each job says";

/// Left out, with the reason, where SLURM is not there and cannot be had.
pub(super) fn add_step(steps: &mut Steps, left_out: Option<&str>) {
    if let Some(why) = left_out {
        return steps.leave_out(NAME, why);
    }
    match have_packages() {
        Ok(()) => {
            steps.run(NAME, CURE, test);
        }
        Err(error) => steps.leave_out(NAME, &format!("not run: {error:#}")),
    }
}

/// SLURM's daemons and shellcheck, from Debian where this is root.
fn have_packages() -> Result<()> {
    let is_there = || {
        ["slurmctld", "slurmd", "munged", "sbatch", "shellcheck"]
            .iter()
            .all(|program| cluster::find(program).is_some())
    };
    if is_there() {
        return cluster::check_root();
    }
    cluster::check_root()?;
    println!("Installing {} by apt-get, once", PACKAGES.join(" "));
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    let installed =
        run(command("apt-get").args(install).args(PACKAGES).env("DEBIAN_FRONTEND", "noninteractive"));
    installed.or_else(|_| {
        run(command("apt-get").args(["update", "-qq"]))?;
        run(command("apt-get").args(install).args(PACKAGES).env("DEBIAN_FRONTEND", "noninteractive"))
    })?;
    ensure!(is_there(), "{} are installed and SLURM is still not there", PACKAGES.join(" "));
    Ok(())
}

fn test() -> Result<String> {
    let golden = workspace::root().join("xtask/slurm/golden");
    let scripts =
        std::fs::read_dir(&golden).context("no golden scripts")?.flatten().map(|entry| entry.path());
    run(command("shellcheck").args(scripts))?;
    let (agent, engine) = build()?;
    let cluster = Cluster::start()?;
    let job = |name: &str| Job { cluster: &cluster, name: name.into(), agent: agent.clone() };
    good(&job("good"), &engine)?;
    failing(&job("failing"))?;
    without_agents(&job("missing"))?;
    lost(&job("lost"))?;
    Ok(format!(
        "{NODES} nodes: a good job, a failing one, one whose agents do not start, one that loses an agent"
    ))
}

/// The agent, and the engine of the test.
fn build() -> Result<(PathBuf, PathBuf)> {
    let mpi = Mpi::get(Kind::Mpich)?;
    mpi.forget_others()?;
    let tests = ["test", "--no-run", "-p", "cascade-store", "--features", "mpi", "--test", "nodes"];
    let messages = output(mpi.cargo(&tests).args(["--message-format", "json"]))?;
    let parsed: Vec<serde_json::Value> =
        messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let engine =
        parsed.iter().find(|said| said["target"]["name"] == "nodes" && said["executable"].is_string());
    let engine =
        engine.and_then(|said| said["executable"].as_str()).context("cargo built no test `nodes`")?;
    run(&mut mpi.cargo(&[
        "build",
        "--quiet",
        "-p",
        "cascade-store",
        "--features",
        "mpi",
        "--bin",
        "cascade",
    ]))?;
    Ok((mpi.programs().join("cascade"), engine.into()))
}

/// One script of `cargo xtask slurm`, submitted and waited for.
struct Job<'a> {
    cluster: &'a Cluster,
    name: String,
    agent: PathBuf,
}

impl Job<'_> {
    /// Whether it ended well, and what the command said.
    fn run(&self, options: &[&str], work: &[&str]) -> Result<(bool, String)> {
        let me = std::env::current_exe().context("where is this program?")?;
        let mut xtask = Command::new(me);
        xtask.current_dir(self.cluster.folder()).env("SLURM_CONF", self.cluster.configuration());
        xtask.args([
            "slurm",
            "--nodes",
            NODES,
            "--ntasks-per-node",
            "1",
            "--agents-within",
            "60",
            "--job-name",
        ]);
        xtask.arg(&self.name).arg("--agent").arg(&self.agent).arg("--site").arg(self.cluster.site()?);
        xtask.args(["--submit", "--wait"]).args(options).arg("--").args(work);
        println!("  $ {}", process::line(&xtask));
        let said = xtask.output().context("cannot start xtask")?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        println!("{text}");
        Ok((said.status.success(), text))
    }

    /// The folder of its results: that of the newest job.
    fn results(&self) -> Result<PathBuf> {
        let folders =
            std::fs::read_dir(self.cluster.folder().join("cascade-results")).context("no results")?;
        let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        let newest = folders.flatten().map(|entry| entry.path()).max_by_key(number);
        newest.context("no job left results")
    }

    fn summary(&self) -> Result<serde_json::Value> {
        let text = std::fs::read_to_string(self.results()?.join("job.json")).context("no job.json")?;
        serde_json::from_str(&text).context("job.json is no JSON")
    }
}

fn good(job: &Job<'_>, engine: &Path) -> Result<()> {
    let meeting = job.cluster.folder().join("meeting");
    std::fs::create_dir_all(&meeting)?;
    let (is_good, text) = job.run(&[], &[&engine.to_string_lossy(), &meeting.to_string_lossy()])?;
    ensure!(is_good, "the job failed");
    ensure!(text.contains("ended well"), "its end was not reported");
    let summary = job.summary()?;
    ensure!(
        summary["status"] == 0 && summary["agents"] == "serving" && summary["agents_lost"] == 0,
        "{summary}"
    );
    let folder = job.results()?;
    let mut nodes: Vec<String> = Vec::new();
    for rank in 0..4 {
        let said = std::fs::read_to_string(folder.join(format!("rank-{rank}.out")))
            .context("a rank said nothing")?;
        let line: serde_json::Value =
            serde_json::from_str(&said).with_context(|| format!("rank {rank}: {said}"))?;
        ensure!(line["remote"] == 12, "{line}");
        nodes.push(line["node"].to_string());
    }
    nodes.sort();
    nodes.dedup();
    ensure!(nodes.len() == 4, "not four nodes: {nodes:?}");
    job.cluster.is_clean()
}

fn failing(job: &Job<'_>) -> Result<()> {
    let (is_good, text) =
        job.run(&[], &["bash", "-c", "echo reason-$SLURM_PROCID >&2; exit $((SLURM_PROCID * 3))"])?;
    ensure!(
        !is_good && text.contains("FAILED with status 9") && text.contains("reason-1"),
        "its failure was not reported"
    );
    let summary = job.summary()?;
    ensure!(summary["status"] == 9 && summary["agents"] == "serving", "{summary}");
    job.cluster.is_clean()
}

/// An agent that was built without MPI, or is not there: said at once, and the command is not begun.
fn without_agents(job: &Job<'_>) -> Result<()> {
    let job = Job { cluster: job.cluster, name: job.name.clone(), agent: "/bin/false".into() };
    let (is_good, text) = job.run(&["--keep-arenas"], &["echo", "begun"])?;
    ensure!(!is_good && text.contains("agents ended before all of them served"), "it was not said");
    ensure!(
        job.summary()?["agents"] == "never" && !job.results()?.join("rank-0.out").exists(),
        "the command was begun"
    );
    job.cluster.is_clean()
}

/// One agent is killed under the job: the others go on, and are ended in good order.
fn lost(job: &Job<'_>) -> Result<()> {
    let agents = format!("{} serve", job.agent.display());
    let one = format!(
        "[ $SLURM_PROCID = 2 ] || exit 0; kill -KILL $(pgrep -f -x '{agents} --json' | head -n 1); sleep 1"
    );
    let (is_good, _) = job.run(&[], &["bash", "-c", &one])?;
    ensure!(is_good, "a lost agent ended the job");
    let summary = job.summary()?;
    ensure!(summary["agents"] == "serving" && summary["agents_lost"] == 1, "{summary}");
    job.cluster.is_clean()
}
