//! `cascade-bench`: see `--help`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use cascade_bench::cli::{Arguments, Part, RowKind, TierName};
#[cfg(feature = "mpi")]
use cascade_bench::ranks;
use cascade_bench::report::{Report, compare, table};
use cascade_bench::run::{LAP_BYTES, Options, Pass, Results, run};
use cascade_bench::tiers::{Scratch, Wanted};
use cascade_bench::{
    contention, files, gpu, oversubscription, plot, routing, shm, space, store, suite, trace,
};
use cascade_core::{Error, ErrorKind, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Length of each repetition of leases by many at once.
const CONTENTION_MS: u64 = 500;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let wanted = suite::wanted(words.iter().map(AsRef::as_ref));
    let done = if is_of("mpi") || wanted.as_deref() == Some("scaling") {
        of_ranks()
    } else if wanted.as_deref() == Some("routing") {
        routing::run(&routing::Arguments::parse()).map(|()| ExitCode::SUCCESS)
    } else if wanted.as_deref() == Some("oversubscription") {
        oversubscription::run(&oversubscription::Arguments::parse()).map(|()| ExitCode::SUCCESS)
    } else if wanted.is_some() {
        trace::run(&trace::Arguments::parse()).map(|()| ExitCode::SUCCESS)
    } else if is_of("store") {
        of_store(&store::cli::Arguments::parse())
    } else if is_of("pfs") {
        of_files(&files::cli::Arguments::parse())
    } else {
        of_memory(&Arguments::parse())
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Whether a tier is asked for whose options are its own.
fn is_of(tier: &str) -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    words.windows(2).any(|pair| pair[0] == "--tier" && pair[1] == tier)
        || words.iter().any(|word| word.to_str() == Some(&format!("--tier={tier}")))
}

/// A run of the store over its tiers, in this process.
fn of_store(arguments: &store::cli::Arguments) -> Result<ExitCode> {
    let older = arguments.against.as_deref().map(Report::load).transpose()?;
    let mut report = Report::here(Vec::new(), Vec::new());
    let host = &report.host;
    eprintln!("{} x {}, Linux {}; {}", host.cores, host.cpu, host.kernel, host.copy_plan);
    let bar = progress_bar();
    let results = store::run(arguments, &mut shown(&bar))?;
    bar.finish_and_clear();
    (report.results, report.notes) = (results.rows, results.notes);
    let outputs = Outputs { json: arguments.json.as_deref(), plot: None, older, title: String::new() };
    tell(&report, &outputs, results.failures)
}

/// As one rank of a job: rank 0 tells what all found.
#[cfg(feature = "mpi")]
fn of_ranks() -> Result<ExitCode> {
    let arguments = ranks::cli::Arguments::parse();
    let older = arguments.against.as_deref().map(Report::load).transpose()?;
    let bar = progress_bar();
    let results = ranks::run(&arguments, &mut shown(&bar))?;
    bar.finish_and_clear();
    if !results.is_first {
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::here(results.rows, results.notes);
    if let (Some(path), true) = (arguments.json.as_deref(), arguments.append) {
        ranks::add_to(&mut report, path)?;
    }
    let outputs = Outputs { json: arguments.json.as_deref(), plot: None, older, title: String::new() };
    tell(&report, &outputs, 0)
}

#[cfg(not(feature = "mpi"))]
fn of_ranks() -> Result<ExitCode> {
    let what =
        "this benchmark was built without MPI: `cargo xtask bench` builds it with, and starts the ranks";
    Err(Error::new(ErrorKind::Unsupported, what))
}

fn of_memory(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.pass {
        Some(part) => here(arguments, part),
        None => whole(arguments),
    }
}

/// A run of the tier of files, in this process.
fn of_files(arguments: &files::cli::Arguments) -> Result<ExitCode> {
    if arguments.worker {
        files::work(std::io::stdin().lock(), std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    let older = arguments.against.as_deref().map(Report::load).transpose()?;
    if arguments.plot.is_some() && !arguments.wants(files::cli::RowKind::Bandwidth) {
        let what = "--plot draws rates, and --rows leaves them out: add bandwidth";
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    let mut report = Report::here(Vec::new(), Vec::new());
    let host = &report.host;
    eprintln!("{} x {}, Linux {}", host.cores, host.cpu, host.kernel);
    let bar = progress_bar();
    let results = files::run(arguments, &mut shown(&bar))?;
    bar.finish_and_clear();
    (report.results, report.notes) = (results.rows, results.notes);
    let title = format!("Tier pfs on {} x {}", report.host.cores, report.host.cpu);
    let outputs = Outputs { json: arguments.json.as_deref(), plot: arguments.plot.as_deref(), older, title };
    tell(&report, &outputs, results.failures)
}

/// Where the results go.
struct Outputs<'a> {
    json: Option<&'a Path>,
    plot: Option<&'a Path>,
    older: Option<Report>,
    title: String,
}

/// The table, and the files that were asked for; a failure when there were any, or bytes were wrong.
fn tell(report: &Report, outputs: &Outputs<'_>, failures: usize) -> Result<ExitCode> {
    let wrong = report.results.iter().filter(|row| row.verified == Some(false)).count();
    print!("{}", table(&report.results));
    report.notes.iter().for_each(|note| println!("note: {note}"));
    if let Some(older) = &outputs.older {
        print!("\n{}", compare(report, older));
    }
    if let Some(path) = outputs.json {
        report.save(path)?;
    }
    if let Some(path) = outputs.plot {
        plot::curves(path, &outputs.title, &report.results)?;
    }
    Ok(if failures + wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole run: each part in a process of its own, then the table and the files.
fn whole(arguments: &Arguments) -> Result<ExitCode> {
    arguments.check()?;
    // Before anything is measured: a wrong file is an error now, not after minutes.
    let older = arguments.against.as_deref().map(Report::load).transpose()?;
    if arguments.plot.is_some() && !arguments.wants(RowKind::Bandwidth) {
        let what = "--plot draws rates, and --rows leaves them out: add bandwidth";
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    let mut report = Report::here(Vec::new(), Vec::new());
    let host = &report.host;
    eprintln!("{} x {}, Linux {}; {}", host.cores, host.cpu, host.kernel, host.copy_plan);
    let mut failures = 0;
    for part in arguments.parts() {
        let results = in_a_process(&part)?;
        report.results.extend(results.rows);
        report.notes.extend(results.notes);
        failures += results.failures;
    }
    let tier = match arguments.tier {
        TierName::Shm => "shm",
        TierName::Gpu => "gpu",
    };
    let title = format!("Tier {tier} on {} x {}", report.host.cores, report.host.cpu);
    let outputs = Outputs { json: arguments.json.as_deref(), plot: arguments.plot.as_deref(), older, title };
    tell(&report, &outputs, failures)
}

/// Runs this program again for one part: how many threads share a copy is read from the environment once a process.
fn in_a_process(part: &Part) -> Result<Results> {
    let failed = || Error::new(ErrorKind::System, format!("the part {part} of the run failed"));
    let mut command = Command::new(program()?);
    command.args(std::env::args_os().skip(1)).args(["--pass", &part.to_string()]).stderr(Stdio::inherit());
    command.env("CASCADE_COPY_THREADS", part.copy_threads().to_string());
    let output = command.output().map_err(|error| failed().with_source(error))?;
    if !output.status.success() {
        return Err(failed());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed().with_source(error))
}

fn program() -> Result<PathBuf> {
    let unknown =
        |error| Error::new(ErrorKind::System, "where this program is, is unknown").with_source(error);
    std::env::current_exe().map_err(unknown)
}

/// One part, in this process.
fn here(arguments: &Arguments, part: &Part) -> Result<ExitCode> {
    if *part == Part::Worker {
        contention::work(std::io::stdin().lock(), std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = Scratch::new(&arguments.dir)?;
    let dir = scratch.path().to_owned();
    let bar = progress_bar();
    let mut progress = shown(&bar);
    let reps = arguments.reps as usize;
    let mut results = match part {
        Part::Tier(pass) => tier(arguments, pass, dir, &mut progress)?,
        Part::Space(threads) => {
            let (capacity_bytes, cycles, threads) = (arguments.capacity, arguments.cycles, threads.clone());
            let options = space::Options { dir, capacity_bytes, cycles, threads };
            space::measure(&options, "shm", &mut progress)?
        }
        Part::Gpu => {
            let blocks = arguments.block.0.clone();
            let (device, cycles) = (arguments.device, arguments.cycles.div_ceil(10));
            gpu::measure(&gpu::Options { blocks, reps, dir, device, cycles }, &mut progress)?
        }
        Part::Contention | Part::Worker => {
            let options = contention::Options { dir, program: program()?, reps, milliseconds: CONTENTION_MS };
            contention::measure(&options, "shm", &mut progress)?
        }
    };
    // Each process calibrates its own copies; what it found belongs to its figures.
    results.notes.push(format!("{part}: {}", cascade_core::copy::plan()));
    bar.finish_and_clear();
    let text = serde_json::to_string(&results).map_err(|error| {
        Error::new(ErrorKind::System, "the results cannot be written as JSON").with_source(error)
    })?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Rates, lookups and leases, as far as they are wanted.
fn tier(
    arguments: &Arguments,
    pass: &Pass,
    dir: PathBuf,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Results> {
    let if_wanted = |kind| arguments.wants(kind);
    let options = Options {
        blocks: if if_wanted(RowKind::Bandwidth) { arguments.block.0.clone() } else { Vec::new() },
        reps: arguments.reps as usize,
        lap_bytes: LAP_BYTES,
        dir: dir.clone(),
        capacity_bytes: arguments.capacity,
        baseline: !arguments.no_baseline,
        stored_blocks: if if_wanted(RowKind::Latency) { arguments.blocks.clone() } else { Vec::new() },
    };
    let open = |wanted: &Wanted| shm::open(&dir, wanted);
    run(&options, pass, "shm", &open, progress)
}

/// Shows progress as a bar, or where nobody looks, as lines.
fn shown(bar: &ProgressBar) -> impl FnMut(usize, usize, &str) + '_ {
    |done, steps, next| {
        bar.set_length(steps as u64);
        bar.set_position(done as u64);
        bar.set_message(next.to_owned());
        if !std::io::stderr().is_terminal() && !next.is_empty() {
            eprintln!("[{}/{steps}] {next}", done + 1);
        }
    }
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
