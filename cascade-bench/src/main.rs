//! `cascade-bench`: see `--help`.

use std::io::IsTerminal;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use cascade_bench::cli::{Arguments, TierName, pass_text};
use cascade_bench::report::{Report, compare, table};
use cascade_bench::run::{LAP_BYTES, Options, Pass, Results, run};
use cascade_bench::tiers::{Scratch, Wanted};
use cascade_bench::{plot, shm};
use cascade_core::tier::Addressable;
use cascade_core::{Error, ErrorKind, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.pass {
        Some(pass) => part(&arguments, pass),
        None => whole(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// The whole run: each pass in a process of its own, then the table and the files.
fn whole(arguments: &Arguments) -> Result<ExitCode> {
    // Before anything is measured: a wrong file is an error now, not after minutes.
    let older = arguments.against.as_deref().map(Report::load).transpose()?;
    let mut report = Report::here(Vec::new(), Vec::new());
    let host = &report.host;
    eprintln!("{} x {}, Linux {}; {}", host.cores, host.cpu, host.kernel, host.copy_plan);
    let mut failures = 0;
    for pass in arguments.passes() {
        let results = in_a_process(&pass)?;
        report.results.extend(results.rows);
        report.notes.extend(results.notes);
        failures += results.failures;
    }
    failures += report.results.iter().filter(|row| row.verified == Some(false)).count();
    print!("{}", table(&report.results));
    report.notes.iter().for_each(|note| println!("note: {note}"));
    if let Some(older) = &older {
        print!("\n{}", compare(&report, older));
    }
    if let Some(path) = &arguments.json {
        report.save(path)?;
    }
    if let Some(path) = &arguments.plot {
        plot::curves(
            path,
            &format!("Tier shm on {} x {}", report.host.cores, report.host.cpu),
            &report.results,
        )?;
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs this program again for one pass: how many threads share a copy is read from the environment once a process.
fn in_a_process(pass: &Pass) -> Result<Results> {
    let name = pass_text(pass);
    let failed = || Error::new(ErrorKind::System, format!("the part {name} of the run failed"));
    let program = std::env::current_exe().map_err(|error| failed().with_source(error))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).args(["--pass", &name]).stderr(Stdio::inherit());
    command.env("CASCADE_COPY_THREADS", pass.copy_threads().to_string());
    let output = command.output().map_err(|error| failed().with_source(error))?;
    if !output.status.success() {
        return Err(failed());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed().with_source(error))
}

/// One pass, in this process.
fn part(arguments: &Arguments, pass: &Pass) -> Result<ExitCode> {
    let TierName::Shm = arguments.tier;
    let scratch = Scratch::new(&arguments.dir)?;
    let options = Options {
        blocks: arguments.block.0.clone(),
        reps: arguments.reps as usize,
        lap_bytes: LAP_BYTES,
        dir: scratch.path().to_owned(),
        capacity_bytes: arguments.capacity,
        baseline: !arguments.no_baseline,
        stored_blocks: None,
    };
    let bar = progress_bar();
    let mut progress = |done: usize, steps: usize, next: &str| {
        bar.set_length(steps as u64);
        bar.set_position(done as u64);
        bar.set_message(next.to_owned());
        if !std::io::stderr().is_terminal() && !next.is_empty() {
            eprintln!("[{}/{steps}] {next}", done + 1);
        }
    };
    let open = |wanted: &Wanted| -> Result<Arc<dyn Addressable>> { shm::open(scratch.path(), wanted) };
    let mut results = run(&options, pass, "shm", &open, &mut progress)?;
    // Each process calibrates its own copies; what it found belongs to its figures.
    results.notes.push(format!("{}: {}", pass_text(pass), cascade_core::copy::plan()));
    bar.finish_and_clear();
    let text = serde_json::to_string(&results).map_err(|error| {
        Error::new(ErrorKind::System, "the results cannot be written as JSON").with_source(error)
    })?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
