//! Steps of a command: a header before, the time after, one table at the end.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

enum Outcome {
    Passed(String),
    Failed(String),
    LeftOut(String),
}

struct Step {
    name: String,
    took: Duration,
    outcome: Outcome,
}

/// Runs steps one after the other. A failed step does not stop the next ones, so one run shows every problem.
pub(crate) struct Steps {
    command: &'static str,
    done: Vec<Step>,
}

impl Steps {
    pub(crate) fn new(command: &'static str) -> Self {
        Self { command, done: Vec::new() }
    }

    /// Runs one step; `work` returns a note for the table. `cure` is what to do when it fails.
    pub(crate) fn run(&mut self, name: &str, cure: &str, work: impl FnOnce() -> Result<String>) -> bool {
        println!("\n== {} {}: {name}", self.command, self.done.len() + 1);
        let start = Instant::now();
        let outcome = match work() {
            Ok(note) => Outcome::Passed(note),
            Err(error) => Outcome::Failed(report(name, &error, cure)),
        };
        let took = start.elapsed();
        let passed = matches!(outcome, Outcome::Passed(_));
        println!("== {name}: {} in {}", if passed { "passed" } else { "FAILED" }, seconds(took));
        self.done.push(Step { name: name.into(), took, outcome });
        passed
    }

    /// Records a step that was not run on purpose, with the reason.
    pub(crate) fn leave_out(&mut self, name: &str, why: &str) {
        let outcome = Outcome::LeftOut(why.into());
        self.done.push(Step { name: name.into(), took: Duration::ZERO, outcome });
    }

    /// Prints the table; fails when a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        let failed = self.done.iter().filter(|s| matches!(s.outcome, Outcome::Failed(_))).count();
        let passed = self.done.iter().filter(|s| matches!(s.outcome, Outcome::Passed(_))).count();
        println!("\n{}", self.table());
        println!("{}: {passed} passed, {failed} failed", self.command);
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.done.len());
        }
        Ok(())
    }

    fn table(&self) -> String {
        let width = self.done.iter().map(|s| s.name.len()).max().unwrap_or(0);
        let lines = self.done.iter().map(|step| {
            let (word, note) = match &step.outcome {
                Outcome::Passed(note) => ("passed", note),
                Outcome::Failed(note) => ("FAILED", note),
                Outcome::LeftOut(note) => ("left out", note),
            };
            format!("{:width$}  {word:8}  {:>8}  {note}", step.name, seconds(step.took)).trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn report(name: &str, error: &Error, cure: &str) -> String {
    eprintln!("{error:#}");
    if !cure.is_empty() {
        eprintln!("{name}: to fix it: {cure}");
    }
    let first = format!("{error:#}").lines().next().unwrap_or_default().to_owned();
    first.chars().take(100).collect()
}

/// A duration for people: `4.2 s`, `3 min 07 s`.
pub(crate) fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    if whole >= 60 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn one_failed_step_fails_the_command_and_the_rest_still_runs() {
        let mut steps = Steps::new("probe");
        assert!(!steps.run("first", "mend it", || Err(anyhow!("broken"))));
        let mut ran = false;
        assert!(steps.run("second", "", || {
            ran = true;
            Ok("note".into())
        }));
        assert!(ran);
        let table = steps.table();
        assert!(table.contains("first   FAILED") && table.contains("broken"), "{table}");
        assert!(steps.finish().is_err());
    }

    #[test]
    fn left_out_steps_are_named_and_do_not_count_as_passed() {
        let mut steps = Steps::new("probe");
        steps.leave_out("slow", "--quick");
        assert!(steps.table().contains("slow  left out"), "{}", steps.table());
        assert!(steps.finish().is_ok());
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(4200)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(187)), "3 min 07 s");
    }
}
