//! The lanes, by name.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::child::{self, Said};
use super::ranks;
use crate::process::{self, cargo};
use crate::workspace::Metadata;
use crate::{fuzz, loom, negative};

/// Damaged arenas in one run.
const DAMAGED: u64 = 2000;

/// What a lane finds out.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) n: u64,
    pub(super) unit: String,
    pub(super) failures: u64,
    pub(super) measured: BTreeMap<String, f64>,
}

/// A lane: runs for about the time given.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) run: fn(Duration, &mut Found) -> Result<()>,
}

pub(super) const LANES: &[Lane] = &[
    Lane { name: "kill", about: "SIGKILL at every named point and at random times", run: kill },
    Lane { name: "deaths", about: "owners that die with all that they can hold", run: deaths },
    Lane { name: "first-hit", about: "attach to a full arena after everybody was killed", run: first_hit },
    Lane { name: "model", about: "random sequences of steps against the model", run: model },
    Lane { name: "damage", about: "arenas with damage in each of their areas", run: damage },
    Lane {
        name: "kill-files",
        about: "SIGKILL of processes that write to the tier of files",
        run: kill_files,
    },
    Lane { name: "model-files", about: "the tier of files against its model", run: model_files },
    Lane { name: "model-store", about: "the store over arena and files against the model", run: model_store },
    Lane {
        name: "sim",
        about: "the store in a simulation: faults, kills, all orders of events",
        run: simulated,
    },
    Lane {
        name: "ranks",
        about: "four ranks over MPI under eviction, one of them stopped again and again, then one killed",
        run: ranks::run,
    },
    Lane { name: "fuzz", about: "every fuzz target; the time is shared among them", run: fuzz_all },
    Lane {
        name: "loom",
        about: "every schedule of the protocols with up to 3 preemptions, 100,000 of whole operations",
        run: models,
    },
    Lane { name: "negative", about: "planted bugs, each of which its lane must catch", run: controls },
];

/// Names and what they are.
pub(super) fn table() -> String {
    let lines: Vec<_> = LANES.iter().map(|lane| format!("  {:12} {}", lane.name, lane.about)).collect();
    format!("Lanes:\n{}", lines.join("\n"))
}

fn kill(time: Duration, found: &mut Found) -> Result<()> {
    timed("kill", "whoever_is_killed", time, found)
}

fn deaths(time: Duration, found: &mut Found) -> Result<()> {
    timed("deaths", "every_dead_owner", time, found)
}

fn first_hit(time: Duration, found: &mut Found) -> Result<()> {
    timed("kill_first_hit", "the_first_hit", time, found)
}

fn arena_test(test: &str) -> Command {
    cargo(&["test", "--package", "cascade-shm", "--features", "kill-points", "--test", test])
}

/// A lane that keeps the time itself and says how it went.
fn timed(test: &str, name: &str, time: Duration, found: &mut Found) -> Result<()> {
    // Building it is no part of the time.
    process::run(arena_test(test).arg("--no-run"))?;
    let mut command = arena_test(test);
    command.args(["--", "--nocapture", "--test-threads=1", name]);
    command.env("CASCADE_SECONDS", time.as_secs().to_string());
    command.env("CASCADE_SEED", seed().to_string());
    let mut said = Said::default();
    let verdict = child::watch(&mut command, &mut said);
    found.n = said.progress;
    found.unit = format!("steps of {test}");
    verdict?;
    let result = said.result.with_context(|| format!("{test} ended without a result"))?;
    println!("  {} is done", result.lane);
    (found.n, found.unit) = (result.n, result.unit);
    (found.failures, found.measured) = (result.failures, result.measured);
    Ok(())
}

/// A lane of tests that do a number of things, run again and again with other seeds.
struct Repeated {
    package: &'static str,
    /// Name of the test binary; none: the tests within the library.
    test: Option<&'static str>,
    /// The tests that count: a part of their names.
    filter: &'static str,
    /// The variable that says how many things each of them does, and how many they do in one run.
    variable: &'static str,
    count: u64,
    unit: &'static str,
}

impl Repeated {
    fn run(&self, time: Duration, found: &mut Found) -> Result<()> {
        let test = || {
            let mut test = cargo(&["test", "--package", self.package]);
            match self.test {
                Some(name) => test.args(["--test", name]),
                None => test.arg("--lib"),
            };
            test
        };
        process::run(test().arg("--no-run"))?;
        found.unit = self.unit.into();
        let until = Instant::now() + time;
        let mut seed = seed();
        while Instant::now() < until {
            let mut command = test();
            command.env(self.variable, self.count.to_string()).env("CASCADE_SEED", seed.to_string());
            let mut said = Said::default();
            child::watch(command.args(["--", self.filter]), &mut said)?;
            ensure!(said.passed > 0, "no test `{}` in {} was run", self.filter, self.package);
            found.n += said.passed * self.count;
            // Some take consecutive seeds, one for each thing that they do.
            seed += self.count;
        }
        Ok(())
    }
}

