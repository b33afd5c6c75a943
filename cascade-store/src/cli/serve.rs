//! `cascade serve`: the agent of a node. It offers the node's arena to the other nodes of its MPI job, and brings their blocks into it
//! for the engines of this node, which know nothing of MPI.

use clap::Args;

use super::out::{Done, Out};
use super::place::Place;

const HELP: &str = "\
Examples:
  srun -K0 --mpi=pmi2 --ntasks-per-node=1 cascade serve
  mpiexec -n 2 cascade serve --each demo    two nodes on one machine, demo-0 and demo-1

One rank a node. Settings are those of the store: the arena is made if it is not there, and it outlives
the agent. Engines of the node open it with remote = \"agent\" (CASCADE_REMOTE=agent, cascade_kv.connect()).
An agent that ends, however it ends, costs them misses; one that is started again offers what the arena holds.
Needs a program that was built with --features mpi: `cargo xtask mpi` says how.
Ends at SIGINT or SIGTERM: it serves until every rank was told to end, or --patience is over.";

/// Options of `cascade serve`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// Every rank is a node of its own, called NAME-0, NAME-1 and so on: for trying it out on one machine.
    #[arg(long, value_name = "NAME")]
    each: Option<String>,
    /// How other ranks are read from: one-sided out of windows, or by messages where MPI has no windows that work.
    #[arg(long, value_name = "PATH", default_value = "rma", value_parser = ["rma", "message"])]
    path: String,
    /// Buckets of the directory that each rank keeps, of four blocks and 512 bytes.
    #[arg(long, value_name = "NUMBER", default_value_t = 65_536)]
    buckets: usize,
    /// Seconds between two lines of statistics; 0 for none.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
    every: u64,
    /// Seconds that an ending agent waits for the others.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
    /// One JSON document on each line.
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "mpi"))]
pub(super) fn run(_options: &Options, _out: &mut Out) -> Done {
    let what = "this program was built without MPI, so it cannot serve other nodes: build it by `cargo build --release -p cascade-store \
                --features mpi` in an environment as `cargo xtask mpi` prints it";
    Err(cascade_core::Error::new(cascade_core::ErrorKind::Unsupported, what).into())
}

#[cfg(feature = "mpi")]
pub(super) use with_mpi::run;

#[cfg(feature = "mpi")]
mod with_mpi {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use cascade_core::Result;
    use cascade_mpi::{FabricConfig, launch};
    use serde::Serialize;

    use super::super::interrupt::Interrupts;
    use super::super::out::Failure;
    use super::{Done, Options, Out};
    use crate::chain::Level;
    use crate::config::StoreConfig;
    use crate::remote::{Agent, Job, JobConfig};

    /// One line: what there is at the start, and what was done since.
    #[derive(Debug, Serialize)]
    struct Line<'a> {
        schema: &'static str,
        event: &'a str,
        rank: u32,
        ranks: u32,
        path: &'a str,
        library: &'a str,
        socket: String,
        counters: BTreeMap<&'static str, u64>,
    }

    pub(in crate::cli) fn run(options: &Options, out: &mut Out) -> Done {
        let config = config(options)?;
        let windows = options.path == "rma";
        let fabric = FabricConfig { buckets: options.buckets.max(1), windows, ..FabricConfig::default() };
        let job = Job::start(&config, JobConfig { fabric, ..JobConfig::default() })?;
        let agent = Agent::start(job.store().arena().path(), Arc::clone(job.tier()) as Arc<_>)?;
        let interrupts = Interrupts::watch();
        say(out, options, "serving", &job, &agent)?;
        let every = if options.every == 0 { u64::from(u32::MAX) } else { options.every };
        while interrupts.sleep(Duration::from_secs(every)) {
            say(out, options, "statistics", &job, &agent)?;
        }
        say(out, options, "ending", &job, &agent)?;
        drop(agent);
        if job.stop(Duration::from_secs(options.patience)) {
            return Ok(0);
        }
        eprintln!("cascade serve: not every rank was told to end, so MPI was not ended in good order");
        // The library may hang in its own end.
        out.flush()?;
        std::process::exit(1);
    }

    fn config(options: &Options) -> Result<StoreConfig> {
        let Some(name) = &options.each else { return options.place.config() };
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let rank = launch::detect(&environment.collect())?.rank;
        options.place.config_of(&format!("{name}-{rank}"))
    }

    fn say(
        out: &mut Out,
        options: &Options,
        event: &str,
        job: &Job,
        agent: &Agent,
    ) -> std::result::Result<(), Failure> {
        let (fabric, path) = (job.fabric(), job.fabric().path().name());
        let socket = agent.socket().display().to_string();
        let counters = counters(job, agent);
        let line = Line {
            schema: "cascade.serve/1",
            event,
            rank: fabric.rank(),
            ranks: fabric.ranks(),
            path,
            library: fabric.library(),
            socket,
            counters,
        };
        if options.json {
            out.json(&line)?;
        } else {
            let shown = line.counters.iter().filter(|(_, value)| **value > 0);
            let shown: Vec<String> = shown.map(|(name, value)| format!("{name} {value}")).collect();
            let Line { rank, ranks, library, socket, .. } = &line;
            out.line(&format!(
                "{event}: rank {rank} of {ranks} by {path}, {library}, at {socket}: {}",
                shown.join(", ")
            ))?;
        }
        out.flush()
    }

    fn counters(job: &Job, agent: &Agent) -> BTreeMap<&'static str, u64> {
        let (clients, fabric, arena) =
            (agent.stats(), job.fabric().stats(), job.store().stats().tier(Level::Arena));
        let own = [
            ("blocks", arena.blocks),
            ("used_bytes", arena.used_bytes),
            ("quarantined_bytes", arena.quarantined_bytes),
            ("connections", clients.connections),
            ("requests", clients.requests),
            ("ids", clients.ids),
            ("brought", clients.brought),
            ("turned_away", clients.turned_away),
            ("reads", fabric.reads),
            ("read_bytes", fabric.read_bytes),
            ("late_reads", fabric.late_reads),
            ("failed_reads", fabric.failed_reads),
            ("abandoned", fabric.abandoned),
            ("messages", fabric.messages),
            ("bad_messages", fabric.bad_messages),
            ("unsent", fabric.unsent),
            ("ranks_out", fabric.ranks_out),
        ];
        own.into_iter().chain(job.tier().mpi_stats().fields()).collect()
    }
}
