//! `--suite routing`: how evenly directory and reads spread over ranks, simulated by the functions that ranks really use.

mod replay;

use std::fmt::Write as _;
use std::path::PathBuf;

use cascade_core::Result;
use cascade_core::id::BlockId;
use cascade_mpi::route;
use clap::Parser;

use crate::report::{Report, Routing, Row};
use crate::trace::Workload;
use replay::{Replayed, replay};

const NOTES: &str = "\
Nothing is moved and no rank is started: directory places come from the function that ranks route by, the directory's buckets from
their own code (with as many buckets as blocks, over all ranks, as their overflow), the owner that is asked from their own choice.

balance: ids spread over ranks. By chance: 1 + sqrt(2 ln ranks / ids a rank), the bound that chance itself keeps to in most draws.
replay (--trace): request n comes to rank n modulo ranks, which reads what it lacks from an owner, or puts it where nobody has it.
one_owner: what was fetched is not kept. replicas: it is, and its rank is a further owner (the directory names the latest three), of
which the less busy one of that second is asked. Shares are of the rank with the most over the mean of all ranks.

Example:
  cascade-bench --suite routing --trace mooncake_conversation_trace.jsonl --json routing.json";

/// Simulates directory and owners at any number of ranks.
#[derive(Debug, Parser)]
#[command(name = "cascade-bench --suite routing", version, after_help = NOTES)]
pub struct Arguments {
    /// The suite.
    #[arg(long, value_parser = ["routing"])]
    pub suite: String,
    /// Numbers of ranks.
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', default_value = "4,16,64,1024,4096")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub ranks: Vec<u32>,
    /// Ids for each rank.
    #[arg(long, value_name = "N", default_value = "1e6", value_parser = crate::cli::count)]
    pub ids: u64,
    /// Requests as JSON lines, in the Mooncake format.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the suite.
///
/// # Errors
/// `NotFound` and `Format` for a trace that cannot be read, `System` when the JSON cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let workload = arguments.trace.as_deref().map(|path| Workload::load(path, 1)).transpose()?;
    let mut rows = balances(&arguments.ranks, arguments.ids);
    for ranks in &arguments.ranks {
        for (path, has_replicas) in [("one_owner", false), ("replicas", true)] {
            rows.extend(
                workload
                    .iter()
                    .map(|workload| replayed(*ranks, path, &replay(workload, *ranks, has_replicas))),
            );
        }
    }
    print!("{}", table(&rows));
    let mut notes = vec!["simulated: no rank was started".to_owned()];
    notes.extend(
        workload.map(|workload| format!("replayed: {}, {} requests", workload.name, workload.requests.len())),
    );
    match &arguments.json {
        Some(path) => Report::here(rows, notes).save(path),
        None => Ok(()),
    }
}

/// Each number of ranks by a thread of its own.
fn balances(ranks: &[u32], each: u64) -> Vec<Row> {
    let balance = |ranks: u32| {
        let ids = (0..each * u64::from(ranks)).map(|number| BlockId::from_words([number, 0, 0, 0]));
        let balance = route::balance(ranks, ids);
        let mut row = Row::new("mpi", "balance", "simulated", 0);
        row.ranks = ranks as usize;
        row.routing = Some(Routing {
            ids: each * u64::from(ranks),
            directory: balance.max_over_mean,
            by_chance: Some(balance.by_chance),
            ..Routing::default()
        });
        row
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = ranks.iter().map(|ranks| scope.spawn(move || balance(*ranks))).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn replayed(ranks: u32, path: &str, replayed: &Replayed) -> Row {
    let mut row = Row::new("mpi", "replay_routing", path, 0);
    row.ranks = ranks as usize;
    row.routing = Some(Routing {
        ids: replayed.blocks,
        directory: max_over_mean(&replayed.asked),
        by_chance: None,
        owners: Some(max_over_mean(&replayed.served)),
        fetched: Some(replayed.served.iter().sum()),
        most: replayed.served.iter().max().copied(),
    });
    row
}

/// The most over the mean; 1 where there is nothing.
fn max_over_mean(loads: &[u64]) -> f64 {
    let sum: u64 = loads.iter().sum();
    let most = loads.iter().max().copied().unwrap_or(0);
    if sum == 0 { 1.0 } else { most as f64 * loads.len() as f64 / sum as f64 }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:15} {:10} {:>6} {:>12} {:>18} {:>10} {:>16} {:>10} {:>9}\n",
        "op", "path", "ranks", "ids", "directory max/mean", "by chance", "owners max/mean", "fetched", "most"
    );
    let dash = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"));
    let count = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for (row, routing) in rows.iter().filter_map(|row| Some((row, row.routing.as_ref()?))) {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:15} {:10} {:>6} {:>12} {:>18.4} {:>10} {:>16} {:>10} {:>9}",
            row.op,
            row.path,
            row.ranks,
            routing.ids,
            routing.directory,
            dash(routing.by_chance),
            dash(routing.owners),
            count(routing.fetched),
            count(routing.most)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_held_against_their_mean() {
        assert_eq!(max_over_mean(&[3, 1, 0, 0]), 3.0);
        assert_eq!([max_over_mean(&[]), max_over_mean(&[0, 0]), max_over_mean(&[2, 2])], [1.0; 3]);
    }

    #[test]
    fn a_million_ids_are_within_the_goal() {
        let rows = balances(&[4, 16], 1_000_000);
        for row in rows {
            let routing = row.routing.unwrap();
            assert!(
                routing.directory <= 1.05 && routing.by_chance.is_some_and(|bound| bound < 1.05),
                "{routing:?}"
            );
        }
    }

    #[test]
    fn the_suite_writes_a_report() {
        let folder = tempfile::tempdir().unwrap();
        let (trace, json) = (folder.path().join("t.jsonl"), folder.path().join("r.json"));
        std::fs::write(
            &trace,
            "{\"timestamp\": 0, \"hash_ids\": [0, 1]}\n{\"timestamp\": 9, \"hash_ids\": [0, 2]}\n",
        )
        .unwrap();
        let words = ["x", "--suite", "routing", "--ranks", "2", "--ids", "100", "--trace"];
        let words = words.iter().map(std::ffi::OsStr::new);
        let rest = [trace.as_os_str(), "--json".as_ref(), json.as_os_str()];
        run(&Arguments::parse_from(words.chain(rest))).unwrap();
        let report = Report::load(&json).unwrap();
        assert_eq!(report.results.len(), 3);
        assert_eq!(
            report.results[1].routing.as_ref().unwrap().fetched,
            Some(1),
            "block 0, by the second rank"
        );
    }
}