fn model(time: Duration, found: &mut Found) -> Result<()> {
    let (package, test, filter) = ("cascade-shm", Some("model"), "keeps_to_the_model");
    Repeated { package, test, filter, variable: "PROPTEST_CASES", count: 250, unit: "sequences" }
        .run(time, found)
}

fn kill_files(time: Duration, found: &mut Found) -> Result<()> {
    let (package, test, filter) = ("cascade-pfs", Some("kill"), "no_acknowledged_block_is_lost");
    Repeated { package, test, filter, variable: "CASCADE_KILLS", count: 100, unit: "kills" }.run(time, found)
}

fn model_files(time: Duration, found: &mut Found) -> Result<()> {
    let (package, test, filter) = ("cascade-pfs", Some("model"), "sequences_at");
    Repeated { package, test, filter, variable: "CASCADE_SEQUENCES", count: 1000, unit: "sequences" }
        .run(time, found)
}

fn model_store(time: Duration, found: &mut Found) -> Result<()> {
    let (package, test, filter) = ("cascade-store", Some("model"), "keeps_to_the_model");
    Repeated { package, test, filter, variable: "PROPTEST_CASES", count: 250, unit: "sequences" }
        .run(time, found)
}

/// What breaks says its seed, and the command that runs it alone.
fn simulated(time: Duration, found: &mut Found) -> Result<()> {
    let (package, test, filter) = ("cascade-store", None, "the_store_holds_under_every_seed");
    Repeated { package, test, filter, variable: "CASCADE_SIM_SEEDS", count: 1000, unit: "seeds" }
        .run(time, found)
}

/// The seed to begin with: as asked for, or another each time.
fn seed() -> u64 {
    let asked = std::env::var("CASCADE_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs()))
}

/// Each run has a seed of its own, which stands in its output.
fn damage(time: Duration, found: &mut Found) -> Result<()> {
    let test = || cargo(&["test", "--package", "cascade-shm", "--test", "hostile_inside"]);
    process::run(test().arg("--no-run"))?;
    found.unit = "damaged arenas".into();
    let until = Instant::now() + time;
    let mut seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    while Instant::now() < until {
        let mut command = test();
        command.env("CASCADE_DAMAGE", DAMAGED.to_string()).env("CASCADE_SEED", (seed << 1).to_string());
        let mut said = Said::default();
        child::watch(&mut command, &mut said)?;
        ensure!(said.passed > 0, "no arena was damaged");
        found.n += DAMAGED;
        seed += 1;
    }
    Ok(())
}

fn fuzz_all(time: Duration, found: &mut Found) -> Result<()> {
    if let Some(why) = fuzz::missing() {
        anyhow::bail!(why);
    }
    found.unit = "executions".into();
    for (name, executions) in fuzz::run((time.as_secs() / fuzz::TARGETS).max(1))? {
        found.n += executions;
        found.measured.insert(name, executions as f64);
    }
    Ok(())
}

/// Ends when every schedule was seen; a model that takes longer than `time` is cut off there, and counted as such.
fn models(time: Duration, found: &mut Found) -> Result<()> {
    let metadata = Metadata::read()?;
    found.unit = "schedules".into();
    for (checker, package) in loom::all(&metadata) {
        let report = tempfile::NamedTempFile::new().context("no temporary file")?;
        let mut command = loom::models("test", checker, package);
        command.env("CASCADE_SHUTTLE", "100000");
        command.env("LOOM_MAX_PREEMPTIONS", "3").env("LOOM_MAX_DURATION", time.as_secs().to_string());
        command.env("CASCADE_LOOM_REPORT", report.path());
        let verdict = child::watch(&mut command, &mut Said::default());
        let text = std::fs::read_to_string(report.path()).context("cannot read the models' report")?;
        text.lines().for_each(|line| count_model(line, found));
        verdict?;
        ensure!(!text.is_empty(), "no model of {} was run", package.name);
    }
    Ok(())
}

/// Of fixed size.
fn controls(_time: Duration, found: &mut Found) -> Result<()> {
    (found.n, found.unit) = (negative::count(), "controls".into());
    negative::run().map(|note| println!("  {note}"))
}

/// Adds a line of the models' report: name, bound, executions, seconds, and whether these were all.
fn count_model(line: &str, found: &mut Found) {
    let fields: Vec<_> = line.split('\t').collect();
    let [_, _, executions, _, whole] = fields[..] else { return };
    found.n += executions.parse::<u64>().unwrap_or(0);
    *found.measured.entry("models".into()).or_default() += 1.0;
    *found.measured.entry("models_cut_off".into()).or_default() += f64::from(u8::from(whole == "cut off"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_of_all_models_are_added_up() {
        let mut found = Found::default();
        count_model("a_model\t3\t120\t0.5\tall", &mut found);
        count_model("another\t3\t30\t60.0\tcut off", &mut found);
        count_model("something else", &mut found);
        assert_eq!((found.n, found.measured["models"], found.measured["models_cut_off"]), (150, 2.0, 1.0));
    }
}
