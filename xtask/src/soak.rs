//! `cargo xtask soak`: the lanes of `cargo xtask test` for as long as one likes, and what that says about the rate of failures.

mod child;
mod lanes;
mod ranks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::steps::seconds;
use lanes::{LANES, Lane};

/// Options of `cargo xtask soak`.
#[derive(Args)]
#[command(after_help = lanes::table())]
pub(crate) struct Options {
    /// Run this lane only; may be given more than once. Default: every lane.
    #[arg(long = "lane", value_name = "NAME")]
    lanes: Vec<String>,
    /// How long each lane runs, in seconds. Models end when all
    /// their schedules were seen, each after this time at the latest.
    #[arg(long, value_name = "S", default_value_t = 600, conflicts_with = "hours")]
    seconds: u64,
    /// The same in hours.
    #[arg(long, value_name = "H")]
    hours: Option<f64>,
    /// Write the summary to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a lane has shown.
#[derive(Debug, Serialize)]
struct Report {
    lane: String,
    /// How many things were tried, and what they are.
    n: u64,
    unit: String,
    failures: u64,
    /// With 95 % certainty failures are rarer than this; none when there were any, or nothing was tried.
    rate_below: Option<f64>,
    seconds: f64,
    /// What else the lane measured, by name.
    measured: BTreeMap<String, f64>,
    /// Why it failed.
    error: Option<String>,
}

#[derive(Serialize)]
struct Summary<'a> {
    version: &'static str,
    reports: &'a [Report],
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let chosen = choose(&options.lanes)?;
    let time = time(options)?;
    let mut reports = Vec::new();
    for (number, lane) in chosen.iter().enumerate() {
        println!("\n== soak {} of {}: {}, {}", number + 1, chosen.len(), lane.name, seconds(time));
        let report = run(lane, time);
        println!("== {}", line(&report));
        reports.push(report);
        if let Some(path) = &options.json {
            // After each lane: what a night has shown must not be lost to the morning.
            write(path, &reports)?;
        }
    }
    println!();
    reports.iter().for_each(|report| println!("{}", line(report)));
    let failed = reports.iter().filter(|report| report.failures > 0).count();
    if failed > 0 {
        bail!("{failed} of {} lanes failed", reports.len());
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Lane>> {
    if names.is_empty() {
        return Ok(LANES.iter().collect());
    }
    let find = |name: &String| {
        let found = LANES.iter().find(|lane| lane.name == *name);
        found.with_context(|| format!("there is no lane {name}\n{}", lanes::table()))
    };
    names.iter().map(find).collect()
}

fn time(options: &Options) -> Result<Duration> {
    let seconds = options.hours.map_or(options.seconds as f64, |hours| hours * 3600.0);
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time >= Duration::from_secs(1) => Ok(time),
        _ => bail!("a lane cannot run for {seconds} seconds: give --seconds or --hours"),
    }
}

fn run(lane: &Lane, time: Duration) -> Report {
    let start = Instant::now();
    let mut found = lanes::Found::default();
    let error = (lane.run)(time, &mut found).err().map(|error| format!("{error:#}"));
    if error.is_some() {
        found.failures = found.failures.max(1);
    }
    let is_clean = found.failures == 0 && found.n > 0;
    Report {
        lane: lane.name.into(),
        n: found.n,
        unit: found.unit,
        failures: found.failures,
        rate_below: is_clean.then(|| 3.0 / found.n as f64),
        seconds: start.elapsed().as_secs_f64(),
        measured: found.measured,
        error,
    }
}

/// A report in a line.
fn line(report: &Report) -> String {
    let Report { lane, n, unit, failures, .. } = report;
    let took = seconds(Duration::from_secs_f64(report.seconds));
    let bound = report.rate_below.map(|bound| format!(": rate below {bound:.1e} (95 %)")).unwrap_or_default();
    let measured: String =
        report.measured.iter().map(|(name, value)| format!(", {name} {value:.6}")).collect();
    let why = report.error.as_ref().map(|error| format!("\n  {error}")).unwrap_or_default();
    format!("{lane}: {failures} failures in {n} {unit}{bound}; {took}{measured}{why}")
}

fn write(path: &PathBuf, reports: &[Report]) -> Result<()> {
    let summary = Summary { version: env!("CARGO_PKG_VERSION"), reports };
    let text = serde_json::to_string_pretty(&summary).context("cannot write the summary as JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(time: Duration, found: &mut lanes::Found) -> Result<()> {
        found.n = time.as_secs();
        found.unit = "probes".into();
        if found.n > 500 { bail!("enough") } else { Ok(()) }
    }

    #[test]
    fn an_unknown_lane_is_answered_with_those_there_are() {
        let error = choose(&["kil".into()]).unwrap_err().to_string();
        assert!(LANES.iter().all(|lane| error.contains(lane.name)), "{error}");
        assert_eq!(choose(&["deaths".into()]).unwrap()[0].name, "deaths");
        assert_eq!(choose(&[]).unwrap().len(), LANES.len());
    }

    #[test]
    fn a_bound_is_stated_only_for_what_was_tried_and_did_not_fail() {
        let lane = Lane { name: "probe", about: "", run: probe };
        let report = run(&lane, Duration::from_secs(300));
        assert_eq!((report.failures, report.rate_below), (0, Some(0.01)));
        assert!(
            line(&report).contains("0 failures in 300 probes: rate below 1.0e-2 (95 %)"),
            "{}",
            line(&report)
        );
        assert_eq!(run(&lane, Duration::ZERO).rate_below, None);
        let failed = run(&lane, Duration::from_secs(501));
        assert_eq!((failed.failures, failed.rate_below, failed.error.as_deref()), (1, None, Some("enough")));
    }
}
